"""Object code on disk: made once, believed only if whole and private, never in the way of an answer."""

import errno
import os
import re
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.errors import TidegateNotice
from tidegate.native import _llvm
from tidegate.native.run import cache

CODE = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder, not made yet, in a process that has told nothing yet."""
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "deep" / "kernels"))
    monkeypatch.setattr(cache, "_warned", [])
    return tmp_path / "deep" / "kernels"


def never() -> bytes:
    pytest.fail("was built though it lies on disk")


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("unfinished-"))


def noticed(reason: str) -> "pytest.WarningsRecorder":
    message = (
        f"Compiled kernels cannot be cached on disk ({reason}), so each process compiles them again. "
        "Set TIDEGATE_CACHE to a folder that only you can write to."
    )
    return pytest.warns(TidegateNotice, match=f"^{re.escape(message)}$")


# keeping


def test_what_was_built_once_is_not_built_again(folder: Path) -> None:
    assert cache.cached("lstm", lambda: CODE) == CODE
    assert cache.cached("lstm", never) == CODE
    assert cache.cached("gru", lambda: b"other") == b"other"
    assert cache.cached("empty", lambda: b"") == cache.cached("empty", never) == b""
    assert len(kept(folder)) == 3


def test_nothing_is_for_others(folder: Path) -> None:
    before = os.umask(0)
    try:
        cache.cached("lstm", lambda: CODE)
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [(_llvm, "version"), (cache, "sources")])
def test_another_llvm_or_other_sources_make_other_code(
    change: tuple[object, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.cached("lstm", lambda: b"old")
    monkeypatch.setattr(*change, lambda: "another")
    assert cache.cached("lstm", lambda: b"new") == b"new"


def test_the_sources_are_those_of_all_sub_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert re.fullmatch("[0-9a-f]{64}", cache.sources())
    assert cache.sources() == cache.sources.__wrapped__()
    file = tmp_path / "compile" / "deep" / "lower.py"
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(cache.resources, "files", lambda _: tmp_path)
    found = set()
    for text in ("a = 1\n", "a = 2\n"):
        file.write_text(text, encoding="utf-8")
        found.add(cache.sources.__wrapped__())
    assert len(found) == 2


def test_an_error_of_the_build_passes(folder: Path) -> None:
    def fails() -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.cached("lstm", fails)
    assert not folder.exists()
    assert cache.cached("lstm", lambda: CODE) == CODE


# where


@pytest.mark.parametrize(
    ("chosen", "xdg", "expected"),
    [
        ("/own/place", "/xdg", "/own/place"),
        ("", "/xdg", "/xdg/tidegate/native"),
        ("", "", "/home/ada/.cache/tidegate/native"),
        ("", "relative", "/home/ada/.cache/tidegate/native"),
    ],
)
def test_the_folder(chosen: str, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TIDEGATE_CACHE", chosen), ("XDG_CACHE_HOME", xdg), ("HOME", "/home/ada")):
        monkeypatch.setenv(name, value)
    assert cache.where() == Path(expected)


def without_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name in ("TIDEGATE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    return "this user has no home folder"


def a_relative_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("TIDEGATE_CACHE", "kernels")
    return "TIDEGATE_CACHE='kernels' is not an absolute path"


def a_file_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    path = tmp_path / "deep" / "kernels"
    path.parent.mkdir()
    path.write_text("mine")
    return f"{path} is a file or a link, not a folder"


def a_file_above(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "deep").write_text("mine")
    return f"{tmp_path / 'deep' / 'kernels'}: Not a directory"


def a_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "kernels").symlink_to(tmp_path / "elsewhere")
    return f"{tmp_path / 'deep' / 'kernels'} is a file or a link, not a folder"


def another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    path = tmp_path / "deep" / "kernels"
    path.mkdir(parents=True, mode=0o700)
    me = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: me + 1)
    return f"{path} belongs to another user"


def a_group_that_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    path = tmp_path / "deep" / "kernels"
    path.mkdir(parents=True)
    path.chmod(0o770)
    return f"{path} is writable by other users; run: chmod go-w '{path}'"


@pytest.mark.parametrize(
    "spoil",
    [without_home, a_relative_choice, a_file_there, a_file_above, a_link, another_user, a_group_that_writes],
)
def test_a_folder_that_is_not_fit_is_not_used(
    spoil: Callable[[pytest.MonkeyPatch, Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = spoil(monkeypatch, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with noticed(reason) as caught:
        assert cache.cached("lstm", lambda: CODE) == CODE
        assert cache.cached("lstm", lambda: b"again") == b"again"
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (cache.where(), cache.problem(), cache.held()) == (None, reason, (0, 0))
    cache.clear()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_lies_in_a_folder_of_others_is_not_read(folder: Path) -> None:
    cache.cached("lstm", lambda: CODE)
    folder.chmod(0o702)
    with noticed(f"{folder} is writable by other users; run: chmod go-w '{folder}'"):
        assert cache.cached("lstm", lambda: b"own") == b"own"


# damage


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def cut_in_its_head(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:30])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[-100] ^= 1
    file.write_bytes(whole)


def lengthened(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def writable_by_others(file: Path) -> None:
    file.chmod(0o606)


def linked(file: Path) -> None:
    file.rename(file.parent.parent / "moved")
    file.symlink_to(file.parent.parent / "moved")


def dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def without_end(file: Path) -> None:
    os.truncate(file, 1 << 40)  # sparse


def of_another_key(file: Path) -> None:
    cache.cached("another", lambda: b"other code")
    (other,) = set(file.parent.iterdir()) - {file}
    other.replace(file)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        cut_in_its_head,
        emptied,
        flipped,
        lengthened,
        writable_by_others,
        linked,
        dangling,
        of_another_key,
        a_pipe,
        without_end,
    ],
)
def test_a_damaged_entry_is_built_again_and_replaced(damage: Callable[[Path], None], folder: Path) -> None:
    cache.cached("lstm", lambda: CODE)
    (file,) = folder.iterdir()
    damage(file)
    assert cache.cached("lstm", lambda: b"anew") == b"anew"
    assert cache.cached("lstm", never) == b"anew"
    assert kept(folder) == [file]
    assert not file.is_symlink()


def test_an_entry_of_another_user_is_not_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.cached("lstm", lambda: CODE)
    real = os.fstat

    def foreign(handle: int) -> os.stat_result:
        found = list(real(handle))
        found[stat.ST_UID] += 1
        return os.stat_result(found)

    monkeypatch.setattr("os.fstat", foreign)
    assert cache.cached("lstm", lambda: b"own") == b"own"


def test_a_folder_where_an_entry_should_be(folder: Path) -> None:
    cache.cached("lstm", lambda: CODE)
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    with noticed(f"{folder}: Is a directory"):
        assert cache.cached("lstm", lambda: CODE) == CODE
    assert kept(folder) == [file]
    assert list(folder.iterdir()) == [file]


# disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EMFILE])
def test_a_disk_that_takes_nothing(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.cached("before", lambda: CODE)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "name")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("os.utime", refuse)
    with noticed(f"{folder}: {os.strerror(number)}") as caught:
        for _ in range(3):
            assert cache.cached("lstm", lambda: CODE) == CODE
    assert len(caught) == 1
    assert cache.cached("before", never) == CODE
    assert cache.problem() == f"{folder}: {os.strerror(number)}"


def test_what_cannot_be_finished_is_taken_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.replace", refuse)
    with noticed(f"{folder}: {os.strerror(errno.EIO)}"):
        assert cache.cached("lstm", lambda: CODE) == CODE
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")
def test_a_file_that_breaks_off_while_it_is_written(folder: Path) -> None:
    program = """
