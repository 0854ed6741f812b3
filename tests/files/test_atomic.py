"""A reader sees the old file or the new one, whatever happens in between."""

import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from tidegate.files import write_atomic
from tidegate.files.atomic import locked


def test_writes_and_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_has_the_usual_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "usual").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(type(error)) as caught:
        write_atomic(path, b"new")
    if isinstance(caught.value, OSError):
        assert str(caught.value) == f"[Errno 28] No space left on device: '{path}'"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    left = [tmp_path / name for name in (".file.0123abcd", ".file.89abcdef", ".other.0123abcd", ".file.mine", "file.0")]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    left[1].touch()  # younger than an hour: its writer may be at work
    write_atomic(tmp_path / "file", b"x")
    assert {p.name for p in tmp_path.iterdir()} == {"file", *(p.name for p in left[1:])}


def test_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), sync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("rename"), replace(self, target))[1])
    write_atomic(tmp_path / "file", b"x")
    assert order == ["sync", "rename", "sync"]


def hold(folder: Path, entered: Path, leave: Path) -> None:
    with locked(folder):
        entered.touch()
        while not leave.exists():
            time.sleep(0.005)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "model"
    names = [(tmp_path / f"{k} entered", tmp_path / f"{k} may leave") for k in range(2)]
    first, second = (context.Process(target=hold, args=(folder, *pair)) for pair in names)
    first.start()
    wait_for(names[0][0])
    second.start()
    second.join(0.5)
    assert second.is_alive()
    assert not names[1][0].exists()
    names[0][1].touch()
    wait_for(names[1][0])
    names[1][1].touch()
    for process in (first, second):
        process.join()
        assert process.exitcode == 0
