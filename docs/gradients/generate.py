"""Measure and draw the figures of docs/gradients.md.

    python docs/gradients/generate.py --measure      # or: make gradients; a minute
    python docs/gradients/generate.py                # draw from the stored figures

`rules.json` holds the measurements and their settings. The drawings and the table between the marks of the page are
made from it alone.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

import tidegate as tg
from tidegate.equations import Cell, cell, linear, tanh
from tidegate.gradients import KFRTRL, RTRL, UORO, EProp, Forward, Rule, SnAp, gradient, online, rule_from_text
from tidegate.report.canvas import COLOURS, draw, standalone, words

HERE = Path(__file__).parent
PAGE = HERE.with_suffix(".md")
Figures = dict[str, Any]
HOW: Figures = {
    "hidden_size": 24,
    "lags": [3, 10],
    "steps": 60,
    "rows": 8,
    "updates": 300,
    "learning_rate": 0.01,
    "batches": 15,
    "seed": 1,
}
NETS = ("elman", "lstm")
RULES = ("rtrl", "snap:1", "eprop", "uoro", "kfrtrl", "truncated:1,2", "truncated:1,5", "truncated:1,20")
UNITS, INPUTS, TAKEN = 6, 2, 5  # of the drawn influence: sizes of the network, and steps
FAINT = 0.03  # of the largest entry: smaller ones are not drawn
DRAWINGS = ("influence", "cosines")


@cell(states="h", source="two Elman nets side by side")
def halves(x: Any, h: Any) -> Any:
    """Units of one half do not read units of the other."""
    return tanh(linear("h", x, h, blocks={"h": 2}))


PANELS: dict[str, tuple[str | Cell, Forward]] = {
    "RTRL: everything": ("elman", RTRL()),
    "UORO: one outer product": ("elman", UORO()),
    "SnAp(n=1): each weight in its own unit": ("elman", SnAp()),
    "KFRTRL: one Kronecker product": ("elman", KFRTRL()),
    "SnAp(n=2), recurrent matrix of two blocks": (halves, SnAp(n=2)),
    "EProp: without the recurrent matrix": ("elman", EProp()),
}


def influence(of: str | Cell, rule: Forward) -> Tensor:
    """The influence of recurrent weights on units that a rule keeps after some steps, `[units, weights]`."""
    torch.manual_seed(HOW["seed"])
    layer = tg.Recurrent(of, INPUTS, UNITS)
    stream = online(layer, rule)
    memory = stream.begin(1)
    for x in torch.randn(TAKEN, 1, INPUTS):
        _, memory = stream.step(memory, x)
    kept = {
        name.rpartition(".")[2]: t[0]
        for name, t in memory.tensors().items()
        if name.startswith("influence.0.") and t.dim()
    }
    recurrent = slice(INPUTS, -1)
    if isinstance(rule, UORO):
        outer = memory.tensors()["influence.0.weights.0"][0, 0, :, recurrent]
        return torch.outer(kept["states"], outer.flatten())
    if isinstance(rule, KFRTRL):
        return torch.einsum("dr,v->drv", kept["matrix"], kept["read"][recurrent]).flatten(1)
    (found,) = kept.values()
    if found.dim() == 3:
        return torch.einsum("de,ev->dev", torch.eye(UNITS), found[0][:, recurrent]).flatten(1)
    return found.unflatten(1, (UNITS, -1))[..., recurrent].flatten(1)


def sequences() -> tuple[Tensor, Tensor]:
    """Noise, and the sum of two of its channels, each delayed by some steps."""
    x = torch.randn(HOW["steps"], HOW["rows"], 2)
    first, second = (torch.cat([torch.zeros(lag, HOW["rows"]), x[:-lag, :, k]]) for k, lag in enumerate(HOW["lags"]))
    return x, (first + second).unsqueeze(-1)


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Squared errors, summed."""
    return ((outputs - target) ** 2).sum()


def trained(name: str) -> tuple[tg.Recurrent, nn.Linear, float]:
    """A network after some training, its readout, and its error on new data relative to an output of 0."""
    torch.manual_seed(HOW["seed"])
    layer, readout = tg.Recurrent(name, 2, HOW["hidden_size"]), nn.Linear(HOW["hidden_size"], 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=HOW["learning_rate"])
    for _ in range(HOW["updates"]):
        x, target = sequences()
        optimizer.zero_grad()
        (loss(readout(layer(x)[0]), target) / target.numel()).backward()
        optimizer.step()
    x, target = sequences()
    with torch.no_grad():
        share = loss(readout(layer(x)[0]), target) / target.square().sum()
    return layer, readout, float(share)