import resource, warnings
from tidegate.native.run import cache
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert cache.cached("lstm", lambda: bytes(10000)) == bytes(10000)
    assert cache.cached("lstm", lambda: bytes(10000)) == bytes(10000)
print(*[w.message for w in caught])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == (
        f"Compiled kernels cannot be cached on disk ({folder}: File too large), so each process compiles them again. "
        "Set TIDEGATE_CACHE to a folder that only you can write to.\n"
    )
    assert list(folder.iterdir()) == []


def test_a_folder_that_may_only_be_read(folder: Path) -> None:
    cache.cached("before", lambda: CODE)
    folder.chmod(0o500)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert cache.cached("before", never) == CODE
            assert cache.cached("lstm", lambda: CODE) == CODE
    finally:
        folder.chmod(0o700)
    everything_is_allowed = os.geteuid() == 0
    assert len(caught) == (0 if everything_is_allowed else 1)


def test_warnings_as_errors_do_not_stop_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file_there(monkeypatch, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TidegateNotice):
            cache.cached("lstm", lambda: CODE)
        assert cache.cached("lstm", lambda: CODE) == CODE


# limits


def entry(folder: Path, number: int, size: int, used: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:064x}"
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FILES", 3)
    files = [entry(folder, n, 10, used) for n, used in enumerate((50, 20, 40, 10, 30))]
    cache.prune(folder)
    assert kept(folder) == [files[0], files[2], files[4]]


