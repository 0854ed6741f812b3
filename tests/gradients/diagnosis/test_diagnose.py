"""`diagnose` against loops written by hand, a linear net whose answers are known, and nets broken on purpose."""

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import get
from tidegate.cells.transforms import zoneout
from tidegate.equations import cell, linear, tanh
from tidegate.errors import ArgumentError
from tidegate.gradients import SnAp, TruncatedBPTT, gradient
from tidegate.gradients.diagnosis import Activation, Units, diagnose
from tidegate.gradients.diagnosis.spectrum import StepJacobian
from tidegate.nn.unroll_autograd import follow

T, B, F, H = 9, 5, 2, 3
Trail = dict[str, list[Tensor]]


@cell(states="h", source="made up")
def straight(x: Any, h: Any) -> Any:
    h = linear("n", x, h)
    return h


@cell(states="h d", output="h", source="made up")
def delayed(x: Any, h: Any, d: Any) -> Any:
    n = tanh(linear("n", x, h, d))
    return n, h


@cell(states="h", inputs="x a:1", source="made up")
def attended(x: Any, a: Any, h: Any) -> Any:
    h = tanh(a * linear("n", x, h))
    return h


def data(features: int = F) -> Tensor:
    return torch.randn(T, B, features, dtype=torch.float64)


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).sum()


def elman(w: dict[str, Tensor], x: Tensor) -> Trail:
    h, trail = x.new_zeros(B, H), []
    for x_t in x:
        h = torch.tanh(x_t @ w["l0.h.x"].T + h @ w["l0.h.h"].T + w["l0.h.bias"])
        trail.append(h)
    return {"h": trail}


def lstm(w: dict[str, Tensor], x: Tensor) -> Trail:
    h, c, hs, cs = x.new_zeros(B, H), x.new_zeros(B, H), [], []
    for x_t in x:
        net = {n: x_t @ w[f"l0.{n}.x"].T + h @ w[f"l0.{n}.h"].T + w[f"l0.{n}.bias"] for n in "ifgo"}
        c = net["f"].sigmoid() * c + net["i"].sigmoid() * net["g"].tanh()
        h = net["o"].sigmoid() * c.tanh()
        hs.append(h)
        cs.append(c)
    return {"h": hs, "c": cs}


def norms(loss: Tensor, trail: list[Tensor], row: int, origin: int) -> list[float]:
    found = torch.autograd.grad(loss, trail[: origin + 1], retain_graph=True)
    return [float(found[origin - k][row].norm()) for k in range(origin + 1)]


def at_random(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape))
    return layer.double()


@pytest.mark.parametrize(("name", "by_hand"), [("elman", elman), ("lstm", lstm)])
def test_norm_at_each_lag_is_that_of_the_loop(name: str, by_hand: Callable[..., Trail]) -> None:
    layer, x, target = at_random(tg.Recurrent(name, F, H)), data(), data(H)
    trails = by_hand(dict(layer.named_parameters()), x)
    found = diagnose(layer, x[:, :1], target[:, :1], squared, rules=[])
    loss = squared(trails["h"][-1], target[-1])
    expected = {state: norms(loss, trail, 0, T - 1) for state, trail in trails.items()}
    for lags in found.lags[1:]:
        for shown in (lags.median, lags.low, lags.high):
            assert shown == pytest.approx(expected[lags.state], rel=1e-10)
    assert {lags.state for lags in found.lags[1:]} == set(expected)
    whole = [math.hypot(*(expected[state][k] for state in expected)) for k in range(T)]
    assert found.lags[0].median == pytest.approx(whole, rel=1e-10)


def test_rows_and_origins_are_summed_up_by_quantiles() -> None:
    layer, x, target = at_random(tg.Recurrent("elman", F, H)), data(), data(H)
    trail = elman(dict(layer.named_parameters()), x)["h"]
    lengths, origins = [9, 3, 0, 9, 7], [3, 6]
    found = diagnose(layer, x, target, squared, lengths=lengths, origins=origins, rules=[])
    curves = [
        norms(squared(trail[origin][row], target[origin, row]), trail, row, origin)
        for origin in origins
        for row in range(B)
        if origin < lengths[row]
    ]
    assert found.origins == len(curves) == 6
    h = found.lags[1]
    for k in range(7):
        there = torch.tensor([c[k] for c in curves if k < len(c)], dtype=torch.float64)
        shown = [h.median[k], h.low[k], h.high[k]]
        assert shown == pytest.approx([float(there.quantile(q)) for q in (0.5, 0.1, 0.9)], rel=1e-10)
    assert len(h.median) == 7


