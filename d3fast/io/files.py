# SPDX-License-Identifier: Apache-2.0
"""Writing files atomically, and hashing them."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from d3fast.io.untrusted import open_regular

_CHUNK = 2**20
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents unless it exists, and return its path.

    Raises:
        ValueError: a file is in the way.
        OSError: the folder cannot be created.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"cannot make folder {path}: a file is in the way") from None
    return path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write to a temporary file inside a ``with`` block; it replaces ``path`` at the end.

    If the block raises (Ctrl-C included), ``path`` is unchanged and the temporary file is removed.

    Args:
        path: the file to write. Its folder must exist.

    Yields:
        The path of the temporary file, in the folder of ``path``.

    Raises:
        ValueError: the folder does not exist, or ``path`` is a folder or a device.
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():  # /dev/null would become a file, for everyone
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ValueError(f"cannot write {path}: it is {kind}")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_together(path: str | Path) -> Iterator[Path]:
    """Write several files inside a ``with`` block; they move into a folder together at the end.

    If the block raises (Ctrl-C included), the folder is unchanged, and not made if it was missing.

    Args:
        path: the folder. It is made with its parents.

    Yields:
        An empty folder beside the final files. A file or folder in it replaces one of its name.

    Raises:
        ValueError: a file is in the way of the folder, or a folder in the way of a file.
        OSError: the folder cannot be written to.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_together(Path(folder, "out")) as temporary:
        ...         _ = (temporary / "a.txt").write_text("a")
        ...     os.listdir(Path(folder, "out"))
        ['a.txt']
    """
    path = Path(path)
    made = [each for each in (path, *path.parents) if not each.exists()]
    make_folder(path)
    temporary = Path(tempfile.mkdtemp(dir=path, prefix=".writing."))
    try:
        yield temporary
        entries = sorted(temporary.iterdir())
        for entry in entries:
            if entry.is_file() and (path / entry.name).is_dir():
                raise ValueError(f"cannot write {path / entry.name}: it is a folder")
        for entry in entries:
            _replace(entry, path / entry.name, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:  # from the innermost; one with files in it stays
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_folder(path: str | Path) -> Path:
    """Raise unless files can be written into a folder; return its path and leave nothing behind.

    Raises:
        ValueError: a file is in the way of the folder.
        OSError: the folder cannot be written to.
    """
    with written_together(path):
        return Path(path)


def _replace(source: Path, target: Path, spare: Path) -> None:
    """Move a file or folder over another one; ``spare`` takes a folder that is replaced."""
    if source.is_dir() and (target.exists() or target.is_symlink()):
        target.rename(spare / f".old.{target.name}")
    source.replace(target)


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weight file; of a folder's, of their sorted names and digests.

    Args:
        path: a file, or a folder with weight files by their usual suffixes. Beside an ONNX file,
            which may keep its weights under any name, all files count.

    Raises:
        ValueError: a folder without weight files, or what ``sha256`` raises.
        OSError: a file that cannot be read.
    """
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS)
    if any(path.glob("*.onnx")):
        files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise ValueError(f"{path} has no weight files")
    return files_digest(files)


def files_digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 of one file; of several, of their sorted names and digests."""
    if len(files) == 1:
        return sha256(files[0])
    lines = (f"{sha256(file)}  {file.name}\n" for file in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits, like ``sha256sum``.

    Args:
        path: a regular file of any length; it is read in chunks of 1 MiB.

    Raises:
        ValueError: a pipe, a device or a socket.
        OSError: a folder, or a file that is missing or cannot be read.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "abc")
        ...     _ = file.write_bytes(b"abc")
        ...     sha256(file)[:16]
        'ba7816bf8f01cfea'
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
