"""What is kept: the same bits go on after a restart, also one that nobody asked for, and damage is refused."""

import copy
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
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
    "without an anchor": {"anchor": "none", "rule": "truncated:1,4", "delay": 2},
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
        with pytest.raises(ArgumentError, match=f"^the snapshot of {len(data)} bytes is damaged: .*; give what Online"):
            OnlineLearner().restore(data)


def tampered(change: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    spec, tensors = fed(made("late"), steps("late", 30)).to_spec()
    spec = json.loads(json.dumps(spec))
    change(spec, tensors)
    return spec, tensors


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s, t: t.pop("head.weight"), "its specification is incomplete or at odds: 'head.weight'"),
        (lambda s, t: t.pop("layer.l0.i.x"), "tensor 'l0.i.x' must be torch.float32 (5, 3), got none"),
        (lambda s, t: t.update({"adam.mean": torch.zeros(3)}), "tensor 'adam.mean' must be torch.float32 (186,), got "
         "torch.float32 (3,)"),
        (lambda s, t: t.update({"keys.0.ahead.1": torch.zeros(1, 6)}), "tensor 'ahead.1' must be torch.float32 (1, 5), "
         "got torch.float32 (1, 6)"),
        (lambda s, t: t.update({"keys.1.rows": torch.zeros(9, 2)}), "9 steps wait for their labels, more than delay=5"),
        (lambda s, t: t.update({"keys.1.guesses": torch.zeros(3, 2)}), "tensor 'guesses' must be torch.float64 (3, 1), "
         "got torch.float32 (3, 2)"),
        (lambda s, t: t.update({"keys.0.lasts": torch.zeros(7)}), "tensor 'lasts' must be torch.float64 (4,), got "
         "torch.float32 (7,)"),
        (lambda s, t: t.update({"keys.0.lasts": torch.tensor([-1e101] * 4, dtype=torch.float64)}), "tensor 'lasts' "
         "must be between -1e+100 and 1e+100, got -1e+101"),
        (lambda s, t: s["options"].update(anchor="mean"), "spec.options.anchor must be 'naive' or 'none', got 'mean'"),
        (lambda s, t: t.update({"other": torch.zeros(1)}), "tensor 'other' belongs to no part of the model"),
        (lambda s, t: s["options"].update(max_keys=2), "spec.keys must be at most 2, got 3"),
        (lambda s, t: s["options"].update(hidden_size=4096), "tensor 'l0.f.bias' must be torch.float32 (4096,), got "
         "torch.float32 (5,)"),
        (lambda s, t: s["options"].update(hidden_size=True), "spec.options.hidden_size must be a valid integer, got "
         "True"),
        (lambda s, t: s["options"].update(rule="bptt"), "its specification is incomplete or at odds: rule must "
         "give a gradient at each step, got bptt: use for example RTRL(), SnAp() or TruncatedBPTT(1, 16)"),
        (lambda s, t: s["options"].update(task="other"), "spec.options.task must be 'regression' or 'classification', "
         "got 'other'"),
        (lambda s, t: s["options"].update(new=1), "spec.options.new is not known, got 1"),
        (lambda s, t: s.update(size=10**9), "spec.size must be less than or equal to 65536, got 1000000000"),
        (lambda s, t: s.update(size=True), "spec.size must be a valid integer, got True"),
        (lambda s, t: s["features"].append("c"), "spec.features must be at most 2, got 3"),
        (lambda s, t: s.update(features=["a", "a"]), "spec.features must name each once, got ['a', 'a']"),
        (lambda s, t: s["keys"].__setitem__(1, s["keys"][0]), "spec.keys must name each once, got ['d', 'd', 'b']"),
        (lambda s, t: s["scales"].pop(), "spec.size is 2, but there are 1 scales"),
        (lambda s, t: s["scales"][1].pop(), "spec.scales.1.2 is missing"),
        (lambda s, t: s["scales"][0].__setitem__(2, -1.0), "spec.scales.0.2 must be greater than or equal to 0, got "
         "-1.0"),
        (lambda s, t: s["scales"][0].__setitem__(1, 1e101), f"spec.scales.0.1 must be less than or equal to "
         f"2{'0' * 100}, got 1e+101"),
        (lambda s, t: s["counts"].update(steps="x"), "spec.counts.steps must be a valid integer, got 'x'"),
        (lambda s, t: s["counts"].update(refused=99), "spec.counts.refused must be at most 30, got 99"),
        (lambda s, t: s.update(updates=-5), "spec.updates must be greater than or equal to 0, got -5"),
        (lambda s, t: s.update(updates=31), "spec.updates must be at most 30, got 31"),
        (lambda s, t: s.pop("target"), "spec.target is missing"),
        (lambda s, t: s["target"][0].__setitem__(2, True), "spec.target.0.2 must be a valid number, got True"),
        (lambda s, t: s["target"].pop(), "spec.target.1 is missing"),
    ],
)  # fmt: skip
def test_damage_is_refused(change: Any, text: str, tmp_path: Path) -> None:
    from tidegate.files import write_model
    from tidegate.online.kept import pack

    spec, tensors = tampered(change)
    write_model(tmp_path, "online-learner", "0", spec, safetensors.torch.save(tensors))
    for load in (OnlineLearner.load, tg.load):
        with pytest.raises(ModelFileError) as caught:
            load(tmp_path)
        assert str(caught.value) == f"{tmp_path} is damaged: {text}"
    data = pack(spec, tensors)
    with pytest.raises(ArgumentError) as told:
        OnlineLearner().restore(data)
    assert str(told.value) == (
        f"the snapshot of {len(data)} bytes is damaged: {text}; give what OnlineLearner.snapshot gave"
    )