def test_a_row_ends_at_its_length_and_padding_is_not_looked_at() -> None:
    layer, x, lengths = at_random(tg.Recurrent("lstm", F, H)), data(), [5, 0, 2, 1, 5]
    worse = x.clone()
    for row, end in enumerate(lengths):
        worse[end:, row] = torch.nan
    alone = diagnose(layer, x[:5], lengths=lengths)
    assert diagnose(layer, worse[:5], lengths=lengths).to_json() == alone.to_json()
    padded = diagnose(layer, worse, lengths=lengths, rules=[TruncatedBPTT(1, 3)])
    assert padded.lags == alone.lags
    assert padded.units == alone.units
    assert padded.activations == alone.activations
    exact = gradient(layer, x[:5, 0:1], data(H)[:5, 0:1], lambda y, t: y.sum())
    assert padded.cosines[0].by_parameter.keys() == exact.keys()


def test_what_a_delay_remembers_is_no_part_of_the_state_it_comes_from() -> None:
    layer, x = at_random(tg.Recurrent(delayed, F, H)), data()
    target, w, hs, ds = data(H), dict(layer.named_parameters()), [], []
    h, d = (torch.zeros(B, H, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for x_t in x:
        net = x_t @ w["l0.n.x"].T + h @ w["l0.n.h"].T + d @ w["l0.n.d"].T + w["l0.n.bias"]
        h, d = torch.tanh(net), h * 1.0
        hs.append(h)
        ds.append(d)
    found = diagnose(layer, x[:, :1], target[:, :1], squared, rules=[])
    loss = squared(hs[-1], target[-1])
    by_state = {lags.state: lags.median for lags in found.lags}
    grads = torch.autograd.grad(loss, [*hs, *ds], retain_graph=True, allow_unused=True)
    for state, part in (("h", grads[:T]), ("d", grads[T:])):
        expected = [0.0 if g is None else float(g[0].norm()) for g in reversed(part)]
        assert by_state[state] == pytest.approx(expected, rel=1e-10)


# a linear net: h' = W h, of which everything is known


ROTATED = [[0.0, -0.9, 0.0], [0.9, 0.0, 0.0], [0.3, 0.2, 0.5]]  # eigenvalues 0.9i, -0.9i, 0.5


def linear_net(matrix: list[list[float]]) -> tg.Recurrent:
    layer = tg.Recurrent(straight, F, H).double()
    with torch.no_grad():
        layer.get_parameter("l0.n.h").copy_(torch.tensor(matrix, dtype=torch.float64))
    return layer


def test_spectrum_of_a_linear_net() -> None:
    matrix = torch.tensor(ROTATED, dtype=torch.float64)
    found = diagnose(linear_net(ROTATED), torch.randn(60, B, F, dtype=torch.float64), rules=[]).spectra[0]
    for shown in (found.moduli.median, found.moduli.low, found.moduli.high):
        assert shown == pytest.approx([0.9, 0.9, 0.5], rel=1e-12)
    for shown in (found.singular_values.median, found.singular_values.low, found.singular_values.high):
        assert shown == pytest.approx(torch.linalg.svdvals(matrix).tolist(), rel=1e-12)
    assert found.radius == pytest.approx((0.9, 0.9, 0.9))
    assert found.growth == pytest.approx(math.log(0.9), rel=0.02)
    three = sorted(found.eigenvalues[:3], key=lambda z: z[1])
    assert [part for z in three for part in z] == pytest.approx([0.0, -0.9, 0.5, 0.0, 0.0, 0.9], abs=1e-12)


def test_decay_of_a_linear_net_is_that_of_its_powers() -> None:
    matrix, x = torch.tensor(ROTATED, dtype=torch.float64), torch.randn(40, 1, F, dtype=torch.float64)
    target = torch.randn(40, 1, H, dtype=torch.float64)
    found = diagnose(linear_net(ROTATED), x, target, lambda y, t: (y * t).sum(), rules=[]).lags[0]
    v, expected = target[-1, 0], []
    for _ in range(40):
        expected.append(float(v.norm()))
        v = matrix.T @ v
    assert found.median == pytest.approx(expected, rel=1e-10)
    assert found.memory == next(k for k in range(40) if expected[k] < expected[0] / math.e)
    assert found.until(0.01) == next((k for k in range(40) if expected[k] < expected[0] / 100), None)


@pytest.mark.parametrize(
    ("factor", "flow", "memory"), [(0.5, "vanishing", 2), (1.0, "steady", None), (1.2, "exploding", None)]
)
def test_verdict(factor: float, flow: str, memory: int | None) -> None:
    layer = linear_net([[factor * (j == k) for j in range(H)] for k in range(H)])
    found = diagnose(layer, torch.randn(30, B, F, dtype=torch.float64), rules=[])
    assert (found.lags[0].flow, found.lags[0].memory) == (flow, memory)
    assert found.lags[0].growth == pytest.approx(factor, rel=1e-9)
    assert found.spectra[0].growth == pytest.approx(math.log(factor), abs=1e-9)
    assert (
        found.sentences[:2]
        == {
            "vanishing": [
                "The gradient vanishes: 7 steps back less than 1 % of it is left.",
                "Effective memory: 2 steps back less than 1/e of the gradient is left.",
            ],
            "steady": [
                "The gradient neither vanishes nor explodes: 29 steps back, at the end, 100% of it is left.",
                "Effective memory: more than 29 steps, the longest lag computed.",
            ],
            "exploding": [
                "The gradient explodes: within 29 steps back its norm grows to 198 times that at lag 0.",
                "Effective memory: more than 29 steps, the longest lag computed.",
            ],
        }[flow]
    )


@pytest.mark.parametrize(
    ("name", "width", "sizes"),
    [
        ("elman", 2, {}),
        ("lstm", 2, {}),
        ("lstm_layer_norm", 2, {}),
        ("gru", 2, {}),
        ("slstm", 2, {}),
        ("lstm_projection", 2, {"P": 2}),
        ("indrnn", 2, {}),
        ("lru", 4, {"N": 3}),
        ("janet", 2, {}),
    ],
)
def test_jacobian_of_a_step_is_that_of_autograd(name: str, width: int, sizes: dict[str, int]) -> None:
    layer = at_random(tg.Recurrent(name, width, 4, **sizes))
    x = data(width)
    with torch.no_grad():
        _, (run,) = follow(layer, x)
    step, t, row = StepJacobian(run), 4, 2
    names = step.names

    def by_layer(flat: Tensor) -> Tensor:
        given = {n: s[row : row + 1] for n, s in run.states[t].items()}
        given |= {n: flat[step.places[n]].unsqueeze(0) for n in names}
        _, new = layer.step(x[t, row : row + 1], tg.State([[given]]))
        return torch.cat([new[n][0, 0] for n in names])

    flat = torch.cat([run.states[t][n][row] for n in names])
    expected = torch.autograd.functional.jacobian(by_layer, flat)
    torch.testing.assert_close(step(t, torch.tensor([row]))[0], expected, rtol=1e-10, atol=1e-12)


# nets that are broken on purpose


def gate(found: list[Activation], name: str) -> Activation:
    return next(a for a in found if a.name == name)


def set_to(layer: nn.Module, name: str, value: float) -> None:
    with torch.no_grad():
        layer.get_parameter(name).fill_(value)


def test_a_saturated_gate_is_reported() -> None:
    layer = at_random(tg.Recurrent("lstm", F, H))
    set_to(layer, "l0.f.bias", 20.0)
    set_to(layer, "l0.o.bias", -20.0)
    with torch.no_grad():
        layer.get_parameter("l0.f.bias")[1] = -20.0
    found = diagnose(layer, 0.1 * data(), rules=[])
    f, o = gate(found.activations, "f"), gate(found.activations, "o")
    assert (f.label, f.keeps, f.enters, f.saturated) == ("forget gate f", ["c"], [], True)
    assert (f.unit_low, f.unit_high) == ([0.0, 1.0, 0.0], [1.0, 0.0, 1.0])
    assert (f.low, f.high) == pytest.approx((1 / 3, 2 / 3))
    assert (o.low, o.high, o.keeps) == (1.0, 0.0, [])
    assert f.counts == [T * B, *[0] * 18, 2 * T * B]
    assert gate(found.activations, "i").enters == ["c"]
    assert "Saturated: output gate o; 100% of its values are below 0.05 and 0% above 0.95." in found.sentences
    assert "Saturated: forget gate f; 33% of its values are below 0.05 and 67% above 0.95." in found.sentences


def test_time_constants_are_those_of_the_gates_mean() -> None:
    layer = at_random(tg.Recurrent("lstm", F, H))
    for name, value in (("f.x", 0.0), ("f.h", 0.0)):
        set_to(layer, f"l0.{name}", value)
    kept = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    with torch.no_grad():
        layer.get_parameter("l0.f.bias").copy_(kept.logit())
    found = diagnose(layer, data(), rules=[])
    expected = [-1 / math.log(share) for share in kept.tolist()]
    assert gate(found.activations, "f").time_constants == pytest.approx(expected, rel=1e-9)
    assert gate(found.activations, "i").time_constants is None


def test_a_gate_that_keeps_as_one_minus_itself() -> None:
    layer = at_random(tg.Recurrent("mgu", F, H))
    for name in ("f.x", "f.h"):
        set_to(layer, f"l0.{name}", 0.0)
    set_to(layer, "l0.f.bias", math.log(0.2 / 0.8))
    found = gate(diagnose(layer, data(), rules=[]).activations, "f")
    assert found.time_constants == pytest.approx([-1 / math.log(0.8)] * H, rel=1e-9)


def test_dead_units_are_listed() -> None:
    layer = at_random(tg.Recurrent("elman", F, H))
    with torch.no_grad():
        for name in ("x", "h"):
            layer.get_parameter(f"l0.h.{name}")[1] = 0.0
        layer.get_parameter("l0.h.bias")[1] = 0.3
    target = data(H)
    first = diagnose(layer, data(), target, squared, rules=[])
    assert first.units == [Units(0, "h", "hidden state h", first.units[0].deviations, [1], [])]
    assert "Dead: 1 of 3 units of hidden state h hardly move (1)." in first.sentences
    with torch.no_grad():
        layer.get_parameter("l0.h.h")[:, 2] = 0.0
    second = diagnose(layer, data(), target, lambda y, t: squared(y[..., :2], t[..., :2]), rules=[])
    assert (second.units[0].still, second.units[0].no_gradient, second.units[0].dead) == ([1], [2], [1, 2])
    assert "Dead: 1 of 3 units of hidden state h get no gradient (2)." in second.sentences


# rules, and the kinds of layers


def test_cosines_are_those_of_the_gradients() -> None:
    layer, x, target = at_random(tg.Recurrent("gru", F, H)), data(), data(H)
    rules = [TruncatedBPTT(1, 1), TruncatedBPTT(3, 4), TruncatedBPTT(20, 20)]
    found = diagnose(layer, x, target, squared, rules=rules).cosines
    exact = gradient(layer, x, target, squared)
    for rule, shown in zip(rules, found, strict=True):
        ours = gradient(layer, x, target, squared, rule=rule)
        flat = [torch.cat([g.flatten() for g in grads.values()]) for grads in (ours, exact)]
        assert shown.rule == str(rule)
        assert shown.cosine == pytest.approx(float(torch.cosine_similarity(flat[0], flat[1], dim=0)), rel=1e-9)
        assert shown.ratio == pytest.approx(float(flat[0].norm() / flat[1].norm()), rel=1e-9)
        for name, cosine in shown.by_parameter.items():
            wanted = float(torch.cosine_similarity(ours[name].flatten(), exact[name].flatten(), dim=0))
            assert (cosine or 0.0) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert found[-1].cosine == pytest.approx(1.0, rel=1e-12)
    assert abs(found[0].cosine or 1.0) < 0.999
    assert [c.rule for c in diagnose(layer, x).cosines] == ["truncated:1,1", "truncated:2,2", "truncated:5,5"]


def test_a_mean_loss_has_the_cosines_of_the_sum() -> None:
    layer, x, target = at_random(tg.Recurrent("gru", F, H)), data(), data(H)
    rules = [TruncatedBPTT(1, 1), TruncatedBPTT(3, 4), SnAp()]
    summed = diagnose(layer, x, target, squared, rules=rules).cosines
    mean = diagnose(layer, x, target, nn.functional.mse_loss, rules=rules).cosines
    for one, other in zip(summed, mean, strict=True):
        assert (one.cosine, one.ratio) == (pytest.approx(other.cosine), pytest.approx(other.ratio))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_torchs_module_ours_and_the_equations_give_the_same(kind: str) -> None:
    theirs = at_random(getattr(nn, kind)(F, H, num_layers=2, batch_first=True))
    ours = getattr(tg, kind)(F, H, num_layers=2).double()
    ours.load_state_dict(theirs.state_dict())
    x, target = data(), data(H)
    before = {name: p.clone() for name, p in theirs.state_dict().items()}
    first, second = diagnose(theirs, x, target, squared), diagnose(ours, x, target, squared)
    assert first.to_json() == second.to_json()
    assert type(theirs) is getattr(nn, kind)
    assert theirs.training
    assert theirs.batch_first
    assert all(torch.equal(before[name], p) for name, p in theirs.state_dict().items())
    trail = theirs(x.transpose(0, 1))[0]
    x_grad = torch.autograd.grad(squared(trail[:, -1], target[-1]), theirs.get_parameter("weight_hh_l1"))[0]
    assert x_grad.abs().sum() > 0


def test_torchs_lstm_with_projection() -> None:
    theirs, x = at_random(nn.LSTM(F, H, proj_size=2)), data()
    found = diagnose(theirs, x, data(2), squared, rules=[])
    assert [(lags.layer, lags.state) for lags in found.lags] == [(None, "all states"), (0, "h"), (0, "c")]


def test_a_stack_is_its_layers() -> None:
    layer = at_random(tg.Recurrent("lstm", F, H, num_layers=2))
    below, above = tg.Recurrent("lstm", F, H).double(), tg.Recurrent("lstm", H, H).double()
    state = layer.state_dict()
    below.load_state_dict({k: v for k, v in state.items() if k.startswith("l0")})
    above.load_state_dict({k.replace("l1", "l0"): v for k, v in state.items() if k.startswith("l1")})
    x, target = data(), data(H)
    one, other = diagnose(layer, x, target, squared), diagnose(tg.Stack(below, above), x, target, squared)
    a, b = one.to_json(), other.to_json()
    for key in set(a) - {"cosines"}:
        assert a[key] == b[key]
    assert [c.cosine for c in one.cosines] == pytest.approx([c.cosine for c in other.cosines], rel=1e-12)


def test_the_gradient_goes_around_a_layer_of_a_stack() -> None:
    layers = [at_random(tg.Recurrent("elman", H, H)) for _ in range(2)]
    stack = tg.Stack(*layers, residual=True)
    x, target = data(H), data(H)
    w = [dict(layer.named_parameters()) for layer in layers]
    h = [x.new_zeros(B, H), x.new_zeros(B, H)]
    trails: list[list[Tensor]] = [[], []]
    for x_t in x:
        y = x_t
        for k in range(2):
            h[k] = torch.tanh(y @ w[k]["l0.h.x"].T + h[k] @ w[k]["l0.h.h"].T + w[k]["l0.h.bias"])
            trails[k].append(h[k])
            y = y + h[k]
    loss = squared(y, target[-1])
    found = diagnose(stack, x[:, :1], target[:, :1], squared, rules=[])
    for k, trail in enumerate(trails):
        assert found.lags[1 + k].median == pytest.approx(norms(loss, trail, 0, T - 1), rel=1e-10)


def test_masks_and_dropout_are_as_in_evaluation() -> None:
    layer = at_random(tg.Recurrent(zoneout(get("lstm"), c=0.5, h=0.1), F, H, num_layers=2, dropout=0.5))
    x = data()
    still = copy.deepcopy(layer).eval()
    assert diagnose(layer, x).to_json() == diagnose(still, x).to_json()


def test_integers_are_indices_of_one_hots() -> None:
    layer, x = at_random(tg.Recurrent("gru", F, H)), torch.randint(0, F, (T, B))
    hot = nn.functional.one_hot(x, F).double()
    ours, theirs = diagnose(layer, x), diagnose(layer, hot)
    assert ours.lags[0].median == pytest.approx(theirs.lags[0].median, rel=1e-12)
    assert [c.cosine for c in ours.cosines] == pytest.approx([c.cosine for c in theirs.cosines], rel=1e-12)


def test_the_readout_comes_before_the_loss() -> None:
    layer, x, target, head = at_random(tg.Recurrent("gru", F, H)), data(), data(1), at_random(nn.Linear(H, 1))
    ours = diagnose(layer, x, target, squared, readout=head)
    assert ours.to_json() == diagnose(layer, x, target, lambda y, t: squared(head(y), t)).to_json()
    assert ours.loss == "the loss that was given"


def test_the_probe_is_drawn_from_the_seed() -> None:
    layer, x = at_random(tg.Recurrent("gru", F, H)), data()
    one, same, other = (diagnose(layer, x, seed=seed) for seed in (3, 3, 4))
    assert one.to_json() == same.to_json()
    assert one.lags != other.lags
    assert one.loss == "a random projection of the outputs (no loss was given)"
    assert one.lags[1].median[0] == pytest.approx(1.0)


def test_json_is_json() -> None:
    layer = at_random(tg.Recurrent("lstm", F, H, num_layers=2))
    set_to(layer, "l0.f.bias", 50.0)
    found = diagnose(layer, data(), lengths=[9, 2, 0, 1, 4]).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    assert found["lags"][0].keys() >= {"memory", "memory_percent", "growth", "flow", "median"}
    assert gate_json(found, "f")["time_constants"] == [None] * H


def gate_json(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(a for a in found["activations"] if a["name"] == name)


# what cannot be diagnosed


def layer() -> tg.Recurrent:
    return tg.Recurrent("lstm", F, H).double()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: diagnose(nn.Linear(2, 3), data()),
            "diagnose takes a Recurrent, a Stack, or an LSTM, GRU or RNN of tidegate or torch.nn, got a Linear: "
            "pass the recurrent layer inside it",
        ),
        (
            lambda: diagnose(nn.LSTM(F, H, bidirectional=True), data()),
            "diagnose takes layers of one direction, got a bidirectional one: its steps have no single past. Pass a "
            "layer of one direction",
        ),
        (
            lambda: diagnose(tg.Stack(layer(), tg.Recurrent(attended, H, H).double()), data()),
            "diagnose takes cells of one input, but 'attended' reads x, a: choose a cell that reads one tensor, or "
            "concatenate the inputs",
        ),
        (
            lambda: diagnose(layer(), data().numpy()),
            "x must be one tensor [T, B, I], or integers [T, B], got a ndarray",
        ),
        (
            lambda: diagnose(layer(), data()[0]),
            "x must be one tensor [T, B, I], or integers [T, B], got a tensor [5, 2]",
        ),
        (
            lambda: diagnose(layer(), data()[:1]),
            "diagnose needs at least 2 steps of at least 1 row, got [1, 5, 2]",
        ),
        (
            lambda: diagnose(layer(), data(), lengths=[1, 1, 0, 1, 1]),
            "diagnose needs at least 2 steps, but the longest row has 1",
        ),
        (
            lambda: diagnose(layer(), data(), lengths=[1, 10]),
            "lengths must be 5 whole numbers from 0 to 9, one per row, got [1, 10]",
        ),
        (
            lambda: diagnose(layer(), data(), data(H)),
            "got target without loss: give both, or neither for a random projection of the outputs",
        ),
        (
            lambda: diagnose(layer(), data(), loss=squared),
            "got loss without target: give both, or neither for a random projection of the outputs",
        ),
        (
            lambda: diagnose(layer(), data(), data(H)[:3], squared),
            "target has 3 steps, but x has 9: both must be time-major, with one target per step",
        ),
        (
            lambda: diagnose(layer(), data(), data(H), lambda y, t: (y - t) ** 2),
            "loss(outputs, target) must return one number computed from the outputs, got a tensor [9, 5, 3]: reduce "
            "the losses of all steps to one number, as in .sum()",
        ),
        (
            lambda: diagnose(layer(), data(), data(H), lambda y, t: t.sum()),
            "loss(outputs, target) must return one number computed from the outputs, got a tensor [] that does not "
            "depend on the outputs: reduce the losses of all steps to one number, as in .sum()",
        ),
        (
            lambda: diagnose(layer(), data(), data(H), lambda y, t: 1.0),
            "loss(outputs, target) must return one number computed from the outputs, got a float: reduce the losses "
            "of all steps to one number, as in .sum()",
        ),
        (
            lambda: diagnose(layer(), data(), origins=[3, 9]),
            "origins must be one or more steps from 0 to 8, got [3, 9]",
        ),
        (lambda: diagnose(layer(), data(), origins=[]), "origins must be one or more steps from 0 to 8, got []"),
        (
            lambda: diagnose(linear_net([[1e200, 0.0, 0.0]] * 3), data()),
            "state 'h' of layer 1 is not finite after step 3 of 9, so gradients cannot be computed: use shorter "
            "sequences, or smaller recurrent weights",
        ),
    ],
)
def test_whole_text_of_each_error(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert str(caught.value) == sentence
