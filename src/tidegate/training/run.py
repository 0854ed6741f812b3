"""The folder of a run: config.json, events.jsonl and a checkpoint, later the model and the report instead."""

import contextlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tidegate.errors import ArgumentError, ModelFileError, TrainingError
from tidegate.files import disk, from_json, to_json, write_atomic
from tidegate.files.atomic import append, locked, make_folders, naming, remove_torn_line, remove_unfinished
from tidegate.files.model_folder import read_limited
from tidegate.training.events import Event, Started, event_line

CONFIG, EVENTS, CHECKPOINT = "config.json", "events.jsonl", "checkpoint.safetensors"
_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{8}")  # temporary files of a killed writer


class RunFolder:
    """The folder of one run, a context in which no other process can use it, and a listener that records events in it.

        with RunFolder(Path("runs/co2"), config, resume=True) as folder:
            train(task, plan, [folder], checkpoint=folder.checkpoint, resume=True)
            ...
            folder.complete()

    `path` is a folder that holds nothing, or nothing but the beginnings of a run without a checkpoint. With `resume` it
    may also hold a run with the same config: `completed` says whether it is complete, and else training continues from
    its checkpoint. A run that ends before training starts leaves nothing behind.

    Entering raises ArgumentError for a folder that holds something else, TrainingError where another process has it.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path, self.resume = path, resume
        self.config: dict[str, Any] = from_json(to_json(config))
        self.completed, self._numbered, self._started = False, "", False
        self._stack = contextlib.ExitStack()

    @classmethod
    def numbered(cls, name: str, config: Mapping[str, Any], root: Path = Path("runs"), *, resume: bool = False) -> Self:
        """The first of root/NAME-1, root/NAME-2 ... that does not exist; with `resume` the last one that holds a run
        with the same config, if there is one."""
        folder = cls(root / f"{name}-1", config, resume=resume)
        folder._numbered = name
        return folder

    @property
    def checkpoint(self) -> Path:
        """The file to continue from, which exists while the run is not complete."""
        return self.path / CHECKPOINT

    def __enter__(self) -> Self:
        with self._stack:
            found = self._find() if self._numbered and self.resume else None
            if found is None and self._numbered:
                made = self._make_numbered()
            else:
                self.path = found or self.path
                made = make_folders(self.path)
            self._lock()
            self._stack.callback(self._leave_nothing, made)
            self._examine()
            if not self.completed:
                remove_unfinished(self.path, ".*")
                remove_torn_line(self.path / EVENTS)
                self.write(CONFIG, to_json(self.config, indent=2) + "\n")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, event: Event) -> None:
        """Write an event as a line of events.jsonl."""
        self._started = self._started or isinstance(event, Started)
        append(self.path / EVENTS, event_line(event).encode())

    def write(self, name: str, text: str) -> Path:
        """Write a file of the folder, whole or not at all."""
        write_atomic(self.path / name, text.encode())
        return self.path / name

    def complete(self) -> None:
        """Remove the checkpoint: all that the run is for has been written."""
        with naming(self.checkpoint):
            disk.remove(self.checkpoint)

    def _find(self) -> Path | None:
        """The last folder that holds a run with this config."""
        runs = re.compile(rf"{re.escape(self._numbered)}-([1-9]\d*)")
        with contextlib.suppress(FileNotFoundError):
            numbers = [int(found[1]) for path in self.path.parent.iterdir() if (found := runs.fullmatch(path.name))]
            for number in sorted(numbers, reverse=True):
                path = self.path.with_name(f"{self._numbered}-{number}")
                if _config(path) == self.config and self._kind(path) != "foreign":
                    return path
        return None

    def _make_numbered(self) -> list[Path]:
        """Make the first folder that does not exist; returns all folders that were made."""
        made = make_folders(self.path.parent)
        for number in itertools.count(1):
            self.path = self.path.with_name(f"{self._numbered}-{number}")
            if not self.path.exists() and self.path in (more := make_folders(self.path)):
                return made + more
        raise AssertionError

    def _lock(self) -> None:
        try:
            self._stack.enter_context(locked(self.path, wait=False))
        except BlockingIOError:
            raise TrainingError(
                f"Another process is training in {self.path}. Wait until it ends, or give another folder."
            ) from None

    def _examine(self) -> None:
        """Find out what the folder holds, and refuse what cannot be continued."""
        kind = self._kind(self.path)
        if kind == "foreign" or (kind == "complete" and not self.resume):
            raise ArgumentError(
                f"The folder {self.path} exists already and is not overwritten. Give a folder that does not exist yet, "
                "or none for a new one under runs/."
            )
        if kind == "unfinished" and not self.resume:
            raise ArgumentError(
                f"The folder {self.path} holds an unfinished run. Continue it with --resume, or give another folder."
            )
        if kind != "new":
            self._compare()
        self.completed = kind == "complete"

    def _kind(self, path: Path) -> str:
        """What a folder holds: "new" (nothing, or the beginnings of this run), an "unfinished" or a "complete" run, or
        something "foreign"."""
        names = {entry.name for entry in path.iterdir() if not _UNFINISHED.fullmatch(entry.name)}
        if {CONFIG, CHECKPOINT} <= names:
            return "unfinished"
        if {CONFIG, "model", "report.html"} <= names:
            return "complete"
        begun = names <= {CONFIG, EVENTS} and _config(path) == self.config
        return "new" if begun or not names else "foreign"

    def _compare(self) -> None:
        theirs = _config(self.path) or {}
        for name in sorted(theirs.keys() | self.config.keys()):
            if theirs.get(name) != self.config.get(name):
                raise ArgumentError(
                    f"The folder {self.path} holds a run with {name}={theirs.get(name)!r}, got "
                    f"{self.config.get(name)!r}. To continue it give the same options and data, else another folder."
                )

    def _leave_nothing(self, made: list[Path]) -> None:
        """Remove the folders that were made, where training has not started in them."""
        if made and not self._started and not self.checkpoint.exists():
            with contextlib.suppress(OSError):
                if self.path in made and (self.path / CONFIG).exists():
                    disk.remove(self.path / CONFIG)
                for folder in reversed(made):
                    disk.remove(folder)


def _config(path: Path) -> dict[str, Any] | None:
    """The config of the run in a folder, if there is one."""
    with contextlib.suppress(ModelFileError, ValueError):
        data = read_limited(path / CONFIG)
        found = from_json(data) if data is not None else None
        return found if isinstance(found, dict) else None
    return None