def test_too_many_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 100)
    files = [entry(folder, n, size, used) for n, (size, used) in enumerate([(60, 1), (30, 3), (40, 4), (30, 2)])]
    cache.prune(folder)
    assert kept(folder) == files[1:]


def test_what_is_within_the_limits_stays(folder: Path) -> None:
    files = [entry(folder, n, 1000, n) for n in range(100)]
    cache.prune(folder)
    assert kept(folder) == files


def test_use_makes_young(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("one", "two", "three"):
        cache.cached(text, text.encode)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    cache.cached("two", never)
    monkeypatch.setattr(cache, "MAX_FILES", 1)
    cache.prune(folder)
    assert cache.cached("two", never) == b"two"
    assert len(kept(folder)) == 1


def test_only_what_is_ours_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FILES", 0)
    entry(folder, 1, 10, 1)
    now = time.time()
    for name, used in (("notes.txt", 1), ("unfinished-old", now - 4000), ("unfinished-young", now), ("ab", 1)):
        (folder / name).write_text("x")
        os.utime(folder / name, (used, used))
    cache.prune(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["ab", "notes.txt", "unfinished-young"]
    cache.clear()
    assert sorted(path.name for path in folder.iterdir()) == ["ab", "notes.txt"]


def test_the_folder_is_looked_through_seldom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(cache, "prune", looks.append)
    for n in range(320):
        cache.cached(str(n), lambda: b"")
    assert 5 <= len(looks) <= 45  # one in sixteen
    assert set(looks) == {folder}


def test_the_limit_holds_without_being_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FILES", 20)
    for n in range(400):
        cache.cached(str(n), lambda: b"")
    assert len(kept(folder)) <= 20 + 150


# many at once


@pytest.mark.parametrize("limit", [2_000, 3])
def test_many_processes_share_the_folder(limit: int, folder: Path) -> None:
    program = f"""
import os, random, sys
from tidegate.native.run import cache
cache.MAX_FILES = {limit}
chance = random.Random(int(sys.argv[1]))
for turn in range(300):
    number = chance.randrange(12)
    code = bytes([number]) * 30_000
    assert cache.cached(f"key {{number}}", lambda: code) == code
    if chance.random() < 0.1:
        cache.prune(cache.where())
    if chance.random() < 0.05:
        for path in list(cache.where().glob("[0-9a-f]*"))[:1]:
            try: os.truncate(path, 1000)
            except FileNotFoundError: pass
"""
    command = [sys.executable, "-W", "error", "-c", program]
    several = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True) for n in range(4)]
    told = [process.communicate(timeout=100)[1] for process in several]
    assert [(process.returncode, error) for process, error in zip(several, told, strict=True)] == [(0, "")] * 4
    assert len(kept(folder)) <= 12
    assert list(folder.glob("unfinished-*")) == []


# looking


def test_looking_makes_nothing(folder: Path, tmp_path: Path) -> None:
    assert (cache.where(), cache.problem(), cache.held()) == (folder, "", (0, 0))
    cache.clear()
    assert list(tmp_path.iterdir()) == []


def test_what_is_held(folder: Path) -> None:
    for text in ("one", "two"):
        cache.cached(text, lambda: CODE)
    (folder / "notes.txt").write_text("not ours")
    assert cache.held() == (2, sum(path.stat().st_size for path in kept(folder) if path.name != "notes.txt"))
    assert cache.problem() == ""
    cache.clear()
    assert cache.held() == (0, 0)
    assert cache.cached("one", lambda: b"anew") == b"anew"
