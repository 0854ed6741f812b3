"""What is kept: the same bits go on after a restart, also one that nobody asked for, and damage is refused."""

import copy
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import tidegate as tg
from online_streams import colours, waves
from tidegate.equations import cell, linear, tanh
from tidegate.errors import ArgumentError, ModelFileError
from tidegate.online import OnlineLearner

KINDS: dict[str, dict[str, Any]] = {
    "exact": {"cell": "lstm"},
    "drawn": {"rule": "uoro", "delay": 1},
    "regression": {"rule": "truncated:1,3", "num_layers": 2},
    "classification": {"task": "classification", "rule": "snap:1"},
    "late": {"rule": "truncated:1,4", "delay": 5, "cell": "lstm"},
    "room for more": {"max_features": 6, "rule": "truncated:1,2"},
}


def made(kind: str) -> OnlineLearner:
    return OnlineLearner(**{"hidden_size": 5, "max_keys": 3, "window": 20, **KINDS[kind]})


def steps(kind: str, count: int) -> list[tuple[Any, Any, str]]:
    stream = list(colours(count) if kind == "classification" else waves(count))
    keys = random.Random(1).choices("abcd", k=count)
    return [(x, None if n % 5 == 4 else y, key) for n, ((x, y), key) in enumerate(zip(stream, keys, strict=True))]


def fed(learner: OnlineLearner, stream: list[tuple[Any, Any, str]]) -> OnlineLearner:
    for x, y, key in stream:
        learner.learn_one(x, y, key)
    return learner


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 1, 9, 33])
def test_a_restored_learner_goes_on_with_the_same_bits(kind: str, stop: int) -> None:
    stream = steps(kind, 50)
    whole, first = fed(made(kind), stream), fed(made(kind), stream[:stop])
    again = OnlineLearner().restore(first.snapshot())
    assert again.snapshot() == first.snapshot()
    assert (type(again), repr(again)) == (type(first), repr(first))
    assert fed(again, stream[stop:]).snapshot() == whole.snapshot()


@pytest.mark.parametrize("kind", ["exact", "classification", "late"])
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    stream = steps(kind, 40)
    learner = fed(made(kind), stream[:25])
    learner.save(tmp_path / "own")
    tg.save(learner, tmp_path / "theirs")
    own, theirs = ({p.name: p.read_bytes() for p in (tmp_path / at).iterdir()} for at in ("own", "theirs"))
    assert own == theirs
    told = tg.describe(tmp_path / "own")
    assert (told["kind"], told["spec"]["keys"]) == ("online-learner", learner.keys)
    whole = fed(learner, stream[25:]).snapshot()
    for found in (OnlineLearner.load(tmp_path / "own"), tg.load(tmp_path / "own")):
        assert fed(found, stream[25:]).snapshot() == whole


@cell(states="h", source="a test: a cell that is in no registry")
def homemade(x, h):
    h = tanh(linear("n", x, h)) * 0.9 + 0.1 * h  # state
    return h


def test_a_cell_of_ones_own_is_kept_with_its_equations(tmp_path: Path) -> None:
    learner = OnlineLearner(homemade, 3).learn_one([1.0, 2.0], 3.0)
    learner.save(tmp_path)
    found = OnlineLearner.load(tmp_path)
    assert found.cell.to_json() == homemade.to_json()
    assert found.predict_one([2.0, 1.0]) == learner.predict_one([2.0, 1.0])


def test_restoring_takes_back_what_was_learned_since() -> None:
    learner = fed(made("regression"), steps("regression", 10))
    heard: list[Any] = []
    learner.listeners.append(heard.append)
    kept = learner.snapshot()
    fed(learner, steps("regression", 7))
    assert learner.snapshot() != kept
    assert learner.restore(kept) is learner
    assert (learner.snapshot(), learner.steps) == (kept, 10)
    assert learner.listeners == [heard.append]
    fed(learner, [({"a": 1.0}, None, key) for key in "wxyz"])
    assert heard


@pytest.mark.parametrize("way", [copy.deepcopy, lambda learner: pickle.loads(pickle.dumps(learner))])  # noqa: S301 - our own bytes
def test_a_copy_is_one_of_its_own(way: Any) -> None:
    learner = fed(made("late"), steps("late", 12))
    kept, twin = learner.snapshot(), way(learner)
    fed(twin, steps("late", 3))
    assert learner.snapshot() == kept != twin.snapshot()


