"""What rules cost: the memory as it really is, operations counted by hand, and what does not fit is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from gradients.forward_cases import BATCH, HIDDEN, INPUT, found, layer_of
from layer_cases import CASES, make_layer
from tidegate.cells import CELLS
from tidegate.equations.ops import OPS
from tidegate.errors import ArgumentError
from tidegate.gradients import (
    BPTT,
    KFRTRL,
    RFLO,
    RTRL,
    UORO,
    EProp,
    Forward,
    Segment,
    SnAp,
    TruncatedBPTT,
    costs,
    online,
)
from tidegate.gradients import cost as module
from tidegate.gradients.cost import in_units, kept
from tidegate.gradients.influence.engine import InfluenceEngine
from tidegate.nn import Recurrent
from tidegate.runtime import support

RULES: list[Forward] = [RTRL(), SnAp(), SnAp(n=2), UORO(), KFRTRL(), RFLO(), EProp()]
BY_NAME = {str(case): case for case in CASES}
I, H = 5, 7  # noqa: E741 - the project's word for the input size


def real_bytes(layer: Recurrent, rule: Forward) -> int:
    """The numbers of a memory; step counts and flags are no numbers."""
    tensors = online(layer, rule).begin(BATCH).tensors()
    return sum(t.nbytes for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_is_what_is_really_kept(case: Any, layers: int) -> None:
    layer = layer_of(case, layers if case.stackable else 1)
    with support.disabled():
        for rule in [r for r in RULES if r.supports(layer)]:
            assert costs(layer, rule, batch=BATCH).kept == real_bytes(layer, rule), rule


@pytest.mark.parametrize("name", ["lstm", "gru", "lru"])
def test_weights_need_no_memory(name: str) -> None:
    real = layer_of(BY_NAME[name])
    sizes = {k: v for k, v in real.sizes.items() if k not in ("I", "H")}
    bare = Recurrent(name, real.input_size, real.sizes["H"], device="meta", dtype=torch.float64, **sizes)
    for rule in (RTRL(), SnAp(n=2), UORO(), BPTT()):
        assert costs(bare, rule) == costs(real, rule)


GATES = {"elman": 1, "lstm": 4}
STATES = {"elman": 1, "lstm": 2}


@pytest.mark.parametrize("name", GATES)
def test_operations_of_rtrl_by_hand(name: str) -> None:
    """J <- A J with one row more for the gradient; what the step adds to each state; its own share of the gradient."""
    weights, D = GATES[name] * H * (I + H + 1), STATES[name] * H
    (cost,) = costs(Recurrent(name, I, H), RTRL(), batch=BATCH).trackers
    assert cost.flops == BATCH * (2 * (D + 1) * D * weights + STATES[name] * 2 * weights + 2 * weights)
    assert cost.numbers == BATCH * D * weights


def test_operations_of_traces_by_hand() -> None:
    """A multiplication and an addition for each trace that is taken over, that is driven and that gives gradient. In an
    LSTM c takes c and, by the diagonal of the recurrent matrices, h; so does h. All gates but o drive c and h."""
    weights = H * (I + H + 1)
    (elman,) = costs(Recurrent("elman", I, H), SnAp()).trackers
    assert elman.flops == 2 * (1 + 1 + 1) * weights
    lstm = costs(Recurrent("lstm", I, H), SnAp()).trackers
    assert [c.flops for c in lstm] == [2 * (4 + driven + 2) * weights for driven in (2, 2, 2, 1)]
    direct = costs(Recurrent("lstm", I, H), EProp()).trackers
    assert [c.flops for c in direct] == [2 * (2 + driven + 2) * weights for driven in (2, 2, 2, 1)]


def test_operations_of_products_by_hand() -> None:
    """The gradient and the matrix for a vector; D D R for a matrix; the rest grows as the weights, or as states times
    gates."""
    columns, rows, D = I + H + 1, 4 * H, 2 * H
    (vectors,) = costs(Recurrent("elman", I, H), UORO()).trackers
    assert vectors.flops == 2 * H * H + 2 * H + 7 * H + 10 * H * columns
    (vectors,) = costs(Recurrent("lstm", I, H), UORO()).trackers
    assert 0 < vectors.flops - (2 * rows * H + 7 * D + 10 * rows * columns) < 30 * H  # what is added unit by unit
    (factors,) = costs(Recurrent("lstm", I, H), KFRTRL()).trackers
    assert factors.flops == 2 * D * D * rows + 9 * D * rows + 7 * columns + 3 * rows * columns


def test_a_step_forward_is_counted_too() -> None:
    """Elman: products, two sums, and a tanh."""
    layer = Recurrent("elman", I, H)
    forward = 2 * H * (I + H) + 2 * H + OPS["tanh"].cost * H
    (tracker,) = costs(layer, RTRL()).trackers
    assert costs(layer, RTRL()).flops == forward + tracker.flops
    assert costs(layer, BPTT(), batch=3).flops == 3 * 3 * forward
    assert costs(layer, TruncatedBPTT(2, 8)).flops == 4 * 3 * forward


def test_memory_of_going_back() -> None:
    """An LSTM on kernels keeps h and c and four gates of each step."""
    layer = Recurrent("lstm", I, H)
    whole = costs(layer, BPTT(), batch=3, steps=50)
    assert (whole.kept, whole.size, whole.trackers) == (4 * 3 * 50 * 6 * H, 4, ())
    assert costs(layer, TruncatedBPTT(2, 8), batch=3, steps=50).kept == 4 * 3 * 8 * 6 * H
    assert costs(layer, TruncatedBPTT(2, 80), batch=3, steps=50).kept == whole.kept


def test_what_is_there_at_most() -> None:
    """Three times the influence, the states, and what is read of steps: x, h and the gradients for each, and A."""
    found = costs(Recurrent("elman", I, H), RTRL(), steps=2)
    read = found.most - 4 * (3 * kept(found.trackers) + H)
    assert read % 8 == 0
    assert costs(Recurrent("elman", I, H), RTRL(), steps=3).most - found.most == read // 2
    assert read // 8 >= H * H + H


@pytest.mark.parametrize(
    ("rule", "name", "kept", "why"),
    [
        (RTRL(), "elman", f"a matrix of {H} x {H * (I + H + 1)}", "everything"),
        (RTRL(), "min_gru", f"traces, 1 x {H} x {I + 1}", "everything: the recurrence is element-wise"),
        (SnAp(), "elman", f"traces, 1 x {H} x {I + H + 1}", "each weight in its own unit"),
        (EProp(), "lstm", f"traces, 2 x {H} x {I + H + 1}", "what goes through no matrix"),
        (UORO(), "elman", f"a vector of {H} times one of {H * (I + H + 1)}", "right on average"),
        (KFRTRL(), "lstm", f"a vector of {I + H + 1} times a matrix of {2 * H} x {4 * H}", "right on average"),
    ],
    ids=str,
)
def test_what_is_kept_in_words(rule: Forward, name: str, kept: str, why: str) -> None:
    first = costs(Recurrent(name, I, H), rule).trackers[0]
    assert (first.form, first.why) == (kept, why)


def test_weights_by_their_place() -> None:
    assert [c.weights for c in costs(Recurrent("lstm", I, H), RTRL()).trackers] == [("l0.i", "l0.f", "l0.g", "l0.o")]
    assert next(c.weights for c in costs(Recurrent("lru", H, H, N=4), SnAp()).trackers) == ("l0.b_re.x",)


def test_a_matrix_with_blocks_is_kept_in_part() -> None:
    layer = layer_of(BY_NAME["more-slstm"])
    found = {c.why for c in costs(layer, SnAp(n=2)).trackers}
    assert found == {"33% of it, the rest stays 0"}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how much memory is free, of which nothing is little."""
    monkeypatch.setattr("tidegate.gradients.influence.engine.FREE_BYTES", 0)
    return lambda free: monkeypatch.setattr("tidegate.gradients.influence.engine.free_memory", lambda: free)


