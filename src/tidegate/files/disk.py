"""Every change that Tidegate makes to a disk, in six functions, so that tests can let each call fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO


def write(file: BinaryIO, data: bytes) -> None:
    """Write all of the data to an unbuffered file. Raises OSError where only a part of it fits."""
    left = memoryview(data)
    while left:
        written = file.write(left)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = left[written:]


def sync(descriptor: int) -> None:
    """Wait until what was written is on the disk."""
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file, replacing the target."""
    source.replace(target)


def shorten(file: BinaryIO, size: int) -> None:
    """Cut a file off after this many bytes."""
    file.truncate(size)


def make_folder(path: Path) -> None:
    """Make a folder whose parent exists. Raises FileExistsError."""
    path.mkdir()


def remove(path: Path) -> None:
    """Remove a file or an empty folder."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