@pytest.mark.parametrize("labels", [["red"] * 2, [str(k) for k in range(17)], [True, 1], [None], [[1]]])
def test_labels_that_cannot_be_are_refused(labels: list[Any]) -> None:
    spec, tensors = fed(made("classification"), steps("classification", 5)).to_spec()
    with pytest.raises(ModelFileError, match=r"^spec\.target"):
        OnlineLearner.from_spec(spec | {"target": labels}, tensors)


def test_any_changed_bit_of_a_snapshot_is_refused() -> None:
    data = fed(made("classification"), steps("classification", 8)).snapshot()
    header = 8 + int.from_bytes(data[:8], "little")
    chance = random.Random(0)
    for place in [*range(header), *chance.sample(range(header, len(data)), 40)]:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        with pytest.raises(ArgumentError):
            OnlineLearner().restore(bytes(changed))
    assert OnlineLearner().restore(data).snapshot() == data


# Files do not choose where to write


def hostile(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A learner whose file asks for snapshots at each step."""
    spec, tensors = fed(made("exact"), steps("exact", 5)).to_spec()
    assert spec["options"]["snapshots"] is None
    options = spec["options"] | {"snapshots": str(folder), "snapshot_every": 1}
    return json.loads(json.dumps(spec | {"options": options})), tensors


def test_a_file_does_not_choose_where_snapshots_go(tmp_path: Path) -> None:
    from tidegate.files import write_model
    from tidegate.online.kept import pack

    evil, model, own = (tmp_path / name for name in ("evil", "model", "own"))
    spec, tensors = hostile(evil)
    write_model(model, "online-learner", "0", spec, safetensors.torch.save(tensors))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "snapshot-000000000005.safetensors").write_bytes(pack(spec, tensors))
    mine = OnlineLearner(snapshots=str(own), snapshot_every=7)
    found = [
        tg.load(model),
        OnlineLearner.load(model),
        OnlineLearner.from_spec(spec, tensors),
        OnlineLearner().restore(pack(spec, tensors)),
        mine.restore(pack(spec, tensors)),
        OnlineLearner.resume(tmp_path / "kept"),
        mine.clone(include_attributes=True),
    ]
    found += [copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))]  # noqa: S301 - our own bytes
    expected = [None, None, None, None, str(own), str(tmp_path / "kept"), str(own), None, None]
    assert [learner.options.snapshots for learner in found] == expected
    for learner in found:
        fed(learner, steps("exact", 3))
    assert not evil.exists()
    assert mine.options.snapshot_every == 7
    assert [p.name for p in own.iterdir()] == ["snapshot-000000000007.safetensors"]


def test_a_loaded_learner_keeps_snapshots_where_it_is_told(tmp_path: Path) -> None:
    made("exact").save(tmp_path / "model")
    learner = OnlineLearner.load(tmp_path / "model").keep_snapshots(tmp_path / "kept", every=2)
    fed(learner, steps("exact", 6))
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [f"snapshot-{n:012}.safetensors" for n in (4, 6)]
    fed(learner.keep_snapshots(None), steps("exact", 4))
    assert OnlineLearner.resume(tmp_path / "kept").steps == 6
    with pytest.raises(ArgumentError, match="'snapshot_every' must be a whole number of at least 1, got 0"):
        learner.keep_snapshots(tmp_path, every=0)


def test_what_killed_writers_left_in_a_folder_of_snapshots_is_removed(tmp_path: Path) -> None:
    learner = OnlineLearner(hidden_size=4, snapshots=str(tmp_path), snapshot_every=1)
    (tmp_path / ".snapshot-000000000003.safetensors.0123abcd").write_bytes(b"half")
    (tmp_path / ".mine.0123abcd").touch()
    learner.learn_one([1.0], 2.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.0123abcd", "snapshot-000000000001.safetensors"]


@pytest.mark.parametrize("folder", ["x" * 5000, "absent", "file"])
def test_no_folder_of_snapshots(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ModelFileError, match="holds no snapshot that can be read"):
        OnlineLearner.resume(folder)


def test_a_pipe_among_the_snapshots_is_passed_over(tmp_path: Path) -> None:
    fed(OnlineLearner(hidden_size=4, snapshots=str(tmp_path), snapshot_every=2), steps("exact", 2))
    os.mkfifo(tmp_path / "snapshot-000000000009.safetensors")
    assert OnlineLearner.resume(tmp_path).steps == 2


# Threads


def test_threads_may_share_a_learner(tmp_path: Path) -> None:
    """Eight learn, predict and keep at once: no step is lost, and what is kept is whole."""
    learner = OnlineLearner(hidden_size=4, rule="truncated:1,2", max_keys=3)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n, (x, y) in enumerate(waves(60, seed=number)):
                learner.learn_one(x, y, f"{number}-{n % 2}")
                learner.predict_one(x, str(number))
                if n % 20 == number:
                    OnlineLearner().restore(learner.snapshot())
                    learner.save(tmp_path / "model")
                    assert len(learner.keys) == 3
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    spec, _ = learner.to_spec()
    assert (spec["counts"]["steps"], spec["updates"], spec["target"][0][0]) == (480, 480, 480.0)
    assert OnlineLearner.load(tmp_path / "model").steps <= 480


def test_a_model_of_another_kind_is_no_learner(tmp_path: Path) -> None:
    tg.save(tg.Recurrent("gru", 2, 3), tmp_path)
    with pytest.raises(ModelFileError) as caught:
        OnlineLearner.load(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds a model of kind 'recurrent': load it with tidegate.load"