@pytest.mark.parametrize(
    ("free", "others"),
    [
        (60_000, "60 kB are free: use SnAp() (11.5 kB), UORO() (6.05 kB), back-propagation or a smaller net"),
        (20_000, "20 kB are free: use UORO() (6.05 kB), back-propagation or a smaller net"),
        (900, "900 B are free: use back-propagation or a smaller net"),
    ],
)
def test_what_does_not_fit_is_refused(free: int, others: str, narrow: Callable[[int], None]) -> None:
    layer = make_layer(CELLS["lstm"], INPUT, HIDDEN)
    x, target = (torch.randn(4, BATCH, width, dtype=torch.float64) for width in (INPUT, HIDDEN))
    narrow(free)
    with pytest.raises(ArgumentError) as caught:
        found(layer, x, target, RTRL())
    assert str(caught.value) == (
        f"RTRL of 'lstm' keeps 69.1 kB for 3 rows (a matrix of 12 x 240), 3 times that during a run, but only {others}"
    )


def test_a_larger_batch_is_looked_at_again(narrow: Callable[[int], None]) -> None:
    stream = online(Recurrent("lstm", 8, 16), RTRL())
    narrow(640_000)
    stream.begin(1)
    with pytest.raises(ArgumentError) as caught:
        stream.begin(2)
    assert str(caught.value) == (
        "RTRL of 'lstm' keeps 410 kB for 2 rows (a matrix of 32 x 1600), 3 times that during a run, but only 640 "
        "kB are free: use SnAp() (25.6 kB), UORO() (13.1 kB), back-propagation or a smaller net"
    )


