"""What earlier releases kept loads, and gives what it gave then: forecasters, online learners, snapshots, a state."""

import json
from pathlib import Path

import pytest
import torch

import tidegate as tg
from golden.kept import make

KEPT = Path(__file__).parent / "golden" / "kept"
RELEASES = sorted(p.name for p in KEPT.iterdir() if p.is_dir() and p.name != "__pycache__")


def expected(folder: Path) -> object:
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", make.LEARNERS)
@pytest.mark.parametrize("form", ["folder", "snapshot"])
def test_a_learner_goes_on_as_it_would_have(release: str, name: str, form: str) -> None:
    folder, options = KEPT / release / name, make.LEARNERS[name]
    if form == "folder":
        learner = tg.load(folder)
    else:
        learner = tg.OnlineLearner().restore((folder / "snapshot.safetensors").read_bytes())
    if release == "0.1.0":
        assert learner.options.anchor == "none"  # which that version did not know
    stream = make.steps(options.get("task", "regression"), 60)[40:]
    wanted = expected(folder)["guesses"]
    found = make.guesses(learner, stream)
    if options.get("task") == "classification":
        assert found == wanted
    else:
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)  # rounding differs from processor to processor


@pytest.mark.parametrize("release", RELEASES)
def test_a_forecaster_gives_the_forecast_that_it_gave(release: str) -> None:
    model = tg.load(KEPT / release / "forecaster")
    found = make.quantiles(model)
    for row, wanted in zip(found, expected(KEPT / release / "forecaster")["quantiles"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("release", RELEASES)
def test_a_state_is_what_it_was(release: str) -> None:
    folder = KEPT / release / "state"
    state = tg.State.from_bytes((folder / "state.bin").read_bytes())
    wanted = expected(folder)
    assert [[list(d) for d in layer] for layer in state.layers] == [[list(d) for d in layer] for layer in wanted]
    for layer, theirs in zip(state.layers, wanted, strict=True):
        for mine, named in zip(layer, theirs, strict=True):
            for name, tensor in mine.items():
                assert torch.equal(tensor, torch.tensor(named[name]))


def test_this_release_keeps_one_of_each() -> None:
    assert {p.name for p in (KEPT / tg.__version__).iterdir()} == {*make.LEARNERS, "forecaster", "state"}
