"""SnAp, UORO, KF-RTRL, RFLO and e-prop against loops written by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradients.forward_cases import BATCH, STEPS, difference, found, layer_of, problem, swept
from layer_cases import CASES, make_layer
from tidegate.cells import CELLS, transforms
from tidegate.equations import cell, linear, matrix, tanh
from tidegate.errors import ArgumentError
from tidegate.gradients import KFRTRL, RFLO, RTRL, UORO, EProp, Forward, SnAp
from tidegate.nn import Recurrent, Stack
from tidegate.runtime import support

BY_NAME = {str(case): case for case in CASES}
I, H = 3, 5  # noqa: E741 - the project's word for the input size


@cell(states="h", source="Murray 2019, doi:10.7554/eLife.43299, equation 1: leaky units")
def leaky(x: Any, h: Any, *, leak: float = 0.3) -> Any:
    h = (1 - leak) * h + leak * tanh(linear("u", x, h))
    return h


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(STEPS, BATCH, I, dtype=torch.float64), torch.randn(STEPS, BATCH, H, dtype=torch.float64)


def traces_by_hand(layer: Recurrent, x: Tensor, target: Tensor, leak: float, recurrent: bool) -> dict[str, Tensor]:
    """h' = (1 - leak) h + leak tanh(W x + R h + b): each weight is followed in its own unit; with the diagonal of R if
    `recurrent`."""
    weights = {n.rpartition(".")[2]: p.detach() for n, p in layer.named_parameters()}
    totals = {n: torch.zeros_like(p) for n, p in layer.named_parameters()}
    prefix = next(iter(totals)).rpartition(".")[0]
    for b in range(BATCH):
        h = torch.zeros(H, dtype=torch.float64)
        traces = {n: torch.zeros_like(w) for n, w in weights.items()}
        for t in range(STEPS):
            u = torch.tanh(weights["x"] @ x[t, b] + weights["h"] @ h + weights["bias"])
            gradient = leak * (1 - u * u)
            keep = (1 - leak) + gradient * (weights["h"].diagonal() if recurrent else 0.0)
            drive = {"x": torch.outer(gradient, x[t, b]), "h": torch.outer(gradient, h), "bias": gradient}
            for n in traces:
                wide = keep.unsqueeze(-1) if traces[n].dim() == 2 else keep
                traces[n] = wide * traces[n] + drive[n]
            h = (1 - leak) * h + leak * u
            dh = target[t, b] + 0.6 * h
            for n in traces:
                totals[f"{prefix}.{n}"] += (dh.unsqueeze(-1) if traces[n].dim() == 2 else dh) * traces[n]
    return totals


@pytest.mark.parametrize(("rule", "recurrent"), [(SnAp(), True), (RFLO(), False), (EProp(), False)], ids=str)
def test_leaky_units_by_hand(rule: Any, recurrent: bool) -> None:
    layer, (x, target) = make_layer(leaky, I, H), data()
    assert difference(found(layer, x, target, rule), traces_by_hand(layer, x, target, 0.3, recurrent)) < 1e-12


@pytest.mark.parametrize(("rule", "recurrent"), [(SnAp(), True), (RFLO(), False)], ids=str)
def test_units_without_a_leak_by_hand(rule: Any, recurrent: bool) -> None:
    layer, (x, target) = make_layer(CELLS["elman"], I, H), data()
    assert difference(found(layer, x, target, rule), traces_by_hand(layer, x, target, 1.0, recurrent)) < 1e-12


def test_e_prop_of_an_lstm_by_hand() -> None:
    """Bellec et al. 2020, equation 5 and the section on LSTM: the eligibility runs along the cell, never through h."""
    layer, (x, target) = make_layer(CELLS["lstm"], I, H), data()
    w = {n.removeprefix("l0."): p.detach() for n, p in layer.named_parameters()}
    totals = {n: torch.zeros_like(p) for n, p in layer.named_parameters()}
    for b in range(BATCH):
        h, c = torch.zeros(H, dtype=torch.float64), torch.zeros(H, dtype=torch.float64)
        along = {n: torch.zeros_like(v) for n, v in w.items()}
        for t in range(STEPS):
            net = {g: w[f"{g}.x"] @ x[t, b] + w[f"{g}.h"] @ h + w[f"{g}.bias"] for g in "ifgo"}
            i, f, o = (torch.sigmoid(net[g]) for g in "ifo")
            g = torch.tanh(net["g"])
            into_c = {"i": g * i * (1 - i), "f": c * f * (1 - f), "g": i * (1 - g * g), "o": torch.zeros_like(c)}
            new_c = f * c + i * g
            out = o * (1 - torch.tanh(new_c) ** 2)
            dh = target[t, b] + 0.6 * o * torch.tanh(new_c)
            for name in w:
                gate, _, piece = name.partition(".")
                read = {"x": x[t, b], "h": h, "bias": torch.ones(1, dtype=torch.float64)}[piece]
                shape = w[name].shape
                along[name] = (f.unsqueeze(-1) * along[name].view(H, -1) + torch.outer(into_c[gate], read)).view(shape)
                e = out.unsqueeze(-1) * along[name].view(H, -1)
                if gate == "o":
                    e = e + torch.outer(torch.tanh(new_c) * o * (1 - o), read)
                totals[f"l0.{name}"] += (dh.unsqueeze(-1) * e).view(shape)
            h, c = o * torch.tanh(new_c), new_c
    assert difference(found(layer, x, target, EProp()), totals) < 1e-12


@pytest.mark.parametrize("case", CASES, ids=str)
def test_snap_with_enough_steps_is_exact(case: Any) -> None:
    layer = layer_of(case)
    x, target = problem(case, layer)
    with support.disabled():
        assert difference(found(layer, x, target, SnAp(n=12)), found(layer, x, target)) < 1e-11


def masked_by_hand(layer: Recurrent, x: Tensor, target: Tensor, pattern: Tensor, wide: Tensor) -> Tensor:
    """SnAp of an Elman net by a full influence matrix that is masked after every step."""
    W, R, bias = (layer.get_parameter(f"l0.h.{n}").detach() for n in ("x", "h", "bias"))
    total = torch.zeros(R.numel(), dtype=torch.float64)
    for b in range(BATCH):
        h, J = torch.zeros(H, dtype=torch.float64), torch.zeros(H, R.numel(), dtype=torch.float64)
        for t in range(STEPS):
            new = torch.tanh(W @ x[t, b] + R @ h + bias)
            gradient = 1 - new * new
            drive = torch.einsum("ki,j->kij", torch.diag(gradient), h).flatten(1)
            J = (gradient.unsqueeze(-1) * (R @ J) + drive) * wide
            h = new
            total += (target[t, b] + 0.6 * h) @ J
    return total.view(H, H)


@pytest.mark.parametrize("n", [1, 2])
def test_fixed_zeros_of_a_matrix_make_masks(n: int) -> None:
    """Clockwork's and others' fixed masks: here a ring, in which a unit reads its neighbour and itself."""
    ring = torch.eye(H, dtype=torch.float64) + torch.eye(H, dtype=torch.float64).roll(1, 0)

    @cell(states="h", source="a test: a matrix with fixed zeros")
    def sparse(x: Any, h: Any) -> Any:
        kept = matrix("kept", learn=False) * matrix("w.h")
        h = tanh(linear("h", x) + kept @ h)
        return h

    layer, (x, target) = make_layer(sparse, I, H), data()
    with torch.no_grad():
        layer.l0.get_buffer("kept").copy_(ring)
    pattern = ring if n == 2 else torch.eye(H, dtype=torch.float64)
    twin = make_layer(CELLS["elman"], I, H)
    with torch.no_grad():
        twin.get_parameter("l0.h.x").copy_(layer.get_parameter("l0.h.x"))
        twin.get_parameter("l0.h.bias").copy_(layer.get_parameter("l0.h.bias"))
        twin.get_parameter("l0.h.h").copy_(layer.get_parameter("l0.w.h") * ring)
    wide = pattern.repeat_interleave(H, 1)
    expected = masked_by_hand(twin, x, target, pattern, wide) * ring
    ours = found(layer, x, target, SnAp(n=n))["l0.w.h"]
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rule", [UORO, KFRTRL])
@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_right_on_average(name: str, rule: Any) -> None:
    """The mean over seeds goes to the exact gradient as one over the root of their number."""
    layer = make_layer(CELLS[name], 2, 3)
    x, target = torch.randn(6, 40, 2, dtype=torch.float64), torch.randn(6, 40, 3, dtype=torch.float64)
    exact = found(layer, x, target)
    draws = [found(layer, x, target, rule(seed=seed)) for seed in range(60)]
    for name in exact:
        each = torch.stack([d[name] for d in draws])
        error = (each.mean(0) - exact[name]).abs()
        spread = each.std(0) / 60**0.5
        assert bool((error < 5 * spread + 1e-9).all()), name
        assert bool((spread < 1.5 * exact[name].norm() + 1e-9).all()), name
    assert difference(draws[0], exact) > 1e-3


@pytest.mark.slow
def test_uoro_of_every_cell_is_finite_and_the_same_again() -> None:
    for case in CASES:
        layer = layer_of(case)
        x, target = problem(case, layer)
        with support.disabled():
            first, again = found(layer, x, target, UORO()), found(layer, x, target, UORO())
            cut = swept(layer, x, target, UORO(every=4))
        assert all(torch.isfinite(g).all() for g in first.values()), case
        assert difference(again, first) == 0.0
        assert difference(cut, first) < 1e-11, case


@pytest.mark.parametrize(
    ("rule", "name", "reason"),
    [
        (
            KFRTRL(),
            "lstm_peephole",
            "KFRTRL does not support 'lstm_peephole': l0.p_i is read unit by unit, but the rule factors matrices; "
            "use RTRL() or SnAp().",
        ),
        (
            RFLO(),
            "lstm",
            "RFLO does not support 'lstm': it is for one state that leaks at a fixed rate, h' = (1 - a) h + a f(W h + "
            "V x); use EProp() or SnAp().",
        ),
    ],
)
def test_what_a_rule_cannot_do_is_refused_with_the_reason(rule: Forward, name: str, reason: str) -> None:
    layer, (x, target) = make_layer(CELLS[name], I, H), data()
    with pytest.raises(ArgumentError) as caught:
        found(layer, x, target, rule)
    assert str(caught.value) == reason
    for asked in (layer, layer.cell, layer.graph):
        assert not rule.supports(asked)
    assert rule.supports(CELLS["elman"])


def test_gradients_that_are_clipped_within_a_step_go_back_only() -> None:
    layer, (x, target) = make_layer(transforms.clip_gradients(CELLS["lstm"], 0.1), I, H), data()
    with pytest.raises(ArgumentError) as caught:
        found(layer, x, target, RTRL())
    assert str(caught.value) == (
        "RTRL does not support 'lstm_gradient_clipped': its equations clip gradients within a step, which only "
        "backward rules support; use BPTT()."
    )


def test_layers_above_each_other_and_local_rules() -> None:
    stack = Stack(make_layer(CELLS["elman"], I, H), make_layer(CELLS["elman"], H, H))
    with pytest.raises(ArgumentError) as caught:
        found(stack, *data(), EProp())
    assert str(caught.value) == (
        "EProp does not support 'elman over elman': the weights of layers.0.l0.h act on other units than their own "
        "within one step (a layer above, a reduction over units, or a second product); use RTRL() or SnAp()."
    )


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Linear(3, 5),
            "RTRL takes modules that contain a Recurrent or a Stack, got a Linear without one: add one, or use BPTT()",
        ),
        (
            Recurrent("elman", 3, 5, bidirectional=True).double(),
            "forward gradient rules do not support bidirectional layers: use BPTT()",
        ),
    ],
)
def test_modules_that_have_no_forward_gradient(module: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        found(module, *data(), RTRL())
    assert str(caught.value) == message
