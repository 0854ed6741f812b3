"""The findings of a diagnosis as sentences."""

from collections.abc import Iterator, Sequence

from tidegate.gradients.diagnosis.cosines import Cosine
from tidegate.gradients.diagnosis.lags import VANISHED, Lags
from tidegate.gradients.diagnosis.saturation import Activation
from tidegate.gradients.diagnosis.spectrum import Spectrum
from tidegate.gradients.diagnosis.units import Units

MAX_UNITS = 8


def sentences(
    lags: Sequence[Lags],
    spectra: Sequence[Spectrum],
    activations: Sequence[Activation],
    units: Sequence[Units],
    cosines: Sequence[Cosine],
) -> list[str]:
    """One sentence per finding, the most important first."""
    several = len(spectra) > 1
    return [
        _flow(lags[0]),
        _memory(lags[0]),
        *_saturated(activations, several),
        *_dead(units, several),
        *_rules(cosines),
    ]


def place(layer: int, several: bool) -> str:
    """The layer, if there are several."""
    return f" of layer {layer + 1}" if several else ""


def _flow(whole: Lags) -> str:
    back = len(whole.median) - 1
    if whole.flow == "none":
        return "No gradient: the loss of a step does not depend on any state after that step."
    if whole.flow == "exploding":
        times = max(whole.median) / whole.median[0]
        return f"The gradient explodes: within {_steps(back)} back its norm grows to {times:.3g} times that at lag 0."
    if whole.flow == "vanishing":
        return f"The gradient vanishes: {_steps(whole.until(VANISHED) or 0)} back less than 1 % of it is left."
    share = whole.median[-1] / whole.median[0]
    return f"The gradient neither vanishes nor explodes: {_steps(back)} back, at the end, {share:.0%} of it is left."


def _memory(whole: Lags) -> str:
    if whole.memory is None:
        return f"Effective memory: more than {_steps(len(whole.median) - 1)}, the longest lag computed."
    return f"Effective memory: {_steps(whole.memory)} back less than 1/e of the gradient is left."


def _saturated(activations: Sequence[Activation], several: bool) -> Iterator[str]:
    found = [a for a in activations if a.saturated]
    if not found:
        yield "No gate is saturated for more than half of its values."
    for a in found:
        least, most = ("0.05", "0.95") if a.kind == "sigmoid" else ("-0.9", "0.9")
        shares = f"{a.low:.0%} of its values are below {least} and {a.high:.0%} above {most}"
        yield f"Saturated: {a.label}{place(a.layer, several)}; {shares}."


def _dead(units: Sequence[Units], several: bool) -> Iterator[str]:
    if not any(u.dead for u in units):
        yield "No unit is dead."
    for u in units:
        for indices, why in ((u.still, "hardly move"), (u.no_gradient, "get no gradient")):
            if indices:
                named = ", ".join(map(str, indices[:MAX_UNITS])) + (", ..." if len(indices) > MAX_UNITS else "")
                count = f"{len(indices)} of {len(u.deviations)} units of {u.label}{place(u.layer, several)}"
                yield f"Dead: {count} {why} ({named})."


def _rules(cosines: Sequence[Cosine]) -> Iterator[str]:
    shown = [f"{c.rule} {c.cosine:.3f}" for c in cosines if c.cosine is not None]
    if shown:
        yield f"Cosine with the exact gradient: {', '.join(shown)}."


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
