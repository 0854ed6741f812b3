"""The folder of a run: config.json and history.jsonl, later also the model and the report."""

import itertools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tidegate.errors import ArgumentError
from tidegate.files import to_json, write_atomic
from tidegate.files.atomic import append
from tidegate.training.events import Event, Started


class RunFolder:
    """A new folder for one run, and a listener that keeps the run's history in it.

    The folder is made when training starts, so that a run which fails on its data leaves nothing behind. One that
    exists already is refused at once.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config, self._name = path, dict(config), ""
        if path.exists():
            raise self._taken()

    @classmethod
    def fresh(cls, name: str, config: Mapping[str, Any], root: Path = Path("runs")) -> "RunFolder":
        """The first of root/NAME-1, root/NAME-2 ... that does not exist when training starts."""
        folder = cls(_first_free(root, name), config)
        folder._name = name
        return folder

    def __call__(self, event: Event) -> None:
        """Write an event as a line of history.jsonl."""
        if isinstance(event, Started):
            self._make()
            self.write("config.json", to_json(self.config, indent=2) + "\n")
        line = to_json({"event": type(event).__name__.lower(), **asdict(event)}) + "\n"
        append(self.path / "history.jsonl", line.encode())

    def _make(self) -> None:
        """Make the folder; where another run has taken its number meanwhile, with the next one."""
        while True:
            try:
                return self.path.mkdir(parents=True)
            except FileExistsError:
                if not self._name:
                    raise self._taken() from None
                self.path = _first_free(self.path.parent, self._name)

    def _taken(self) -> ArgumentError:
        return ArgumentError(
            f"The folder {self.path} exists already and is not overwritten. Give a folder that does not exist yet, "
            "or none for a new one under runs/."
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file of the folder, whole or not at all."""
        write_atomic(self.path / name, text.encode())
        return self.path / name


def _first_free(root: Path, name: str) -> Path:
    return next(path for k in itertools.count(1) if not (path := root / f"{name}-{k}").exists())
