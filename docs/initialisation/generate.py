"""Measure and draw the figures of docs/initialisation.md.

    python docs/initialisation/generate.py --measure             # or: make initialisation; 10 minutes on one core
    python docs/initialisation/generate.py --measure memory      # one of the two
    python docs/initialisation/generate.py                       # draw from the stored figures

`adding.json` and `memory.json` hold the measurements and their settings. The drawings, and the tables between the marks
of the page, are made from them alone.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

import tidegate as tg
from tidegate.equations import Cell, cell, linear, sigmoid, tanh
from tidegate.report.canvas import COLOURS, DASHES, draw, key, standalone, words

HERE = Path(__file__).parent
Figures = dict[str, Any]

# The adding problem

BASELINE = 1 / 6  # the mean square error of a constant output of 1
SOLVED = 0.01
ADDING: Figures = {
    "steps": 200,
    "hidden_size": 64,
    "batch": 20,
    "updates": 5000,
    "each": 50,
    "learning_rate": 2e-3,
    "clip": 1.0,
    "seeds": [1, 2, 3],
}
LOOKS: dict[str, tuple[tg.init.Init, str]] = {
    "forget bias 0": (tg.init.ForgetBias(0.0), "grey"),
    "forget bias 1": (tg.init.ForgetBias(1.0), "vermillion"),
    "forget bias 2": (tg.init.ForgetBias(2.0), "green"),
    "chrono": (tg.init.Chrono(ADDING["steps"]), "blue"),
}


def examples(steps: int, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch `[T, B, 2]` of values from [0, 1), two of them marked, one in each half; and the sum of these two."""
    x = torch.zeros(steps, batch, 2)
    x[..., 0] = torch.rand(steps, batch, generator=random)
    half, rows = steps // 2, torch.arange(batch)
    for start, width in ((0, half), (half, steps - half)):
        x[start + torch.randint(width, (batch,), generator=random), rows, 1] = 1.0
    return x, (x[..., 0] * x[..., 1]).sum(0)


