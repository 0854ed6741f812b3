"""What progress shows, computed from events alone: events.jsonl gives the same view as the run itself."""

import math

from tidegate.training.events import Checked, Event, Finished, Judging, Started, Undone, Updated


class TrainingView:
    """A listener whose `text`, `share` and `left` say how far a run is."""

    def __init__(self) -> None:
        self._start(Started(0, math.inf))

    def _start(self, event: Started) -> None:
        self.started = event
        self.update, self.seconds = event.update, event.seconds
        self.loss: float | None = None
        self.validation: float | None = None
        self.undone = 0
        self.ended = ""
        self.judging: Judging | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        match event:
            case Started():
                self._start(event)
            case Updated(loss=loss):
                self.loss = loss
            case Checked(training=training, validation=validation):
                self.loss, self.validation = self.loss if training is None else training, validation
            case Undone():
                self.undone += 1
            case Finished(reason=reason):
                self.ended = f"trained until {reason}"
            case Judging():
                self.judging = event
        match event:
            case Updated(update, seconds) | Checked(update, seconds) | Finished(update, seconds):
                self.update, self.seconds = update, seconds

    @property
    def text(self) -> str:
        """What is done, and the numbers of it."""
        if self.judging is not None:
            return f"judging  {self.judging.done} of {self.judging.total}"
        parts = [self.ended or "training", f"update {self.update}", *self._losses()]
        if self.rate and not self.ended:
            parts.append(f"{self.rate:.3g} updates/s")
        if self.undone:
            parts.append(f"{self.undone} undone")
        return "  ".join(parts)

    def _losses(self) -> list[str]:
        named = {"loss": self.loss, "validation": self.validation}
        return [f"{name} {value:.4g}" for name, value in named.items() if value is not None]

    @property
    def rate(self) -> float:
        """Updates in a second since training began or was continued; 0 where none was made."""
        taken = self.seconds - self.started.seconds
        return (self.update - self.started.update) / taken if taken > 0 else 0.0

    @property
    def share(self) -> float:
        """The share of the work that is done, 0 to 1; training may end before it is 1."""
        if self.judging is not None:
            return self.judging.done / max(self.judging.total, 1)
        if self.ended:
            return 1.0
        of_updates = self.update / self.started.updates if self.started.updates else 0.0
        of_time = self.seconds / self.started.budget if math.isfinite(self.started.budget) else 0.0
        return min(max(of_updates, of_time), 1.0)

    @property
    def left(self) -> float:
        """The seconds that the work may still take; infinite where nothing tells."""
        if self.judging is not None:
            done, rest = self.judging.done, self.judging.total - self.judging.done
            return self.judging.seconds / done * rest if done else math.inf
        by_time = self.started.budget - self.seconds if math.isfinite(self.started.budget) else math.inf
        steps = self.started.updates - self.update if self.started.updates else math.inf
        by_updates = steps / self.rate if self.rate else math.inf
        return max(min(by_time, by_updates), 0.0)

    @property
    def line(self) -> str:
        """The text and the time left, for a place where nothing can move."""
        return self.text if self.ended and self.judging is None else f"{self.text}  {self.left_text}".rstrip()

    @property
    def left_text(self) -> str:
        """The time left, as in "at most 1:05 left"."""
        if not math.isfinite(self.left):
            return ""
        minutes, seconds = divmod(math.ceil(self.left), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return f"{clock} left" if self.judging is not None else f"at most {clock} left"
