"""Everyone who is timed computes the same thing: held to the reference at tiny sizes, values and gradients."""

from dataclasses import replace

import pytest
import torch

from benchmarks import contestants, loops, steps
from benchmarks.cells import OWN
from benchmarks.ourselves import _by_torch, half
from benchmarks.peers import BOTH, PEERS, absent
from benchmarks.problem import Problem, difference, of_cell, of_torch, solve
from benchmarks.shapes import Shape

SHAPE = Shape(4, 3, 5, 8)
PROBLEMS = {mode: of_torch(mode, SHAPE) for mode in ("LSTM", "GRU", "RNN_TANH")}
PROBLEMS |= {name: of_cell(cell, SHAPE) for name, cell in OWN.items()}
PAIRS = [
    (name, peer)
    for name, problem in PROBLEMS.items()
    for peer in ("ours", *PEERS)
    if peer == "ours" or (PEERS[peer].can(problem) and not PEERS[peer].patient)
]


def made(peer: str, problem: Problem) -> contestants.Contestant:
    if peer == "ours":
        return contestants.layer(problem)
    if PEERS[peer].lacks:
        pytest.skip(f"needs {PEERS[peer].lacks}")
    return PEERS[peer].make(problem)


@pytest.mark.parametrize(("name", "peer"), PAIRS)
def test_agreement_with_the_reference(name: str, peer: str) -> None:
    problem = PROBLEMS[name]
    contestant, right = made(peer, problem), solve(problem, training=True)
    for what in BOTH if peer == "ours" else PEERS[peer].whats:
        found = contestant.named(getattr(contestant, what)())
        assert set(found) == (set(right) if what == "training" else set(problem.output_gradients))
        assert difference(found, right) < 5e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_agreement_of_torch_compile() -> None:
    problem = PROBLEMS["lstm_peephole"]
    contestant, right = loops.compiled(problem), solve(problem, training=True)
    for what in BOTH:
        assert difference(contestant.named(getattr(contestant, what)()), right) < 5e-6


def test_every_cell_has_a_loop_and_every_module_its_peer() -> None:
    assert {name for name, peer in PAIRS if peer == "eager"} == {"LSTM", *OWN}
    assert {name for name, peer in PAIRS if peer == "torch"} == {"LSTM", "GRU", "RNN_TANH"}
    assert {name for name, peer in PAIRS if peer == "onnxruntime"} == {"LSTM", "GRU", "RNN_TANH"}
    assert ("lstm_peephole", "torchrecurrent") in PAIRS


def test_lengths_end_rows_for_us_and_for_torch() -> None:
    problem = replace(PROBLEMS["LSTM"], lengths=torch.tensor([2, 4, 1]))
    right = solve(problem, training=True)
    assert not right["y"][2:, 0].any()
    assert torch.equal(right["h at the end"][2], right["y"][0, 2])
    for contestant in (contestants.layer(problem), contestants.module(problem, torch.nn, packed=True)):
        assert difference(contestant.named(contestant.training()), right) < 5e-6
    padded = contestants.layer(PROBLEMS["LSTM"])
    assert difference(padded.named(padded.forward()), right) > 1e-2


def test_half_of_the_steps_on_average() -> None:
    lengths = half(Shape(101, 7, 1, 1))
    assert float(lengths.double().mean()) == 51
    assert (int(lengths.min()), int(lengths.max())) == (1, 101)
    assert lengths.tolist() != sorted(lengths.tolist())


def test_torch_in_float64_is_right_too() -> None:
    problem = PROBLEMS["LSTM"]
    right = solve(problem, training=True)
    assert difference({n: v.double() for n, v in _by_torch(problem).items()}, right) < 1e-12


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN_TANH"])
@pytest.mark.parametrize("name", ["stepper", "layer.step", "torch", "onnxruntime"])
def test_walks_go_on_from_where_they_were(mode: str, name: str) -> None:
    if name in PEERS and PEERS[name].lacks:
        pytest.skip(f"needs {PEERS[name].lacks}")
    problem = of_torch(mode, Shape(1, 3, 5, 8))
    with torch.no_grad():
        assert steps._off(steps._WALKS[name](problem), problem) < 1e-6


def test_a_walk_that_stands_still_is_found() -> None:
    problem = of_torch("LSTM", Shape(1, 3, 5, 8))
    layer = contestants.layer(problem)
    assert steps._off(steps.Walk(lambda: layer.forward()[0][0]), problem) > 1e-3


@pytest.mark.parametrize("name", ["y", "gradient of x", "gradient of f.bias", "c at the end"])
def test_differences_are_seen_in_any_tensor(name: str) -> None:
    right = solve(PROBLEMS["lstm_peephole"], training=True)
    found = {n: v.clone() for n, v in right.items()}
    assert difference(found, right) == 0.0
    found[name].view(-1)[3] += 0.5 * right[name].abs().max()
    assert difference(found, right) == pytest.approx(0.5)
    found[name].view(-1)[3] = float("nan")
    assert difference(found, right) == float("inf")


def test_problems_are_the_same_every_time_and_nothing_in_them_is_zero() -> None:
    again = of_cell(OWN["lstm_layer_norm"], SHAPE)
    for name, value in PROBLEMS["lstm_layer_norm"].given.items():
        assert torch.equal(again.given[name], value)
        assert (value != 0).all()
    assert again.weights["nx.gain0"].mean() > 0.5


def test_who_is_absent_is_told_how_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(PEERS["torchrecurrent"], lacks="torchrecurrent")
    monkeypatch.setattr("benchmarks.peers.PEERS", {**PEERS, "torchrecurrent": gone})
    assert absent(["eager", "torchrecurrent"]) == [
        "torchrecurrent is left out because torchrecurrent cannot be imported: pip install 'tidegate[bench]'"
    ]
