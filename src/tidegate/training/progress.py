"""Progress on the terminal; beside `cli` the only file that writes there."""

import time
from types import TracebackType
from typing import Self

from tidegate.errors import MissingExtraError
from tidegate.training.events import Event, Finished, Started, Undone
from tidegate.training.view import TrainingView

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    raise MissingExtraError("app", "Progress on the terminal") from None

LINE_EVERY = 10.0  # seconds between two lines, where standard error is not a terminal


class TerminalProgress:
    """A listener that draws one moving line on standard error; use it as a context manager.

    The bar is the share of the budget, which training may not need, and then of judging. Where standard error is not a
    terminal a plain line is written every ten seconds, for each update that is undone, and at the end of training.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
        self._progress = Progress(*columns, console=self._console)
        self._bar = self._progress.add_task("training", total=1.0, left="")
        self._view, self._written = TrainingView(), time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event of the loop."""
        self._view(event)
        if self._console.is_terminal:
            self._progress.start()
            view = self._view
            self._progress.update(self._bar, description=view.text, completed=view.share, left=view.left_text)
        else:
            self._write(event)

    def _write(self, event: Event) -> None:
        """Write a plain line, where one is due."""
        match event:
            case Started(update=update) if update:
                line = f"training goes on after update {update}"
            case Undone(update=update, loss=loss, norm=norm):
                line = f"the update after {update} is undone: its loss is {loss:g}, the norm of its gradient {norm:g}"
            case _:
                line = self._view.line
                if not isinstance(event, Finished) and time.monotonic() - self._written < LINE_EVERY:
                    return
        self._written = time.monotonic()
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)
