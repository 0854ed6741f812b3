"""What a checkpoint of the loop holds."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

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


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's moments and steps, by the number of the parameter as text."""
    return {str(number): values for number, values in optimiser.state_dict()["state"].items()}


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back what `optimiser_state` gave."""
    groups = optimiser.state_dict()["param_groups"]
    moments = {int(number): values for number, values in state.items()}
    optimiser.load_state_dict({"state": moments, "param_groups": groups})


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights and buffers."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
