"""Progress on the terminal; beside `cli` the only file that writes there."""

from types import TracebackType
from typing import Self

from tidegate.errors import MissingExtraError
from tidegate.training.events import Checked, Event, Finished, Started

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    raise MissingExtraError("app", "Progress on the terminal") from None


class TerminalProgress:
    """A listener that draws one line on standard error; use it as a context manager.

    The bar is the time that training may take. If standard error is not a terminal nothing moves, and only the last
    line is written, whole.
    """

    def __init__(self, console: Console | None = None) -> None:
        words = "{task.description}  loss {task.fields[loss]}  update {task.fields[update]}"
        self._console = console or Console(stderr=True)
        self._progress = Progress(TextColumn(words), BarColumn(), TimeRemainingColumn(), console=self._console)
        self._line = self._progress.add_task("training", loss="-", update=0, start=False)
        self._in_updates = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event of the loop."""
        match event:
            case Started():
                if self._console.is_terminal:
                    self._progress.start()
                self._progress.start_task(self._line)
                self._in_updates = event.updates is not None
                self._progress.update(self._line, total=event.updates or event.budget)
            case Checked(seconds=seconds, update=update, validation=loss):
                done = update if self._in_updates else seconds
                self._progress.update(self._line, completed=done, loss=f"{loss:.4g}", update=update)
            case Finished(updates=updates, reason=reason):
                described = f"trained until {reason}"
                self._progress.update(self._line, description=described, update=updates, total=1, completed=1)
                if not self._console.is_terminal:
                    self._console.print(f"{described} ({updates} updates)", soft_wrap=True, markup=False)