def cosines(layer: tg.Recurrent, readout: nn.Linear) -> dict[str, list[float]]:
    """The cosine between each rule's gradient of the layer's weights and the exact one, on fresh batches."""
    found: dict[str, list[float]] = {rule: [] for rule in RULES}
    for _ in range(HOW["batches"]):
        x, target = sequences()
        exact = flat(layer, readout, x, target, None)
        for rule, values in found.items():
            ours = flat(layer, readout, x, target, rule_from_text(rule))
            values.append(round(float(torch.cosine_similarity(ours, exact, dim=0)), 4))
    return found


def flat(layer: tg.Recurrent, readout: nn.Linear, x: Tensor, target: Tensor, rule: Rule | None) -> Tensor:
    """The gradient of all of the layer's weights."""
    found = gradient(layer, x, target, loss, rule=rule, readout=readout)
    return torch.cat([g.flatten() for name, g in found.items() if not name.startswith("readout.")])


def measure() -> Figures:
    """The influence as each rule keeps it, and the cosines of trained networks."""
    kept = {title: [[round(float(v), 4) for v in row] for row in influence(*p)] for title, p in PANELS.items()}
    nets = {}
    for name in NETS:
        layer, readout, error = trained(name)
        nets[name] = {"error": round(error, 3), "cosines": cosines(layer, readout)}
    return {"how": HOW, "influence": kept, "nets": nets}


def draw_influence(figures: Figures) -> str:
    """The matrices of all panels."""

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(figures["influence"]) // 2, 2)
        for axes, (title, rows) in zip(grid.flat, figures["influence"].items(), strict=True):
            matrix(axes, rows)
            words(axes, title=title, x="recurrent weights, unit by unit", y="units")

    return standalone(
        draw(
            4.6,
            paint,
            title="What rules keep of the influence of weights on units",
            alt="; ".join(figures["influence"]),
        )
    )


def matrix(axes: Axes, rows: list[list[float]]) -> None:
    """Entries as squares: blue above zero, red below, stronger if larger."""
    largest = max(abs(v) for row in rows for v in row)
    squares, colours = [], []
    for k, row in enumerate(rows):
        for j, value in enumerate(row):
            if abs(value) > FAINT * largest:
                squares.append(Rectangle((j, k), 1, 1))
                colour = COLOURS["blue" if value > 0 else "vermillion"]
                colours.append(to_rgba(colour, round(0.15 + 0.85 * abs(value) / largest, 1)))
    axes.add_collection(PatchCollection(squares, facecolors=colours, linewidths=0))
    axes.set(
        xlim=(0, len(rows[0])), ylim=(len(rows), 0), xticks=range(0, len(rows[0]) + 1, len(rows[0]) // 6), yticks=[]
    )
    axes.set_xticklabels([])


def draw_cosines(figures: Figures) -> str:
    """The cosines of each rule, a dot per batch, and their median."""

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, len(figures["nets"]), sharey=True)
        for axes, (name, net) in zip(grid, figures["nets"].items(), strict=True):
            for place, values in enumerate(net["cosines"].values()):
                axes.scatter(values, [place] * len(values), s=12, color=COLOURS["blue"], alpha=0.4, lw=0)
                axes.plot([median(values)] * 2, [place - 0.3, place + 0.3], color=COLOURS["vermillion"], lw=2)
            axes.axvline(0.0, color=COLOURS["soft"], lw=0.7)
            axes.set(yticks=range(len(RULES)), yticklabels=RULES, ylim=(len(RULES) - 0.5, -0.5))
            words(axes, title=name, x="cosine with the exact gradient")

    alt = "; ".join(
        f"{name}: " + ", ".join(f"{rule} {median(v):.2f}" for rule, v in net["cosines"].items())
        for name, net in figures["nets"].items()
    )
    return standalone(draw(3.0, paint, title="The gradient of each rule compared with the exact one", alt=alt))


def table(figures: Figures) -> list[str]:
    """The rows of the page's table."""
    nets = figures["nets"]
    rows = [f"| rule | {' | '.join(nets)} |", "|---" * (1 + len(nets)) + "|"]
    for rule in RULES:
        found = [net["cosines"][rule] for net in nets.values()]
        rows.append(
            f"| `{rule}` | " + " | ".join(f"{median(v):z.2f} ({min(v):z.2f} to {max(v):z.2f})" for v in found) + " |"
        )
    return rows


def files() -> dict[Path, str]:
    """Every file made from the figures, with its text."""
    figures = json.loads((HERE / "rules.json").read_text("utf-8"))
    body = "\n".join(table(figures)) + "\n"
    marks = re.compile(r"(<!-- cosines -->\n).*?(<!-- end -->)", re.DOTALL)
    page = marks.sub(lambda found: found[1] + body + found[2], PAGE.read_text("utf-8"))
    return {HERE / "influence.svg": draw_influence(figures), HERE / "cosines.svg": draw_cosines(figures), PAGE: page}


def main() -> None:
    """Measure if asked to, and write everything."""
    if "--measure" in sys.argv[1:]:
        (HERE / "rules.json").write_text(json.dumps(measure()) + "\n", "utf-8")
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