def test_nothing_large_is_begun_before(narrow: Callable[[int], None]) -> None:
    """Influence and masks of this net would be 275 GB and more; it is refused at once."""
    layer = Recurrent("elman", 8, 4096, device="meta").to_empty(device="cpu")
    narrow(10**9)
    with pytest.raises(ArgumentError) as caught:
        online(layer, RTRL()).begin(1)
    assert str(caught.value) == (
        "RTRL of 'elman' keeps 275 GB for 1 row (a matrix of 4096 x 16814080), 3 times that during a run, but only "
        "1 GB are free: use SnAp() (67.3 MB), UORO() (67.3 MB), back-propagation or a smaller net"
    )


def test_free_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = tmp_path / "meminfo"
    said.write_text("MemTotal:       24684092 kB\nMemFree:         917536 kB\nMemAvailable:   12810928 kB\n")
    monkeypatch.setattr(module, "MEMINFO", said)
    assert module.free_memory() == 12810928 * 1024
    for text in ("MemTotal: 24684092 kB\n", None):
        if text is None:
            said.unlink()
        else:
            said.write_text(text)
        assert module.free_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_343_745, "1.34 MB"), (2.2e12, "2.2 TB"),
                         (999_600, "1 MB"), (1.2345e18, "1,234 PB")]
)  # fmt: skip
def test_numbers_with_prefixes(number: float, text: str) -> None:
    assert in_units(number, "B") == text


class Own:
    """A rule that someone else wrote."""

    def segments(self, length: int) -> tuple[Segment, ...]:
        return ()

    def __str__(self) -> str:
        return "own"


@pytest.mark.parametrize("rule", [Own(), BPTT(checkpoint=50)], ids=str)
def test_other_rules_have_no_known_cost(rule: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        costs(Recurrent("elman", I, H), rule)
    assert str(caught.value) == (f"rule must be a rule of tidegate.gradients such as RTRL() or BPTT(), got {rule}")


class Calls(TorchFunctionMode):
    """Counts the operations of torch."""

    def __init__(self) -> None:
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(function, "__name__", "") != "__get__"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", [RTRL(), UORO(), KFRTRL()], ids=str)
@pytest.mark.parametrize(("name", "layers"), [("elman", 1), ("lstm", 1), ("lstm", 2), ("gru", 1), ("slstm", 1)])
def test_calls_are_about_those_of_a_step(
    name: str, layers: int, rule: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, counted = layer_of(BY_NAME[name], layers), Calls()
    if not rule.supports(layer):
        pytest.skip("the rule refuses the cell")
    stream = online(layer, rule)
    memory = stream.begin(BATCH)
    for work in ("advance", "gradient"):
        usual = getattr(InfluenceEngine, work)

        def watched(*given: Any, usual: Any = usual) -> Any:
            with counted:
                return usual(*given)

        monkeypatch.setattr(InfluenceEngine, work, watched)
    y, memory = stream.step(memory, torch.randn(BATCH, layer.input_size, dtype=torch.float64))
    stream.gradient(memory, y)
    assert 0.75 < costs(layer, rule).calls / counted.count < 1.25


def test_a_small_net_has_few_operations_and_many_calls() -> None:
    """Of 16 units UORO takes a tenth of the operations of exact RTRL, and more calls, which take longer there."""
    layer = Recurrent("elman", 4, 16)
    exact, vectors = costs(layer, RTRL()), costs(layer, UORO())
    assert vectors.flops < exact.flops / 10
    assert vectors.calls > 1.5 * exact.calls
    assert costs(layer, BPTT()).calls == 0
