"""The record of a training run."""

from dataclasses import asdict, dataclass
from typing import Any

from tidegate.training.events import Checked, Finished


@dataclass(frozen=True)
class History:
    """All validation checks in order, and how the run ended."""

    checks: tuple[Checked, ...]
    finished: Finished

    @property
    def best(self) -> int:
        """The index of the check whose weights were kept."""
        return max(index for index, check in enumerate(self.checks) if check.best)

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return {"checks": [asdict(check) for check in self.checks], "finished": asdict(self.finished)}
