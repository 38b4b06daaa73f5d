# SPDX-License-Identifier: Apache-2.0
"""Run folders behind a URL, for workers that share no disk; fsspec reads and writes them.

A stored job works in a temporary folder of its machine: it fetches the rows and files of the jobs
it needs, and publishes its own, the row last. Files lie under the keys of jobs, so that a job that
is run again, because its worker was lost, replaces its own files or finds its row.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from d3fast.io.files import make_folder
from d3fast.results.jobs import (
    CachedJob,
    Job,
    Row,
    cache_folder,
    finished_row,
    key_of,
    needs_of,
    row_path,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_MODELS, _TRIGGERS = "models", "triggers"


@dataclass(frozen=True)
class RunStore:
    """A run folder that fsspec can read and write, such as ``s3://bucket/run``.

    Attributes:
        url: of the folder; a path without a protocol is one of a disk that all workers share.
    """

    url: str

    def __post_init__(self) -> None:
        if "://" not in self.url:
            object.__setattr__(self, "url", Path(self.url).absolute().as_uri())

    def _open(self) -> "tuple[AbstractFileSystem, str]":
        """Return the file system and the folder's path in it.

        Raises:
            ValueError: an unknown protocol, or one whose package is not installed.
        """
        from fsspec.core import url_to_fs

        try:
            system, root = url_to_fs(self.url)
        except ImportError as error:
            raise ValueError(f"store {self.url}: {error}") from None
        return system, root.rstrip("/")

    def fetch_rows(self, keys: Iterable[str], folder: Path) -> frozenset[str]:
        """Copy rows into a run directory that lacks them; return the keys that the store has."""
        system, root = self._open()
        cells = make_folder(cache_folder(folder))
        present = {path.rpartition("/")[2]: path for path in _files(system, f"{root}/{cells.name}")}
        found = frozenset(key for key in keys if f"{key}.json" in present)
        for name in sorted(f"{key}.json" for key in found):
            if not (cells / name).exists():
                _get(system, present[name], cells / name)
        return found

    def fetch(self, job: Job, folder: Path) -> None:
        """Copy the row and the files of a finished job, if it is one, into a run directory."""
        system, root = self._open()
        own = key_of(job)
        for path in _files(system, f"{root}/{_MODELS}"):
            name = path.rpartition("/")[2]
            if name.startswith(f"{own}."):
                _get(system, path, make_folder(folder / _MODELS) / name)
        self.fetch_rows([own], folder)

    def fetch_triggers(self, folder: Path) -> None:
        """Copy the triggers that jobs have learned; see ``d3fast.attacks.cache``."""
        system, root = self._open()
        for path in _files(system, f"{root}/{_TRIGGERS}"):
            name = path.rpartition("/")[2]
            if not name.startswith("."):
                _get(system, path, make_folder(folder / _TRIGGERS) / name)

    def publish(self, job: Job, folder: Path, known: Iterable[Path] = ()) -> None:
        """Copy the files of a run directory into the store, the row of a job last.

        Args:
            job: the job that has been run.
            folder: run directory.
            known: files that were fetched and stay as they are.
        """
        system, root = self._open()
        row, known = row_path(job, folder), set(known)
        files = {path for path in folder.rglob("*") if path.is_file()} - known - {row}
        for path in [*sorted(files), row]:
            _put(system, path, f"{root}/{path.relative_to(folder).as_posix()}")


@dataclass(frozen=True)
class StoredJob:
    """A job that keeps its row and its files in a store.

    Attributes:
        job: the job.
        store: the run folder.
    """

    job: Job
    store: RunStore
    kind: ClassVar[str] = "stored"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    def run(self, shared: Any, progress: bool) -> Row:
        """Run the job in a temporary folder, publish it, and return its row.

        A job whose row is in the store is not run again.
        """
        with tempfile.TemporaryDirectory(prefix="d3fast-") as name:
            folder = Path(name)
            self.store.fetch_rows([key_of(self.job)], folder)
            if (row := finished_row(self.job, folder)) is not None:
                return row
            shutil.rmtree(cache_folder(folder))  # a damaged row
            make_folder(cache_folder(folder))
            for needed in needs_of(self.job):
                self.store.fetch(needed, folder)
            self.store.fetch_triggers(folder)
            known = [path for path in folder.rglob("*") if path.is_file()]
            row = CachedJob(self.job, folder).run(replace(shared, folder=folder), progress)
            self.store.publish(self.job, folder, known)
        return row


def _files(system: "AbstractFileSystem", folder: str) -> list[str]:
    """Return the paths in a folder of a store; none if there is no such folder."""
    system.invalidate_cache(folder)
    try:
        return sorted(map(str, system.ls(folder, detail=False)))
    except FileNotFoundError:
        return []


def _get(system: "AbstractFileSystem", source: str, target: Path) -> None:
    """Copy a file out of a store, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        system.get_file(source, str(temporary))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _put(system: "AbstractFileSystem", source: Path, target: str) -> None:
    """Copy a file into a store, whole or not at all."""
    folder, _, name = target.rpartition("/")
    # Readers list whole names: a copy that is cut off leaves a name that nobody reads.
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
    system.makedirs(folder, exist_ok=True)
    system.put_file(str(source), temporary)
    system.mv(temporary, target)
