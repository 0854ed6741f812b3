"""Events of a training run, for listeners, and as lines of JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tidegate.config import BeforeValidator, checked
from tidegate.errors import ModelFileError
from tidegate.files import from_json, to_json

Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]


@dataclass(frozen=True)
class Started:
    """Training begins, or continues from a checkpoint that was written after `update` updates and `seconds`.

    `parameters` is the number of learned weights. Training may take `budget` seconds (not finite: any number) and
    `updates` updates (None: any number).
    """

    parameters: int
    budget: Number
    updates: int | None = None
    update: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checked:
    """The validation loss was computed after `update` updates.

    `training` is the mean training loss since the last check (None at the first, before any update), `best` says
    whether this is the lowest validation loss so far.
    """

    update: int
    seconds: float
    training: float | None
    validation: float
    learning_rate: float
    best: bool


@dataclass(frozen=True)
class Updated:
    """Training goes on: `update` updates were made, the last one with this mean loss. Told once a second at most."""

    update: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class Undone:
    """The update after `update` was not made, because its loss or the norm of its gradient is not finite.

    The rest of its batch was skipped. `row` is the number of such updates in a row. In JSON a number that is not finite
    is null.
    """

    update: int
    seconds: float
    loss: Number
    norm: Number
    row: int


@dataclass(frozen=True)
class Finished:
    """Training ended: after how many updates and seconds, why, and which update's weights were kept."""

    updates: int
    seconds: float
    reason: str
    best_update: int


@dataclass(frozen=True)
class Judging:
    """The trained net is judged: `done` of `total` parts, for example series, are."""

    done: int
    total: int
    seconds: float


Event = Started | Updated | Checked | Undone | Finished | Judging
Listener = Callable[[Event], None]
_KINDS = {kind.__name__.lower(): kind for kind in (Started, Updated, Checked, Undone, Finished, Judging)}


def event_line(event: Event) -> str:
    """An event as a line of JSON, with its kind as the field `event`."""
    return to_json({"event": type(event).__name__.lower(), **asdict(event)}) + "\n"


def read_events(path: Path) -> list[Event]:
    """The events of a run, from its events.jsonl. Raises ModelFileError, which names the line that is none."""
    events = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        place = f"{path}:{number}"
        try:
            data = from_json(line)
            kind = _KINDS[data.pop("event")]
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ModelFileError(f"{place} is no event of a run") from error
        events.append(checked(kind, data, place))
    return events
