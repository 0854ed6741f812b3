"""The page of a diagnosis: from plain data, as in `diagnosis.json`, to one HTML page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tidegate.report.gradients import agreement, by_rank, eigenvalues, gradient_norms
from tidegate.report.page import page
from tidegate.report.parts import Part, Tone, banner, columns, details, figure, key_figures, section, table, text
from tidegate.report.units import Spread, per_unit, saturation

Data = Mapping[str, Any]
_TONES: dict[str, Tone] = {"steady": "good", "vanishing": "mixed", "exploding": "bad", "none": "bad"}


def diagnosis_page(data: Data, *, title: str, subtitle: str = "", footer: str = "") -> str:
    """The page of a diagnosis, from what `tidegate.gradients.Diagnosis.to_json` gives."""
    whole, sentences = data["lags"][0], data["sentences"]
    parts = [
        banner(sentences[0], tone=_TONES[whole["flow"]], more=sentences[1]),
        text(*sentences[2:]),
        _figures(data),
        _lags(data),
        *(_step(data, spectrum) for spectrum in data["spectra"]),
        *_gates(data),
        *_memories(data),
        _units(data),
        *_rules(data),
    ]
    return page(title, parts, subtitle=subtitle, footer=footer)


def _figures(data: Data) -> Part:
    whole = data["lags"][0]
    reach = len(whole["median"]) - 1
    dead = sum(len({*u["still"], *u["no_gradient"]}) for u in data["units"])
    growth = "–" if whole["growth"] is None else f"{whole['growth']:.3g}"
    return key_figures(
        [
            (_steps(whole["memory"], reach), "effective memory", "steps until 1/e of the gradient is left"),
            (_steps(whole["memory_percent"], reach), "until 1 % is left", f"of {reach} steps looked back"),
            (growth, "factor a step", "by which the gradient changes"),
            (str(dead), "dead units", f"of {sum(len(u['deviations']) for u in data['units'])}"),
        ]
    )


def _steps(count: int | None, reach: int) -> str:
    return f"> {reach}" if count is None else str(count)


def _lags(data: Data) -> Part:
    curves = {_of(data, lags["layer"], lags["label"]): _three(lags) for lags in data["lags"]}
    first = data["lags"][0]["median"][0]
    picture = gradient_norms(curves, levels={"1/e": first / math.e, "1 %": first / 100} if first else None)
    said = (
        f"What was differentiated is {data['loss']}, looked back from {data['origins']} places in "
        f"{data['rows']} x {data['steps']} steps (rows x time). A straight line that falls is a gradient that "
        "vanishes, one that rises a gradient that explodes."
    )
    caption = "The norm of the gradient in a state so many steps back: the median, and the band of eight in ten."
    return section("The gradient through time", text(said), figure(picture, caption))


def _step(data: Data, spectrum: Data) -> Part:
    plane = eigenvalues(spectrum["eigenvalues"])
    ranks = by_rank(
        {"singular values": _three(spectrum["singular_values"]), "moduli of eigenvalues": _three(spectrum["moduli"])}
    )
    median, least, most = spectrum["radius"]
    growth = spectrum["growth"]
    along = "dies out altogether"
    if growth is not None:
        along = f"is multiplied by {math.exp(growth):.4g} a step (mean logarithm {growth:+.4f})"
    said = (
        f"The Jacobian of a step in the states {', '.join(spectrum['states'])}, at {spectrum['samples']} places of the "
        f"data. Its spectral radius is {median:.4g} (from {least:.4g} to {most:.4g}). Along the data a small "
        f"change of the state {along}."
    )
    return section(
        f"One step{_layer(data, spectrum['layer'])}: {data['cells'][spectrum['layer']]}",
        text(said),
        columns(
            figure(plane, "Eigenvalues; what lies within the circle dies out."),
            figure(ranks, "Sorted, with the range over the samples; 1 keeps a change as large as it is."),
        ),
    )


def _gates(data: Data) -> Iterator[Part]:
    for layer in range(len(data["cells"])):
        found = [a for a in data["activations"] if a["layer"] == layer]
        if found:
            picture = saturation(
                {_named(a): Spread(a["ends"], a["counts"], a["unit_low"], a["unit_high"]) for a in found}
            )
            caption = (
                "Values over the data. In colour is what lies below 0.05 or above 0.95 of a sigmoid, or below -0.9 or "
                "above 0.9 of a tanh: there little gradient comes through. On the right, the same for each unit."
            )
            yield section(f"Saturation{_layer(data, layer)}", figure(picture, caption))


def _named(activation: Data) -> str:
    roles = [f"keeps {s}" for s in activation["keeps"]] + [f"lets into {s}" for s in activation["enters"]]
    return activation["label"] + (f" ({', '.join(roles)})" if roles else "")


def _memories(data: Data) -> Iterator[Part]:
    keeping = {
        _of(data, a["layer"], a["label"]): a["time_constants"] for a in data["activations"] if a["time_constants"]
    }
    if keeping:
        caption = (
            "In how many steps a unit's gate alone lets its state fall to 1/e: -1 / log of what is kept a step, by the "
            "geometric mean over the data."
        )
        yield section("How long the gates keep", figure(per_unit(keeping, label="steps"), caption))


def _units(data: Data) -> Part:
    names = {_of(data, u["layer"], u["label"]): u for u in data["units"]}
    dead = {name: sorted({*u["still"], *u["no_gradient"]}) for name, u in names.items()}
    picture = per_unit({name: u["deviations"] for name, u in names.items()}, label="deviation", marked=dead)
    rows = [[name, len(u["deviations"]), _listed(u["still"]), _listed(u["no_gradient"])] for name, u in names.items()]
    return section(
        "How the units move",
        figure(picture, "The standard deviation of each unit's state over the data; dead units are in another colour."),
        table(["state", "units", "hardly move", "get no gradient"], rows),
    )


def _listed(units: Sequence[int]) -> str | None:
    return ", ".join(map(str, units)) or None


def _rules(data: Data) -> Iterator[Part]:
    found = data["cosines"]
    if found:
        names = list(found[0]["by_parameter"])
        single = {name: [c["by_parameter"][name] for c in found] for name in names}
        picture = agreement([c["rule"] for c in found], [c["cosine"] for c in found], single)
        rows = [["all", *(_number(c["cosine"]) for c in found)], ["length", *(_number(c["ratio"]) for c in found)]]
        rows += [[name, *map(_number, single[name])] for name in names]
        yield section(
            "Rules beside the exact gradient",
            figure(picture, "At 1 a rule's gradient over the whole sequence points where the exact one does."),
            details("The numbers", table(["parameter", *(c["rule"] for c in found)], rows, strong=[0])),
        )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _three(curve: Data) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    return curve["median"], curve["low"], curve["high"]


def _of(data: Data, layer: int | None, name: str) -> str:
    return name if layer is None or len(data["cells"]) == 1 else f"layer {layer + 1}: {name}"


def _layer(data: Data, layer: int) -> str:
    return f" of layer {layer + 1}" if len(data["cells"]) > 1 else ""