def test_a_folder_keeps_the_last_two_snapshots_and_the_newest_that_can_be_read_is_resumed(tmp_path: Path) -> None:
    stream = steps("regression", 40)
    learner = fed(OnlineLearner(hidden_size=4, snapshots=str(tmp_path), snapshot_every=7), stream)
    names = [f"snapshot-{n:012}.safetensors" for n in (28, 35)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert fed(OnlineLearner.resume(tmp_path), stream[35:]).snapshot() == learner.snapshot()
    (tmp_path / names[1]).write_bytes(b"half")
    assert OnlineLearner.resume(tmp_path).steps == 28
    (tmp_path / names[0]).unlink()
    with pytest.raises(ModelFileError) as caught:
        OnlineLearner.resume(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds no snapshot that can be read: give the folder of OnlineLearner(snapshots=)"
    )


KILLED = """
import sys
from tidegate.online import OnlineLearner
from online_streams import waves
folder, rule = sys.argv[1:]
try:
    learner = OnlineLearner.resume(folder)
except ValueError:
    learner = OnlineLearner(hidden_size=4, rule=rule, delay=2, snapshots=folder, snapshot_every=3)
print("ready", flush=True)
for n, (x, y) in enumerate(waves(4000)):
    if n >= learner.steps:
        learner.predict_one(x, "ab"[n % 2])
        learner.learn_one(x, y, "ab"[n % 2])
"""


def test_killed_at_random_moments_it_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """It may be killed within a step or within the writing of a snapshot: what it resumes from is whole."""
    chance, environment = random.Random(time.time_ns()), dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(tmp_path), "rtrl"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while not any(tmp_path.iterdir()):  # on a busy machine kernels take their time before the first steps
            time.sleep(0.01)
        time.sleep(chance.uniform(0.05, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    learner = OnlineLearner.resume(tmp_path)
    stop = learner.steps + 20
    whole = OnlineLearner(hidden_size=4, delay=2, snapshots=str(tmp_path), snapshot_every=10**9)
    for n, (x, y) in enumerate(waves(stop)):
        whole.learn_one(x, y, "ab"[n % 2])
        if n >= learner.steps:
            learner.learn_one(x, y, "ab"[n % 2])
    assert all(torch.equal(tensor, learner.to_spec()[1][name]) for name, tensor in whole.to_spec()[1].items())
    specs = [model.to_spec()[0] for model in (whole, learner)]
    for spec in specs:
        del spec["options"]["snapshot_every"]
    assert specs[0] == specs[1]


# Damage


def test_what_is_no_snapshot_is_refused() -> None:
    for data in (b"", b"nonsense", safetensors.torch.save({}), tg.State([[{"h": torch.zeros(1, 2)}]]).to_bytes()):
        with pytest.raises(ArgumentError, match=f"^these {len(data)} bytes are no snapshot as OnlineLearner.snapshot"):
            OnlineLearner().restore(data)


def tampered(change: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    spec, tensors = fed(made("late"), steps("late", 30)).to_spec()
    spec = json.loads(json.dumps(spec))
    change(spec, tensors)
    return spec, tensors


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s, t: t.pop("head.weight"), "'head.weight'"),
        (lambda s, t: t.pop("layer.l0.i.x"), "'l0.i.x' is missing, and ((5, 2), torch.float32) was expected"),
        (lambda s, t: t.update({"adam.mean": torch.zeros(3)}), "'adam.mean' is ((3,), torch.float32), and ((166,), "
         "torch.float32) was expected"),
        (lambda s, t: t.update({"keys.0.ahead.1": torch.zeros(1, 6)}), "'ahead.1' is ((1, 6), torch.float32), and "
         "((1, 5), torch.float32) was expected"),
        (lambda s, t: t.update({"keys.1.rows": torch.zeros(9, 2)}), "9 steps wait for their labels, and 5 are the "
         "most"),
        (lambda s, t: t.update({"keys.1.guesses": torch.zeros(3, 2)}), "'guesses' is ((3, 2), torch.float32), and "
         "((3, 1), torch.float64) was expected"),
        (lambda s, t: t.update({"other": torch.zeros(1)}), "nothing belongs to the tensor 'other'"),
        (lambda s, t: s["options"].update(max_keys=2), "there are 3 keys, and 2 are the most"),
        (lambda s, t: s["options"].update(hidden_size=4096), "'l0.f.bias' is ((5,), torch.float32), and ((4096,), "
         "torch.float32) was expected"),
        (lambda s, t: s.update(size=10**9), "a size of 1000000000"),
        (lambda s, t: s["features"].append("c"), "3 features and 2 scales in 2 slots"),
        (lambda s, t: s.pop("target"), "'target'"),
    ],
)  # fmt: skip
def test_damage_is_refused(change: Any, text: str, tmp_path: Path) -> None:
    from tidegate.files import write_model
    from tidegate.online.kept import pack

    spec, tensors = tampered(change)
    write_model(tmp_path, "online-learner", "0", spec, pack(tensors))
    for load in (OnlineLearner.load, tg.load):
        with pytest.raises(ModelFileError) as caught:
            load(tmp_path)
        assert str(caught.value) == (f"{tmp_path} is damaged: its specification is incomplete or at odds: {text}")


def test_a_model_of_another_kind_is_no_learner(tmp_path: Path) -> None:
    tg.save(tg.Recurrent("gru", 2, 3), tmp_path)
    with pytest.raises(ModelFileError) as caught:
        OnlineLearner.load(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds a model of kind 'recurrent': load it with tidegate.load"
