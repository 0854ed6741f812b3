"""Gradients forward in time: that peers compute them, what is counted of a rule, and every row of the case."""

import pytest
import torch

from benchmark_rows import row
from benchmarks import gradients, rtrl
from benchmarks.contestants import recurrent
from benchmarks.contests import Setting
from benchmarks.gradients import BY_UNIT, forward_in_time, sweep
from benchmarks.influence import Load, load
from benchmarks.limits import Limits
from benchmarks.lines import LINES, judge
from benchmarks.peers import PEERS
from benchmarks.problem import difference, of_cell, solve
from benchmarks.rows import ELEMENTWISE, MATRIX, PASS, RFLO, SNAP
from benchmarks.shapes import Shape
from benchmarks.tables import verdict
from benchmarks.timing import Effort
from tidegate import gradients as rules
from tidegate.cells import CELLS
from tidegate.gradients import KFRTRL, RTRL, SnAp

SHAPE, ALONE = Shape(4, 3, 5, 7), Shape(4, 1, 5, 7)


@pytest.mark.parametrize("peer", ["torch.func", "jax"])
@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_peers_compute_the_gradients_of_weights(name: str, peer: str) -> None:
    if PEERS[peer].lacks:
        pytest.skip(f"needs {PEERS[peer].lacks}")
    problem = gradients._from_zero(of_cell(CELLS[name], SHAPE))
    contestant, right = PEERS[peer].make(problem), solve(problem, training=True)
    found = contestant.named(contestant.training())
    assert set(found) == {f"gradient of {weight}" for weight in problem.weights}
    assert difference(found, right) < 2e-6


@pytest.mark.parametrize(("what", "rule"), [(SNAP, SnAp()), (RFLO, rules.RFLO())])
def test_traces_of_braintrace_are_ours(what: str, rule: rules.Rule) -> None:
    peer = PEERS["braintrace"]
    if peer.lacks:
        pytest.skip(f"needs {peer.lacks}")
    problem = gradients._from_zero(of_cell(CELLS["elman"], ALONE))
    layer, _ = recurrent(problem)
    contestant = peer.make(problem, what)
    right = gradients.Sweep(layer, problem.x, problem.output_gradients["y"]).exactly().by(rule)()
    assert difference(contestant.named(contestant.training()), right) < 2e-6
    assert not peer.can(of_cell(CELLS["elman"], SHAPE))
    assert not peer.can(of_cell(CELLS["lstm"], ALONE))


def test_peers_are_for_cells_that_they_know() -> None:
    assert set(rtrl.STEPS) == {"elman", "lstm"}
    assert not PEERS["torch.func"].can(of_cell(CELLS["gru"], SHAPE))


@pytest.mark.parametrize(
    ("name", "rule", "flops", "numbers"),
    [
        ("elman", RTRL(), 2 * 8 * 7 * (7 * 13), 7 * 7 * 13),
        ("lstm", RTRL(), 2 * 15 * 14 * (28 * 13), 14 * 28 * 13),
        ("elman", SnAp(), 2 * 3 * 7 * 13, 7 * 13),
        ("min_gru", RTRL(), 2 * 2 * 3 * 7 * 6, 2 * 7 * 6),
    ],
)
def test_what_a_rule_computes_and_carries(name: str, rule: object, flops: int, numbers: int) -> None:
    assert load(sweep(name, SHAPE).layer, rule) == Load(flops, numbers)


def test_rules_that_nobody_counted() -> None:
    with pytest.raises(TypeError, match="no operations are counted of a Kronecker"):
        load(sweep("elman", SHAPE).layer, KFRTRL())


def test_weights_and_inputs_are_always_the_same() -> None:
    state = torch.get_rng_state()
    one, other = sweep("lru", SHAPE), sweep("lru", SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.x.shape == (4, 3, 7)
    assert torch.equal(one.x, other.x)
    assert all(torch.equal(a, b) for a, b in zip(one.layer.parameters(), other.layer.parameters(), strict=True))


def test_every_row_of_the_whole_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compute", "bandwidth"):
        monkeypatch.setattr(f"benchmarks.limits.{name}", lambda *_: 1e9)
    monkeypatch.setattr(gradients, "bandwidth", lambda _: 1e9)
    monkeypatch.setattr(gradients, "SEQUENCES", (Shape(3, 1, 2, 4),))
    monkeypatch.setattr(gradients, "LANES", Shape(3, 2, 2, 3))
    monkeypatch.setattr(gradients, "SHORTER", Shape(4, 2, 2, 3))
    rows = list(forward_in_time("case", Setting(("torch.func",), Limits(1e9), Effort(0.0, 1, 0.0, 0.0))))
    assert not any(r.wrong or r.they_are_wrong or r.difference is None for r in rows)
    beside = [(r.subject, r.what) for r in rows if r.peer == PASS]
    assert beside[0] == ("lstm", MATRIX)
    assert beside[1:6] == [(name, ELEMENTWISE) for name in BY_UNIT]
    assert [what for name, what in beside[6:] if name == "elman"] == [SNAP, RFLO]
    assert [what for name, what in beside[6:] if name != "elman"] == [SNAP] * 2
    assert all(r.flops and r.reading and r.their_speed is None for r in rows if r.peer == PASS)
    assert [r.subject for r in rows if r.peer == "torch.func"] == ["elman", "lstm"]


@pytest.mark.parametrize(("seconds", "said"), [(0.019, "MET"), (0.021, "NOT MET")])
def test_half_of_the_speed_of_products(seconds: float, said: str) -> None:
    line = next(line for line in LINES if line.measure == "products")
    fields = {"case": line.case, "subject": "lstm", "what": MATRIX, "peer": PASS}
    taken = judge(line, [row(0.01, **fields, flops=10**9, limit=1e9 / 0.01 * seconds / 0.01)])
    assert verdict(taken).startswith(f"{said}: RTRL of an LSTM")
