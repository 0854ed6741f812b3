"""The folder that a run leaves: config.json and history.jsonl, with room for the model and the report."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tidegate.errors import ArgumentError
from tidegate.files import write_atomic
from tidegate.training.events import Event, Started


class RunFolder:
    """A new folder for one run, and a listener that keeps the run's history in it.

    The folder is made when training starts, so that a run which fails on its data leaves nothing behind. One that
    exists already is refused at once.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        if path.exists():
            raise ArgumentError(
                f"The folder {path} exists already and is not overwritten. Give a folder that does not exist yet, "
                "or none for a fresh one under runs/."
            )
        self.path, self.config = path, dict(config)

    @classmethod
    def fresh(cls, name: str, config: Mapping[str, Any], root: Path = Path("runs")) -> "RunFolder":
        """The first of root/NAME-1, root/NAME-2 ... that does not exist."""
        number = 1
        while (root / f"{name}-{number}").exists():
            number += 1
        return cls(root / f"{name}-{number}", config)

    def __call__(self, event: Event) -> None:
        """Write an event as a line of history.jsonl."""
        if isinstance(event, Started):
            self.path.mkdir(parents=True)
            self.write("config.json", json.dumps(self.config, indent=2, ensure_ascii=False) + "\n")
        line = json.dumps({"event": type(event).__name__.lower(), **asdict(event)})
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the folder, whole or not at all."""
        write_atomic(self.path / name, text.encode())
        return self.path / name
