"""Measure and draw the figures of docs/diagnose.md.

    python docs/diagnose/generate.py --measure       # or: make diagnose; seconds
    python docs/diagnose/generate.py                 # draw from the stored figures

`nets.json` holds the measurements and their settings. The drawings and the table between the marks of the page are
made from it alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import tidegate as tg
from tidegate.report import gradient_norms
from tidegate.report.canvas import COLOURS, draw, standalone, words

HERE = Path(__file__).parent
PAGE = HERE.with_suffix(".md")
Figures = dict[str, Any]
HOW: Figures = {"steps": 100, "rows": 16, "input_size": 4, "hidden_size": 48, "seed": 1}
DRAWINGS = ("lags", "eigenvalues")
SHARE = 1e-6  # of the norm at lag 0: smaller norms are not drawn


def recurrent(gain: float) -> Callable[[], tg.Recurrent]:
    """An Elman network with a normal recurrent matrix of spectral radius near `gain`, and weak inputs."""

    def make() -> tg.Recurrent:
        layer = tg.Recurrent("elman", HOW["input_size"], HOW["hidden_size"])
        with torch.no_grad():
            layer.get_parameter("l0.h.h").normal_(std=gain / HOW["hidden_size"] ** 0.5)
            layer.get_parameter("l0.h.x").mul_(0.1)
        return layer

    return make


def lstm(init: tg.init.Init) -> Callable[[], tg.Recurrent]:
    """An LSTM with this initialisation."""
    return lambda: tg.Recurrent("lstm", HOW["input_size"], HOW["hidden_size"], init=init)


NETS: dict[str, Callable[[], tg.Recurrent]] = {
    "Elman, gain 0.7": recurrent(0.7),
    "Elman, gain 2.5": recurrent(2.5),
    "LSTM, forget bias 1": lstm(tg.init.ForgetBias(1.0)),
    "LSTM, chrono": lstm(tg.init.Chrono(HOW["steps"])),
}


def measure() -> Figures:
    """The diagnosis of each untrained network, on noise."""
    found = {}
    for name, make in NETS.items():
        torch.manual_seed(HOW["seed"])
        layer = make()
        diagnosis = tg.diagnose(layer, torch.randn(HOW["steps"], HOW["rows"], HOW["input_size"]), rules=[])
        whole = diagnosis.to_json()
        lags, (spectrum,) = whole["lags"][0], whole["spectra"]
        two = 2 * len(spectrum["moduli"]["median"])
        kept = {key: [float(f"{v:.4g}") for v in lags[key]] for key in ("median", "low", "high")}
        found[name] = {
            "lags": kept | {key: lags[key] for key in ("memory", "memory_percent", "flow", "growth")},
            "eigenvalues": [[round(part, 4) for part in z] for z in spectrum["eigenvalues"][-two:]],
            "radius": spectrum["radius"][0],
            "growth": spectrum["growth"],
        }
    return {"how": HOW, "nets": found}


def draw_lags(figures: Figures) -> str:
    """Norms by lag, relative to lag 0."""
    curves = {name: _shares(net["lags"]) for name, net in figures["nets"].items()}
    title = "The gradient by lag, relative to lag 0"
    return standalone(gradient_norms(curves, label="norm relative to lag 0", levels={"1/e": 0.3679}, title=title))


def _shares(lags: Figures) -> tuple[list[float], list[float], list[float]]:
    first = lags["median"][0]
    median, low, high = ([v / first if v > SHARE * first else 0.0 for v in lags[k]] for k in ("median", "low", "high"))
    return median, low, high


def draw_eigenvalues(figures: Figures) -> str:
    """The eigenvalues of each network's step, side by side."""

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, len(figures["nets"]), sharex=True, sharey=True)
        for axes, (name, net) in zip(grid, figures["nets"].items(), strict=True):
            turn = torch.linspace(0, 2 * torch.pi, 121, dtype=torch.float64)
            axes.plot(turn.cos().numpy(), turn.sin().numpy(), color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
            real, imaginary = zip(*net["eigenvalues"], strict=True)
            axes.scatter(real, imaginary, s=5, color=COLOURS["blue"], alpha=0.45, lw=0)
            axes.set_aspect("equal")
            words(axes, title=name)

    alt = "; ".join(f"{name}: spectral radius {net['radius']:.2f}" for name, net in figures["nets"].items())
    return standalone(draw(2.6, paint, title="Eigenvalues of the Jacobian of a step, with the unit circle", alt=alt))


def table(figures: Figures) -> list[str]:
    """The rows of the page's table."""
    rows = ["| network | 1/e left until | 1 % left until | spectral radius | growth along the data |", "|---" * 5 + "|"]
    for name, net in figures["nets"].items():
        lags = net["lags"]
        ends = [f"lag {lags[key]}" if lags[key] else "never" for key in ("memory", "memory_percent")]
        rows.append(f"| {name} | {' | '.join(ends)} | {net['radius']:.2f} | {net['growth']:+.3f} a step |")
    return rows


def files() -> dict[Path, str]:
    """Every file made from the figures, with its text."""
    figures = json.loads((HERE / "nets.json").read_text("utf-8"))
    marks = "<!-- nets -->\n", "<!-- end -->"
    body = "\n".join(table(figures)) + "\n"
    page = re.sub(f"(?<={marks[0]}).*?(?={marks[1]})", lambda _: body, PAGE.read_text("utf-8"), flags=re.DOTALL)
    return {
        HERE / "lags.svg": draw_lags(figures),
        HERE / "eigenvalues.svg": draw_eigenvalues(figures),
        PAGE: page,
    }


def main() -> None:
    """Measure if asked to, and write everything."""
    if "--measure" in sys.argv[1:]:
        (HERE / "nets.json").write_text(json.dumps(measure()) + "\n", "utf-8")
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
