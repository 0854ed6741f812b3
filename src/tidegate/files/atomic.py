"""Files on disk: a reader sees the old file or the new one, whatever happens in between, and errors name the file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tidegate.files import disk

if sys.platform != "win32":
    import fcntl

_HOUR = 3600.0


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary name beside `path`, sync, then rename. An error leaves what was there, and names `path`."""
    make_folders(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb", buffering=0) as file:
            disk.write(file, data)
            disk.sync(file.fileno())
        disk.rename(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            disk.remove(temporary)
        if isinstance(error, OSError):
            raise _named(error, path) from error
        raise
    remove_unfinished(path.parent, re.escape(path.name), older=_HOUR)
    with naming(path.parent):
        _sync_folder(path.parent)


def append(path: Path, line: bytes) -> None:
    """Add a line to a file. An error leaves no part of it, and names `path`."""
    with naming(path), path.open("ab", buffering=0) as file:
        whole = file.seek(0, os.SEEK_END)
        try:
            disk.write(file, line)
        except BaseException:
            disk.shorten(file, whole)
            raise


def remove_torn_line(path: Path) -> None:
    """Cut off a last line without its end, which a killed writer of lines left. No file is no torn line."""
    with contextlib.suppress(FileNotFoundError), naming(path), path.open("r+b", buffering=0) as file:
        lines = file.read()
        if not lines.endswith(b"\n"):
            disk.shorten(file, lines.rfind(b"\n") + 1)


def make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it that do not exist; returns what was made, the outermost first."""
    made: list[Path] = []
    for folder in [*reversed(path.parents), path]:
        with contextlib.suppress(FileExistsError), naming(folder):
            if not folder.is_dir():
                disk.make_folder(folder)
                made.append(folder)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return made


def remove_unfinished(folder: Path, name: str, older: float = 0.0) -> None:
    """Remove temporary files left by killed writers, where the file's name matches, at least `older` seconds old."""
    unfinished = re.compile(rf"\.({name})\.[0-9a-f]{{8}}")
    with contextlib.suppress(OSError):  # another process may remove them too
        for path in folder.iterdir():
            if unfinished.fullmatch(path.name) and path.stat().st_mtime <= time.time() - older:
                disk.remove(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file to any OSError in this block that has none."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        raise _named(error, path) from error


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Raises OSError for anything else, such as a pipe, which would block."""
    with naming(path), open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        yield file


def _named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror or str(error), str(path))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """One writer at a time in a folder, which is created if absent. Readers need no lock. No lock on Windows.

    The system frees the lock of a process that ends, however it ends. Raises BlockingIOError where another process has
    the lock and `wait` is False.
    """
    make_folders(folder)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
