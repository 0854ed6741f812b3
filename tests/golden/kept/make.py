"""Write what a release keeps besides layers: a forecaster, online learners, snapshots and a state, with what they give.

`python tests/golden/kept/make.py` writes a folder named after the version; files that exist are never touched: a
release adds its folder, and each later version has to load it. `tests/test_golden_files.py` does.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import tidegate as tg

HERE = Path(__file__).parent

LEARNERS: dict[str, dict[str, Any]] = {
    "rtrl": {"cell": "min_gru", "rule": "rtrl", "delay": 2},
    "snap": {"cell": "lstm", "rule": "snap:1", "num_layers": 2},
    "uoro": {"cell": "elman", "rule": "uoro"},
    "kfrtrl": {"cell": "elman", "rule": "kfrtrl"},
    "truncated": {"cell": "gru", "rule": "truncated:1,8"},
    "colours": {"cell": "gru", "rule": "rtrl", "task": "classification"},
}


def steps(task: str, count: int) -> list[tuple[dict[str, float], Any]]:
    """A stream in which each label is that of the step before."""
    waves = [({"a": math.sin(t / 3), "b": math.cos(t / 7)}, math.sin((t - 1) / 3)) for t in range(count)]
    return waves if task == "regression" else [(x, ("red", "blue")[y > 0]) for x, y in waves]


def guesses(learner: tg.OnlineLearner, stream: list[tuple[dict[str, float], Any]]) -> list[Any]:
    """What is predicted of each step of a stream, which is then learned."""
    found = []
    for x, y in stream:
        found.append(learner.predict_one(x, key="k"))
        learner.learn_one(x, y, key="k")
    return found


def series() -> np.ndarray:
    """Sixty steps of a season with a trend."""
    return np.array([10 + 0.1 * t + 3 * math.sin(2 * math.pi * t / 6) for t in range(60)])


def quantiles(model: tg.Forecaster) -> list[list[float]]:
    """The forecast of the next steps, a row for each."""
    found: list[list[float]] = model.predict().quantiles[0].tolist()
    return found


def main() -> None:
    """Write what is missing."""
    folder = HERE / tg.__version__
    for name, options in LEARNERS.items():
        place = folder / name
        if place.exists():
            continue
        learner = tg.OnlineLearner(hidden_size=5, seed=3, **options)
        stream = steps(options.get("task", "regression"), 60)
        guesses(learner, stream[:40])
        tg.save(learner, place)
        (place / "snapshot.safetensors").write_bytes(learner.snapshot())
        expected = {"guesses": guesses(learner, stream[40:])}
        (place / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
    place = folder / "forecaster"
    if not place.exists():
        model = tg.Forecaster(3, season=6, hidden_size=4, context=12, seed=1, quantiles=(0.1, 0.5, 0.9))
        model.fit(pl.DataFrame({"y": series()}), "y")
        tg.save(model, place)
        found = quantiles(model)
        (place / "expected.json").write_text(json.dumps({"quantiles": found}) + "\n", encoding="utf-8")
    place = folder / "state"
    if not place.exists():
        place.mkdir(parents=True)
        torch.manual_seed(1)
        state = tg.Recurrent("lstm_peephole", 3, 4, num_layers=2)(torch.randn(5, 2, 3))[1].detach()
        (place / "state.bin").write_bytes(state.to_bytes())
        expected = [[{n: t.tolist() for n, t in d.items()} for d in layer] for layer in state.layers]
        (place / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
