"""Cache of object code on disk: named by a hash of everything it depends on, in a folder private to the user.

The cache cannot give wrong code: a folder that other users may write to is not used, an entry must match the hash in
its header, and where nothing can be read or written the code is compiled again.
"""

import hashlib
import os
import re
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from tidegate.errors import TidegateNotice
from tidegate.native import _llvm

MAX_BYTES, MAX_FILES = 256 << 20, 2_000
PACKAGES = ("equations", "calculus", "native")  # whose sources the code of a cell depends on
VARIABLE = "TIDEGATE_CACHE"

_MAGIC = b"tidegate object code 1\n"
_HEAD = len(_MAGIC) + 64
_ENTRY = re.compile(r"[0-9a-f]{64}")
_UNFINISHED, _HOUR = "unfinished-", 3600.0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_warned: list[bool] = []


def cached(key_text: str, build: Callable[[], bytes]) -> bytes:
    """The result of `build`, read from disk if it was built before for the same key text.

    The text names the target and everything else that the code depends on, except the versions of LLVM and of the
    sources in these packages, which are part of every key.
    """
    key = hashlib.sha256("\0".join((_llvm.version(), sources(), key_text)).encode()).hexdigest()
    folder = where()
    code = _read(folder / key, key) if folder else None
    if code is None:
        code = build()
        try:
            _write(_made(), key, code)
        except OSError as error:
            _say(error)
    return code


def where() -> Path | None:
    """The folder, if it is safe to use; it may not exist yet."""
    try:
        folder = _folder()
        with suppress(FileNotFoundError):
            _check(folder)
    except OSError:
        return None
    return folder


def problem() -> str:
    """Why nothing can be cached, or an empty string. Leaves no file behind."""
    try:
        folder = _folder()
        with suppress(FileNotFoundError):
            _check(folder)
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        return _reason(error)
    return ""


def clear() -> None:
    """Remove every cached file."""
    folder = where()
    for path, _ in _files(folder) if folder else ():
        with suppress(OSError):
            path.unlink()


def held() -> tuple[int, int]:
    """The number of cached files, and their bytes."""
    folder = where()
    sizes = [found.st_size for _, found in _files(folder)] if folder else []
    return len(sizes), sum(sizes)


@lru_cache(maxsize=1)
def sources() -> str:
    """A hash of the sources that turn equations into code."""
    whole = hashlib.sha256()
    for package in PACKAGES:
        for file in _python_files(resources.files(f"tidegate.{package}")):
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def _python_files(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _python_files(entry)
        elif entry.name.endswith(".py"):
            yield entry


def _folder() -> Path:
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if not os.path.isabs(chosen):
            raise OSError(f"{VARIABLE}={chosen!r} is not an absolute path")
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    path = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    if not os.path.isabs(path):
        raise OSError("this user has no home folder")
    return Path(path, "tidegate", "native")


def _made() -> Path:
    folder = _folder()
    try:
        _check(folder)
    except FileNotFoundError:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _check(folder)
    return folder


def _check(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{folder} is a file or a link, not a folder")
    _check_owner(folder, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise OSError(f"{path} belongs to another user")
    if os.name == "posix" and found.st_mode & _OTHERS_WRITE:
        raise OSError(f"{path} is writable by other users; run: chmod go-w '{path}'")


def _read(path: Path, key: str) -> bytes | None:
    try:
        with open(path, "rb", opener=_open_itself) as file:
            found = os.fstat(file.fileno())
            _check_owner(path, found)
            whole = file.read() if stat.S_ISREG(found.st_mode) and found.st_size <= MAX_BYTES else b""
    except OSError:
        return None
    head, code = whole[:_HEAD], whole[_HEAD:]
    if head != _head(key, code):
        return None
    with suppress(OSError):  # in a read-only folder the order of use is not updated
        os.utime(path)
    return code


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))  # no wait for a pipe


def _head(key: str, code: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(key.encode() + code).hexdigest().encode()


def _write(folder: Path, key: str, code: bytes) -> None:
    handle, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:  # not synced: a file cut short by a crash does not match its hash
            file.write(_head(key, code) + code)
        os.replace(unfinished, folder / key)
    except OSError:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
    if key[0] == "0":  # one write in sixteen prunes the folder
        prune(folder)


def prune(folder: Path) -> None:
    """Remove the least recently used files beyond the limits, and unfinished ones of killed processes."""
    count, size = 0, 0
    for path, found in sorted(_files(folder), key=lambda f: -f[1].st_mtime_ns):
        if path.name.startswith(_UNFINISHED):
            gone = found.st_mtime < time.time() - _HOUR
        else:
            count, size = count + 1, size + found.st_size
            gone = count > MAX_FILES or size > MAX_BYTES
        if gone:
            with suppress(OSError):
                path.unlink()


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if _ENTRY.fullmatch(entry.name) or entry.name.startswith(_UNFINISHED):
            with suppress(OSError):  # another process may have removed it
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def _reason(error: OSError) -> str:
    return f"{_folder()}: {error.strerror}" if error.strerror else str(error)


def _say(error: OSError) -> None:
    if _warned:
        return
    _warned.append(True)
    warnings.warn(
        f"Compiled kernels cannot be cached on disk ({_reason(error)}), so each process compiles them again. "
        f"Set {VARIABLE} to a folder that only you can write to.",
        TidegateNotice,
        stacklevel=3,
    )
