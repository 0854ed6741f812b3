"""How far a run is."""

from dataclasses import asdict, dataclass, field
from typing import Any

from tidegate.config import checked
from tidegate.training.events import Checked, Finished


@dataclass
class Position:
    """How far a run is: counts, losses since the last check, and the checks so far.

    `seconds` is the time spent on training when it was saved, `batches` the number of batches (or groups of batches)
    since the last check, `waited` the checks since the last lowest loss or cut, `undone` the undone updates in a row.
    """

    updates: int = 0
    seconds: float = 0.0
    batches: int = 0
    waited: int = 0
    cuts: int = 0
    undone: int = 0
    losses: list[float] = field(default_factory=list)
    checks: list[Checked] = field(default_factory=list)
    finished: Finished | None = None

    def to_json(self) -> dict[str, Any]:
        """The position as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "Position":
        """The position that `to_json` gave. Raises ModelFileError where the data is not one."""
        found: Position = checked(cls, data, "position")
        return found
