# SPDX-License-Identifier: Apache-2.0
"""Jobs and their cache: one JSON file per finished job, written whole or not at all.

A job is a frozen dataclass whose fields are everything that its result depends on. The key of a
job is its name and a hash of those fields. A run that was cut off continues where it stopped, and
a changed setting is another job.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from d3fast.io.files import atomic_write

Row = dict[str, Any]
_CACHE = "cells"  # the folder's name on disk since 0.1
# Fields that jobs got after others were run: unset, they are left out of the key.
_LATER = frozenset({"shift", "mapping", "unlabelled"})


@dataclass(frozen=True)
class RunDir:
    """The run directory of a benchmark. Results of jobs do not depend on it.

    Attributes:
        folder: holds the cache, and the files that jobs leave for other jobs.
        device: where a job computes; the engine sets it for each worker.
        data_dir: folder of the data set's files, where it has files.
        keep: keys of jobs that must save their model, among those that save it only on request.
        log: trackers of the epochs of repairs; see ``d3fast.integrations.epoch_log``.
    """

    folder: Path
    device: str = "cpu"
    data_dir: Path | None = None
    keep: frozenset[str] = frozenset()
    log: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "RunDir":
        """Return the same run directory for a worker on a device."""
        return replace(self, device=str(device))


class Job(Protocol):
    """A frozen dataclass that can be pickled.

    Attributes:
        kind: enters the key in place of the class name, which may change between releases.
    """

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Short text for people; fit for a file name."""

    def run(self, shared: Any, progress: bool, /) -> Any:
        """Compute the result.

        Args:
            shared: what all jobs of a run share (``RunDir``), on the worker's device.
            progress: show progress bars.
        """


def needs_of(job: Job) -> tuple[Job, ...]:
    """Return the jobs that have to be run before a job, on whose rows and files it works.

    A job that needs others has them in an attribute ``needs``.
    """
    return tuple(getattr(job, "needs", ()))


def settings_of(job: Job) -> dict[str, Any]:
    """Return everything that a job's result depends on, as JSON represents it.

    A dataclass inside the job may have ``plugins``: names of what is not d3fast's own, each with
    package and version. Another version is another job.
    """
    own = asdict(job, dict_factory=_without_unset)  # type: ignore[call-overload]
    settings = {"cell": job.kind, **own}
    if plugins := dict(sorted(_plugins(job))):
        settings["plugins"] = plugins
    return json.loads(json.dumps(settings))


def _plugins(part: Any) -> Iterator[tuple[str, str]]:
    parts: Iterable[Any] = ()
    if is_dataclass(part):
        yield from getattr(part, "plugins", {}).items()
        parts = (getattr(part, field.name) for field in fields(part))
    elif isinstance(part, Mapping):
        parts = part.values()
    elif isinstance(part, (list, tuple)):
        parts = part
    for each in parts:
        yield from _plugins(each)


def file_name(text: str) -> str:
    """Return a text fit for a file name; it may have a ``package.module:Name``.

    Example:
        >>> file_name("digits-seed0-mine:Patch")
        'digits-seed0-mine.Patch'
    """
    return text.replace(":", ".")


def _without_unset(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value is not None or name not in _LATER}


def key_of(job: Job) -> str:
    """Return the key of a job: its name and a hash of its settings, fit for a file name."""
    text = json.dumps(settings_of(job), sort_keys=True)
    return f"{job.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def finished_row(job: Job, folder: Path) -> Row | None:
    """Return the row of a finished job, or ``None``; a damaged file counts as not finished."""
    try:
        document = json.loads(row_path(job, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("settings") != settings_of(job):
        return None
    row = document.get("row")
    return row if isinstance(row, dict) else None


@dataclass(frozen=True)
class CachedJob:
    """A job that writes its row into the cache of a run directory.

    Attributes:
        job: the job.
        folder: the run directory's folder.
    """

    job: Job
    folder: Path
    kind: ClassVar[str] = "cached"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    def run(self, shared: Any, progress: bool) -> Row:
        """Run the job, write its row, and return the row as the next run will read it."""
        return write_row(self.job, self.folder, self.job.run(shared, progress))


def write_row(job: Job, folder: Path, row: Row) -> Row:
    """Write the row of a finished job into the cache, and return it as it will be read."""
    text = json.dumps({"settings": settings_of(job), "row": row}, indent=2, allow_nan=False)
    with atomic_write(row_path(job, folder)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return json.loads(text)["row"]


def cache_folder(folder: Path) -> Path:
    """Return the folder of the cache inside a run directory."""
    return folder / _CACHE


def row_path(job: Job, folder: Path) -> Path:
    """Return the path of a job's row in the cache of a run directory."""
    return cache_folder(folder) / f"{key_of(job)}.json"
