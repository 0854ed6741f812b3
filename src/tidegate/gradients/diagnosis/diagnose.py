"""`diagnose`: how gradients flow through time in a net, as plain data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from tidegate.gradients.diagnosis.cosines import Cosine, cosines, default_rules
from tidegate.gradients.diagnosis.lags import Lags, lag_norms
from tidegate.gradients.diagnosis.saturation import Activation, activations
from tidegate.gradients.diagnosis.spectrum import Spectrum, spectrum
from tidegate.gradients.diagnosis.subject import PROBE, Loss, make_subject, origin_steps
from tidegate.gradients.diagnosis.units import Units, units
from tidegate.gradients.diagnosis.words import sentences
from tidegate.gradients.rules import Rule


@dataclass(frozen=True)
class Diagnosis:
    """The result of `diagnose`. `cells` are the names of the layers' cells, from first to last; layers are counted from
    0. `loss` says what was differentiated, `origins` how many steps of how many rows gradients start from."""

    cells: list[str]
    steps: int
    rows: int
    loss: str
    origins: int
    lags: list[Lags]
    spectra: list[Spectrum]
    activations: list[Activation]
    units: list[Units]
    cosines: list[Cosine]

    @property
    def sentences(self) -> list[str]:
        """The findings in plain words: memory, vanishing or exploding, saturation, dead units, rules."""
        return sentences(self.lags, self.spectra, self.activations, self.units, self.cosines)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data for JSON; each state's lags include `memory`, `memory_percent` (the same for
        1 %), `growth` and `flow`."""
        whole = asdict(self) | {"sentences": self.sentences}
        whole["lags"] = [
            asdict(lags)
            | {"memory": lags.memory, "memory_percent": lags.until(0.01), "growth": lags.growth, "flow": lags.flow}
            for lags in self.lags
        ]
        return whole


def diagnose(
    layer: nn.Module,
    x: Tensor,
    target: Tensor | None = None,
    loss: Loss | None = None,
    *,
    readout: Any = None,
    lengths: Any = None,
    origins: Sequence[int] | None = None,
    rules: Sequence[Rule] | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Diagnose gradients through time in a layer, for some data: what vanishes, saturates or is dead.

    `layer` is a `Recurrent`, a `Stack`, or an LSTM, GRU or RNN of tidegate or torch.nn, of one direction; it is
    not changed, and evaluated without dropout. `x` `[T, B, I]` and `target` `[T, B, ...]` are time-major;
    `lengths` `[B]` ends rows early. `loss(outputs, target)` is given the outputs of all steps, or `readout(outputs)`,
    and returns one number. Without a loss, a projection of the outputs on one random direction, drawn from `seed`, is
    used.

    Gradients start from the loss of each row's last step, or of the steps `origins`. `rules` are compared
    with the exact gradient of the loss of all steps; by default, truncated BPTT with several horizons.

    Raises ArgumentError for unsupported layers and data, and if a state is not finite.
    """
    subject = make_subject(layer, x, target, loss, readout, lengths, seed)
    outputs, runs = subject.run()
    at = origin_steps(subject, origins)
    lags, largest = lag_norms(subject, outputs, runs, at)
    chosen = default_rules(len(x)) if rules is None else rules
    return Diagnosis(
        cells=[run.graph.name for run in runs],
        steps=len(x),
        rows=x.shape[1],
        loss=PROBE if loss is None else "the loss that was given",
        origins=sum(int((steps >= 0).sum()) for steps in at),
        lags=lags,
        spectra=[spectrum(subject, k, run, seed) for k, run in enumerate(runs)],
        activations=[a for k, run in enumerate(runs) for a in activations(subject, k, run)],
        units=[u for k, run in enumerate(runs) for u in units(subject, k, run, largest)],
        cosines=cosines(subject, chosen),
    )
