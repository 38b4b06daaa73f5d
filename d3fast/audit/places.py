# SPDX-License-Identifier: Apache-2.0
"""The folder of an audit: ``runs/NAME-SHA8`` by default, and only ever of one suspect."""

import re
from pathlib import Path

from d3fast.audit.resolve import CARD, INSPECTION, PILOT, SPECTRUM, WEIGHTS
from d3fast.io.untrusted import printable
from d3fast.results.schema.document import Settings
from d3fast.results.schema.fields import read_record
from d3fast.results.store import read_results

RUNS = Path("runs")
DOCUMENTS = (CARD, INSPECTION, WEIGHTS, PILOT, SPECTRUM)
_MAX_NAME = 60
_AUDIT = re.compile(r".+-[0-9a-f]{8}")


def default_folder(name: str, sha256: str) -> Path:
    """Return the folder of a suspect's audit: its name and the first digits of its hash.

    Args:
        name: of the suspect; other characters than letters, digits, ``._-`` become ``-``.
        sha256: of the suspect.

    Example:
        >>> default_folder("my model", "0123456789abcdef").as_posix()
        'runs/my-model-01234567'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_MAX_NAME].strip(".-") or "model"
    return RUNS / f"{plain}-{sha256[:8]}"


def owners(folder: Path) -> dict[str, str]:
    """Return the hash of the suspect by document, for those in a folder that name one.

    Raises:
        ValueError: a document that cannot be read; one line that names it.
    """
    found = {}
    for name in DOCUMENTS:
        if (folder / name).exists():
            try:
                settings = read_record(read_results(folder / name).settings, Settings, "settings")
            except ValueError as error:
                shown = str(error)
                raise ValueError(shown if name in shown else f"{name}: {shown}") from None
            if settings.sha256 is not None:
                found[name] = settings.sha256
    return found


def check_owner(folder: Path, sha256: str) -> None:
    """Raise ``ValueError`` if a folder has results of another suspect.

    Args:
        folder: it need not exist.
        sha256: of the suspect.
    """
    for name, other in owners(folder).items():
        if other != sha256:
            raise ValueError(
                f"{printable(folder)} has results of another model (SHA-256 {other[:8]}… in "
                f"{name}, this model has {sha256[:8]}…): choose another folder with --out"
            )


def newest_audit(runs: Path = RUNS) -> tuple[Path, int]:
    """Return the audit folder with the newest document, and the number of audit folders.

    Args:
        runs: the folder of audits with default names.

    Raises:
        ValueError: there is none.
    """
    times = {}
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        files = [folder / name for name in DOCUMENTS if (folder / name).is_file()]
        if files and _AUDIT.fullmatch(folder.name):
            times[folder] = max(file.stat().st_mtime_ns for file in files)
    if not times:
        raise ValueError(f"there is no audit in {runs}: run d3fast check, or name the folder")
    return max(times, key=lambda folder: times[folder]), len(times)