def adding_run(init: tg.init.Init, seed: int, how: Figures) -> list[float]:
    """The loss against updates, each point the mean over `each` updates on new data."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    layer, head = tg.Recurrent("lstm", 2, how["hidden_size"], init=init), torch.nn.Linear(how["hidden_size"], 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=how["learning_rate"])
    losses = []
    for _ in range(how["updates"]):
        x, wanted = examples(how["steps"], how["batch"], random)
        y, _ = layer(x)
        loss = (head(y[-1]).squeeze(-1) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        tg.nn.clip_norm_(parameters, how["clip"])
        optimiser.step()
        losses.append(loss.item())
    return [_short(sum(part) / len(part)) for part in _parts(losses, how["each"])]


def measure_adding(how: Figures) -> Figures:
    """The curves of every initialisation and seed."""
    found: Figures = {"how": how, "baseline": BASELINE, "curves": {}, "seconds": 0}
    for name, (init, _) in LOOKS.items():
        found["curves"][name] = []
        for seed in how["seeds"]:
            begun = time.process_time()
            found["curves"][name].append(adding_run(init, seed, how))
            took = time.process_time() - begun
            found["seconds"] = round(found["seconds"] + took)
            sys.stderr.write(f"{name}, seed {seed}: {took:.0f} s\n")
    return found


def draw_adding(found: Figures) -> str:
    """The loss against updates: a thin line per seed and a thick one for their median."""
    each, curves = found["how"]["each"], found["curves"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for name, runs in curves.items():
            updates = [each * (k + 1) for k in range(len(runs[0]))]
            colour = COLOURS[LOOKS[name][1]]
            for run in runs:
                axes.plot(updates, run, color=colour, lw=0.7, alpha=0.45)
            axes.plot(updates, [_median(column) for column in zip(*runs, strict=True)], color=colour, lw=2.0)
        axes.axhline(found["baseline"], color=COLOURS["soft"], ls=DASHES[2], lw=1.0)
        axes.set_yscale("log")
        words(axes, x="updates", y="mean square error")
        lines = [(Line2D([], [], color=COLOURS[LOOKS[name][1]], lw=2.0), name) for name in curves]
        key(figure, [*lines, (Line2D([], [], color=COLOURS["soft"], ls=DASHES[2], lw=1.0), "always 1")])

    ends = ", ".join(f"{name} {_median([run[-1] for run in runs]):.2g}" for name, runs in curves.items())
    title = f"The adding problem over {found['how']['steps']} steps"
    alt = f"Mean square error against updates; the median of the seeds ends at: {ends}"
    return standalone(draw(3.8, paint, title=title, alt=alt))


def adding_table(found: Figures) -> list[list[str]]:
    """The median loss after a quarter, half and all of the updates, and when each seed fell below 0.01."""
    each, count = found["how"]["each"], len(found["how"]["seeds"])
    ends = [found["how"]["updates"] // k for k in (4, 2, 1)]
    rows = [["start", *(f"after {n} updates" for n in ends), "below 0.01 after"]]
    for name, runs in found["curves"].items():
        medians = [_two_digits(_median(run[n // each - 1] for run in runs)) for n in ends]
        solved = sorted(each * (1 + k) for run in runs for k in [_first_below(run, SOLVED)] if k is not None)
        never = [f"never ({count - len(solved)} of {count} seeds)"] if len(solved) < count else []
        rows.append([name, *medians, ", ".join([*map(str, solved), *never])])
    return rows


def _first_below(run: list[float], limit: float) -> int | None:
    return next((k for k, loss in enumerate(run) if loss < limit), None)


# What the forget gate does

MEMORY: Figures = {"steps": 10_000, "from": 100, "points": 25, "hidden_size": 64, "inputs": 8, "batch": 16}
MEMORY |= {"seeds": [1, 2, 3]}


@cell(states="h c", source="the LSTM of Gers et al. 2000 with its forget gate taken away")
def lstm_without_forget_gate(x, h, c):
    """The LSTM of 1997 with the squashing of 2000."""
    i = sigmoid(linear("i", x, h))  # input gate
    g = tanh(linear("g", x, h))  # candidate
    o = sigmoid(linear("o", x, h))  # output gate
    c = c + i * g  # cell
    h = o * tanh(c)  # output
    return h, c


CELLS: dict[str, tuple[Cell | str, float, str]] = {  # the cell; s where tanh(s c) is what squashes c; the colour
    "LSTM": ("lstm", 1.0, "blue"),
    "LSTM without its forget gate": (lstm_without_forget_gate, 1.0, "green"),
    "LSTM of 1997": ("lstm_1997", 0.5, "vermillion"),
}


@torch.no_grad()
def memory_run(made: Cell | str, steep: float, seed: int, how: Figures) -> list[tuple[int, float, float]]:
    """At steps evenly spaced on a logarithmic scale: the mean of |c|, and of the derivative of its squashing."""
    torch.manual_seed(seed)
    layer, state, done, found = tg.Recurrent(made, how["inputs"], how["hidden_size"]), None, 0, []
    ratio = (how["steps"] / how["from"]) ** (1 / (how["points"] - 1))
    for k in range(how["points"]):
        step = round(how["from"] * ratio**k)
        _, state = layer(torch.randn(step - done, how["batch"], how["inputs"]), state)
        done, c = step, state["c"]
        derivative = 1.0 / torch.cosh(steep * c.double()).square()
        found.append((step, _short(c.abs().mean().item()), _short(derivative.mean().item())))
    return found


def measure_memory(how: Figures) -> Figures:
    """`memory_run` of every cell and seed: steps, and by cell the sizes and derivatives of each seed."""
    found: Figures = {"how": how, "steps": [], "size": {}, "derivative": {}}
    for name, (made, steep, _) in CELLS.items():
        runs = [list(zip(*memory_run(made, steep, seed, how), strict=True)) for seed in how["seeds"]]
        found["steps"] = list(runs[0][0])
        found["size"][name] = [list(run[1]) for run in runs]
        found["derivative"][name] = [list(run[2]) for run in runs]
    return found


def draw_memory(found: Figures) -> str:
    """Size and derivative against steps, on logarithmic axes, a line per seed."""
    panels = (("size", "mean of |c|"), ("derivative", "mean derivative at c, 1 at 0"))

    def paint(figure: Figure) -> None:
        for axes, (what, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for name, runs in found[what].items():
                for run in runs:
                    axes.plot(found["steps"], run, color=COLOURS[CELLS[name][2]])
            axes.set_xscale("log")
            axes.set_yscale("log")
            words(axes, x="steps", y=label)
        key(figure, [(Line2D([], [], color=COLOURS[colour]), name) for name, (_, _, colour) in CELLS.items()])

    ends = ", ".join(f"{name} {_median([run[-1] for run in runs]):.2g}" for name, runs in found["size"].items())
    title = "The cell state with and without a forget gate"
    alt = f"Mean of |c| and of the derivative of its squashing against steps; |c| ends at: {ends}"
    return standalone(draw(3.4, paint, title=title, alt=alt))


def memory_table(found: Figures) -> list[list[str]]:
    """The median of size and derivative at the first step, in the middle and at the last."""
    steps = found["steps"]
    picked = [0, len(steps) // 2, len(steps) - 1]
    rows = [["cell", *(f"{what} at {steps[k]}" for what in ("size of c", "derivative") for k in picked)]]
    for name in found["size"]:
        runs = [(found[what][name], k) for what in ("size", "derivative") for k in picked]
        rows.append([name, *(_two_digits(_median(run[k] for run in of)) for of, k in runs)])
    return rows


# Files

MEASURES = {"adding": (measure_adding, ADDING), "memory": (measure_memory, MEMORY)}
DRAWINGS = {"adding": draw_adding, "memory": draw_memory}
TABLES = {"adding": adding_table, "memory": memory_table}
PAGE = HERE.with_suffix(".md")


def files() -> dict[Path, str]:
    """The text of every drawing, and of the page with its tables, from the stored figures."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        page = _between_marks(page, name, _markdown(table(_read(name))))
    return {HERE / f"{name}.svg": paint(_read(name)) for name, paint in DRAWINGS.items()} | {PAGE: page}


def _between_marks(page: str, name: str, text: str) -> str:
    marks = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
    return marks.sub(lambda _: text, page)


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return "".join([lines[0], "|---" * len(rows[0]) + "|\n", *lines[1:]])


def _read(name: str) -> Figures:
    return dict(json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")))


def _measure(names: Iterable[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        measure, how = MEASURES[name]
        text = json.dumps(measure(how), separators=(",", ":"))
        (HERE / f"{name}.json").write_text(text.replace("],", "],\n") + "\n", encoding="utf-8")


def _parts(values: list[float], size: int) -> Iterable[list[float]]:
    return (values[k : k + size] for k in range(0, len(values), size))


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):g}"


def _short(number: float) -> float:
    return float(f"{number:.4g}") if math.isfinite(number) else number


def main() -> None:
    """Measure if asked to, and draw."""
    if "--measure" in sys.argv[1:]:
        _measure(sys.argv[2:] or MEASURES)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
