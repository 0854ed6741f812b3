"""Measure and draw the figure of docs/online.md.

    python docs/online/generate.py --measure     # a minute on one core
    python docs/online/generate.py               # draw from the stored figures

`drift.json` holds the measurements and their settings; `drift.svg` is made from it alone.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import tidegate as tg
from tidegate.report.canvas import COLOURS, DASHES, draw, key, standalone, words

HERE = Path(__file__).parent
Figures = dict[str, Any]
HOW: Figures = {"steps": 8000, "drift": 4000, "each": 100, "learning_rate": 0.001, "seed": 0}


def stream(how: Figures) -> Iterator[tuple[dict[str, float], float]]:
    """A noisy sine; the target is the sine three steps ahead, and from the drift on three steps behind."""
    noise = random.Random(how["seed"])
    for t in range(how["steps"]):
        ahead = 3 if t < how["drift"] else -3
        yield {"signal": math.sin(t / 5) + noise.gauss(0, 0.1)}, 10 * math.sin((t + ahead) / 5) + noise.gauss(0, 0.5)


def measure(how: Figures) -> Figures:
    """Mean errors of `each` steps: the learner, one that stops learning at the drift, the last value."""
    learner, stopped = (tg.OnlineLearner(learning_rate=how["learning_rate"], seed=how["seed"]) for _ in range(2))
    errors: dict[str, list[float]] = {"learner": [], "stopped": [], "naive": []}
    alarms, last = [], 0.0
    for t, (x, y) in enumerate(stream(how)):
        errors["learner"].append(abs(learner.predict_one(x) - y))
        errors["stopped"].append(abs(stopped.predict_one(x) - y))
        errors["naive"].append(abs(last - y))
        alarms += [t] if learner.learn_one(x, y).drift else []
        stopped.learn_one(x, y if t < how["drift"] else None)
        last = y
    return {"how": how, "alarms": alarms, **{name: means(found, how["each"]) for name, found in errors.items()}}


def means(values: list[float], each: int) -> list[float]:
    """Means of `each` consecutive values."""
    return [round(sum(values[k : k + each]) / each, 4) for k in range(0, len(values), each)]


LINES = {
    "learner": ("OnlineLearner", "blue", "-"),
    "stopped": ("stops learning at the drift", "vermillion", DASHES[1]),
    "naive": ("the last value", "grey", DASHES[2]),
}


def paint(found: Figures) -> str:
    """Errors against steps, the drift, and the alarms."""
    how = found["how"]
    steps = [how["each"] * (k + 1) for k in range(len(found["learner"]))]

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for name, (_, colour, dashes) in LINES.items():
            axes.plot(steps, found[name], color=COLOURS[colour], ls=dashes, lw=1.8 if name == "learner" else 1.2)
        axes.axvline(how["drift"], color=COLOURS["soft"], lw=1.0)
        for alarm in found["alarms"]:
            axes.plot([alarm], [0.0], marker="^", ms=8, color=COLOURS["purple"], clip_on=False, ls="")
        axes.set_ylim(bottom=0.0)
        words(axes, x="steps", y="mean absolute error")
        entries = [(Line2D([], [], color=COLOURS[c], ls=d), text) for text, c, d in LINES.values()]
        key(figure, [*entries, (Line2D([], [], color=COLOURS["purple"], marker="^", ls=""), "alarm")])

    border = how["drift"] // how["each"]
    before, after = found["learner"][:border], found["learner"][border:]
    alarms = ", ".join(map(str, found["alarms"])) or "none"
    alt = (
        f"The error of the learner falls to {before[-1]:.2g} before the drift at step {how['drift']}, rises to "
        f"{max(after):.2g} and falls again to {after[-1]:.2g}; alarms at: {alarms}"
    )
    return standalone(draw(3.4, fill, title="A stream whose rule changes", alt=alt))


def read() -> Figures:
    """The stored figures."""
    return dict(json.loads((HERE / "drift.json").read_text(encoding="utf-8")))


def main() -> None:
    """Measure if asked to, and draw."""
    if "--measure" in sys.argv[1:]:
        text = json.dumps(measure(HOW), separators=(",", ":")).replace("],", "],\n")
        (HERE / "drift.json").write_text(text + "\n", encoding="utf-8")
    (HERE / "drift.svg").write_text(paint(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
