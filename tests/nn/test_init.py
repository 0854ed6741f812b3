"""Initialisation as an option: what each sets in every cell that ships, and to what; every error in its whole text."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import tidegate as tg
from catalogue import HARD
from tidegate.cells import CELLS
from tidegate.equations import cell, linear, sigmoid, tanh, weight
from tidegate.errors import ArgumentError
from tidegate.nn.init import Chrono, ForgetBias, Glorot, Identity, Init, Orthogonal, TorchUniform
from tidegate.nn.torch_modules.layouts import TENSORS, TORCH, cell_weights

I, H, P = 3, 40, 7  # noqa: E741 - the project's word for the input size
EYE = torch.eye(H, dtype=torch.float64)


def made(name: str, init: Any, **options: Any) -> dict[str, Tensor]:
    sizes = {"P": P} if name == "lstm_projection" else {}
    return dict(tg.Recurrent(name, I, H, init=init, dtype=torch.float64, **options, **sizes).l0.tensors())


def refused(message: str, call: Any, *args: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(*args, **options)
    assert str(caught.value) == message


# What applies where

RECURRENT = {
    "elman": "h.h",
    "elman_relu": "h.h",
    "lstm_1997": "i.h o.h g.h",
    "lstm": "i.h f.h g.h o.h",
    "lstm_peephole": "i.h f.h g.h o.h",
    "lstm_coupled": "f.h g.h o.h",
    "lstm_projection": "i.h f.h g.h o.h p.m",
    "gru": "r.h z.h n.h",
    "gru_reset_after": "r.h z.h m.h",
}
WITH_FORGET_GATE = ("lstm", "lstm_peephole", "lstm_coupled", "lstm_projection")
FORGET = dict.fromkeys(WITH_FORGET_GATE, "f.bias") | dict.fromkeys(("gru", "gru_reset_after"), "z.bias")
INPUT = dict.fromkeys(("lstm", "lstm_peephole", "lstm_projection"), "i.bias")


@pytest.mark.parametrize("name", RECURRENT)
def test_what_each_option_sets(name: str) -> None:
    weights = list(CELLS[name].graph.weights)
    assert sorted(TorchUniform().sets(name)) == sorted(n for n in weights if not n.startswith("p_"))
    assert sorted(Glorot().sets(name)) == sorted(
        n for n in weights if not n.endswith("bias") and not n.startswith("p_")
    )
    assert sorted(Orthogonal().sets(name)) == sorted(RECURRENT[name].split())
    if name != "lstm_projection":
        assert sorted(Identity().sets(CELLS[name])) == sorted(RECURRENT[name].split())
    if name in FORGET:
        assert ForgetBias().sets(name) == [FORGET[name]]
        assert sorted(Chrono(9).sets(name)) == sorted(n for n in (FORGET[name], INPUT.get(name)) if n)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("option", [TorchUniform(), Glorot(), Orthogonal(), Identity(), ForgetBias(3.0), Chrono(9)])
def test_every_cell_takes_what_applies_and_refuses_what_does_not(name: str, option: Init) -> None:
    inert = isinstance(option, ForgetBias | Chrono) and name not in FORGET
    if inert or (isinstance(option, Identity) and name == "lstm_projection"):
        with pytest.raises(
            ArgumentError, match=f"^init={type(option).__name__}.* has no effect: cell '{name}' has no "
        ):
            made(name, option)
        return
    torch.manual_seed(1)
    usual = made(name, None)
    torch.manual_seed(2)
    found = made(name, option)
    sets = option.sets(name)
    assert set(sets) <= set(usual)
    assert not any(torch.equal(usual[n], found[n]) for n in sets)
    for n in set(usual) - set(sets):  # as declared: the same rule, if not the same numbers
        assert found[n].norm().item() == pytest.approx(usual[n].norm().item(), rel=0.3)


# Orthogonal, ForgetBias, Chrono: None where the cell has nothing of the kind
OTHERS: dict[str, tuple[str | None, str | None, str | None]] = {
    "irnn": ("h.h", None, None),
    "lstm_full_gate_recurrence": (
        "i.h i.i i.f i.o f.h f.i f.f f.o g.h o.h o.i o.f o.o",
        "f.bias",
        "f.bias i.bias",
    ),
    "lstm_layer_norm": (
        "f_h.h i_h.h o_h.h g_h.h",
        "nx.shift0 nh.shift0 b_f",
        "nx.shift0 nh.shift0 b_f nx.shift1 nh.shift1 b_i",
    ),
    "lstm_multiplicative": ("m_h.h i.m f.m g.m o.m", "f.bias", "f.bias i.bias"),
    "slstm": ("z.h o.h i.h f.h", None, None),
    "lstm_no_input_gate": ("f.h g.h o.h", "f.bias", None),
    "lstm_no_forget_gate": ("i.h g.h o.h", None, None),
    "lstm_no_output_gate": ("i.h f.h g.h", "f.bias", "f.bias i.bias"),
    "lstm_no_input_activation": ("i.h f.h g.h o.h", "f.bias", "f.bias i.bias"),
    "lstm_coupled_peephole": ("f.h g.h o.h", "f.bias", "f.bias"),
    "lstm_no_output_activation": ("i.h f.h g.h o.h", "f.bias", "f.bias i.bias"),
    "gru_layer_norm": ("z_h.h r_h.h n_h.h", "nx.shift0 nh.shift0", "nx.shift0 nh.shift0"),
    "mgu": ("f.h n.h", "f.bias", "f.bias"),
    "janet": ("f.c g.c", "f.bias", None),
    "indrnn": (None, None, None),
    "sru": (None, "f.bias", "f.bias"),
    "min_gru": (None, "z.bias", "z.bias"),
    "min_lstm": (None, None, None),
    "lru": ("c_re.re c_im.im", None, None),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_set_in_the_other_cells(name: str) -> None:
    for option, expected in zip((Orthogonal(), ForgetBias(), Chrono(9)), OTHERS[name], strict=True):
        if expected is None:
            with pytest.raises(ArgumentError):
                option.sets(name)
        else:
            assert sorted(option.sets(name)) == sorted(expected.split())


@pytest.mark.parametrize(("name", "sign"), [("gru_layer_norm", -1.0), ("lstm_layer_norm", 1.0)])
def test_a_gate_with_several_shifts_has_the_bias_in_their_sum(name: str, sign: float) -> None:
    found = made(name, ForgetBias(3.0))
    total = torch.stack([found[n] for n in ForgetBias().sets(name)]).sum(0)
    assert torch.equal(sign * total, torch.full_like(total, 3.0))


# Matrices


@pytest.mark.parametrize("name", RECURRENT)
def test_orthogonal_gate_by_gate(name: str) -> None:
    found = made(name, Orthogonal(1.5))
    matrices = [found[n] for n in RECURRENT[name].split()]
    for m in matrices:
        few, many = sorted(m.shape)
        product = m @ m.T if m.shape[0] == few else m.T @ m
        assert torch.allclose(product, 2.25 * torch.eye(few, dtype=m.dtype), atol=1e-12)
        assert many in (H, P) or name == "lstm_projection"
    assert len({m.flatten()[0].item() for m in matrices}) == len(matrices)


def test_identity() -> None:
    found = made("elman_relu", "identity")
    assert torch.equal(found["h.h"], EYE)
    assert not found["h.bias"].any()
    assert torch.equal(made("gru", Identity(0.5))["n.h"], 0.5 * EYE)


def test_an_identity_net_of_relu_carries_its_state() -> None:
    layer = tg.Recurrent("elman_relu", I, H, init="identity")
    start = tg.State([[{"h": torch.rand(2, H)}]])
    y, _ = layer(torch.zeros(50, 2, I), start)
    assert torch.allclose(y[-1], start["h"][0])


def test_glorot() -> None:
    found = made("lstm", Glorot(2.0))
    for name, columns in (("f.x", I), ("f.h", H)):
        limit = 2.0 * math.sqrt(6.0 / (H + columns))
        assert 0.9 * limit < found[name].abs().max() <= limit
        assert found[name].var().item() == pytest.approx(limit**2 / 3.0, rel=0.3)
    assert (found["f.bias"] == 1.0).all()


# torch's numbers

TORCH_MODULES: dict[str, Any] = {
    "LSTM": torch.nn.LSTM,
    "LSTM with projection": lambda *a, **k: torch.nn.LSTM(*a, proj_size=P, **k),
    "GRU": torch.nn.GRU,
    "RNN_TANH": torch.nn.RNN,
    "RNN_RELU": lambda *a, **k: torch.nn.RNN(*a, nonlinearity="relu", **k),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", TORCH_MODULES)
def test_torch_uniform_gives_the_numbers_of_torch(kind: str, dtype: torch.dtype) -> None:
    layout, options = TORCH[kind], {"num_layers": 2, "bidirectional": True, "dtype": dtype}
    torch.manual_seed(3)
    theirs = TORCH_MODULES[kind](I, H, **options)
    torch.manual_seed(3)
    ours = tg.Recurrent(layout.cell, I, H, init="torch_uniform", **options, **({"P": P} if "proj" in kind else {}))
    for place in ("l0", "l0_reverse", "l1", "l1_reverse"):
        tensors = {n: getattr(theirs, f"{n}_{place}") for n in TENSORS if hasattr(theirs, f"{n}_{place}")}
        for name, wanted in cell_weights(layout, tensors).items():
            assert torch.equal(ours.get_parameter(f"{place}.{name}"), wanted), f"{place}.{name}"


def test_torch_uniform_of_a_cell_that_torch_does_not_have() -> None:
    found, limit = made("lstm_1997", TorchUniform()), 1.0 / math.sqrt(H)
    for name, value in found.items():
        bound = 2.0 * limit if name.endswith("bias") else limit
        assert 0.5 * bound < value.abs().max() <= bound
    peephole = made("lstm_peephole", TorchUniform())
    assert not any(peephole[f"p_{k}"].any() for k in "ifo")


# Forget gates


@pytest.mark.parametrize("name", FORGET)
def test_forget_bias(name: str) -> None:
    usual, found = made(name, None), made(name, ForgetBias(2.5))
    assert (found[FORGET[name]] == 2.5).all()
    biases = [n for n in usual if n.endswith("bias") and n != FORGET[name]]
    assert all(not found[n].any() for n in biases)
    assert (made(name, "forget_bias")[FORGET[name]] == 1.0).all()
    assert (made(name, ForgetBias(-1))[FORGET[name]] == -1.0).all()


@pytest.mark.parametrize("name", FORGET)
def test_chrono_ties_both_gates_to_one_draw(name: str) -> None:
    steps = 150
    found = [made(name, Chrono(steps)) for _ in range(50)]
    forget = torch.cat([w[FORGET[name]] for w in found])
    assert forget.min() >= 0.0
    assert forget.max() <= math.log(steps - 1)
    assert len(forget.unique()) == len(forget)
    uniform = (forget.exp() - 1.0) / (steps - 2)
    quantiles = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    assert torch.allclose(uniform.quantile(quantiles), quantiles, atol=0.05)
    if name in INPUT:
        assert torch.equal(torch.cat([w["i.bias"] for w in found]), -forget)


@pytest.mark.parametrize("name", FORGET)
def test_a_state_keeps_what_the_bias_says(name: str) -> None:
    """With no other weight than biases, and no candidate, a step multiplies the old state by sigmoid(b)."""
    layer = tg.Recurrent(name, I, H, init=ForgetBias(0.7), dtype=torch.float64, **({"P": P} if "proj" in name else {}))
    with torch.no_grad():
        for n, p in layer.named_parameters():
            if not n.endswith(FORGET[name]):
                p.zero_()
    state = layer.initial_state(2).map(torch.ones_like)
    _, after = layer(torch.zeros(3, 2, I, dtype=torch.float64), state)
    kept = after["h" if name.startswith("gru") else "c"]
    assert torch.allclose(kept, torch.full_like(kept, 0.7).sigmoid() ** 3)


def test_a_gate_that_is_turned_starts_open_too() -> None:
    sizes = {"dtype": torch.float64, "init": ForgetBias(2.0)}
    assert (tg.Recurrent(HARD["gru_d"], I, H, **sizes).get_parameter("l0.z.bias") == -2.0).all()
    torch.manual_seed(4)
    found = tg.Recurrent(HARD["gru_d"], I, H, init=Chrono(30)).get_parameter("l0.z.bias")
    assert -math.log(29) <= found.min()
    assert found.max() <= 0.0


def test_of_several_biases_one_has_it_all() -> None:
    layer = tg.Recurrent(CELLS["lstm_layer_norm"], I, H, init=ForgetBias(2.0))
    sets = ForgetBias().sets(CELLS["lstm_layer_norm"])
    assert sets == ["nx.shift0", "nh.shift0", "b_f"]
    assert [layer.get_parameter(f"l0.{n}").unique().item() for n in sets] == [0.0, 0.0, 2.0]


def test_memory_blocks_share_their_gates() -> None:
    layer = tg.Recurrent(HARD["lstm_blocks_2000"], I, H, G=8, init=Chrono(30))
    forget = layer.get_parameter("l0.f.bias")
    assert forget.shape == (8,)
    assert torch.equal(layer.get_parameter("l0.i.bias"), -forget)


# Several, and a layer with them


def test_later_options_go_over_earlier_ones() -> None:
    found = made("lstm", ("glorot", Orthogonal(0.5), Chrono(20), ForgetBias(3.0)))
    assert found["f.x"].abs().max() <= math.sqrt(6.0 / (H + I))
    assert torch.allclose(found["f.h"] @ found["f.h"].T, 0.25 * EYE, atol=1e-12)
    assert (found["f.bias"] == 3.0).all()
    assert (found["i.bias"] <= 0.0).all()
    torch.manual_seed(5)
    alone = made("lstm", TorchUniform())
    torch.manual_seed(5)
    opened = made("lstm", (TorchUniform(), ForgetBias(1.0)))
    assert all(torch.equal(opened[n], alone[n]) == (n != "f.bias") for n in alone)


def test_reset_parameters_uses_it_again() -> None:
    layer = tg.Recurrent("gru", I, H, num_layers=2, bidirectional=True, init=(Orthogonal(), Chrono(50)))
    for place in ("l0", "l0_reverse", "l1", "l1_reverse"):
        name = f"{place}.z.bias"
        before = layer.get_parameter(name).detach().clone()
        layer.reset_parameters()
        after = layer.get_parameter(name)
        assert not torch.equal(before, after)
        assert (after > 0.0).all()
        assert (after <= math.log(49)).all()


@pytest.mark.parametrize("init", [None, ForgetBias(2.0), Chrono(20)])
def test_what_is_not_set_has_the_same_numbers_as_without_it(init: Any) -> None:
    torch.manual_seed(6)
    usual = made("lstm", None)
    torch.manual_seed(6)
    found = made("lstm", init)
    sets = init.sets("lstm") if init else []
    assert all(torch.equal(usual[n], found[n]) == (n not in sets) for n in usual)
    assert tg.Recurrent("lstm", I, H).init == ()


def test_repr_copies_and_files(tmp_path: Any) -> None:
    layer = tg.Recurrent("lstm", I, H, init=("orthogonal", Chrono(50)))
    assert "Cell(lstm: forget_bias=1.0), 3, 40, init=(Orthogonal(gain=1.0), Chrono(T_max=50))\n" in repr(layer)
    assert "init" not in repr(tg.Recurrent("lstm", I, H))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301 - our own
        assert twin.init == layer.init
        twin.reset_parameters()
        assert torch.equal(twin.get_parameter("l0.i.bias"), -twin.get_parameter("l0.f.bias"))
    tg.save(layer, tmp_path / "model")
    again = tg.load(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), again.parameters(), strict=True))


def test_a_layer_without_numbers() -> None:
    layer = tg.Recurrent("lstm", I, H, init="orthogonal", device="meta")
    assert layer.get_parameter("l0.f.h").is_meta
    layer.to_empty(device="cpu").reset_parameters()
    found = layer.get_parameter("l0.f.h").double()
    assert torch.allclose(found @ found.T, EYE, atol=1e-5)


def test_weights_that_others_are_made_of_are_drawn_with_them() -> None:
    """`s` of the phased LSTM lies in [0, tau), whatever was asked of matrices."""
    layer = tg.Recurrent(HARD["lstm_phased"], I, H, init=("torch_uniform", ForgetBias(2.0)))
    tau, s = layer.get_parameter("l0.tau"), layer.get_parameter("l0.s")
    assert (tau >= 1.0).all()
    assert (s < tau).all()
    assert (layer.get_parameter("l0.f.bias") == 2.0).all()


# Errors


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (3, "init must be an option of tidegate.init such as Orthogonal(), its name, or a tuple of these, got 3"),
        ((), "init must be an option of tidegate.init such as Orthogonal(), its name, or a tuple of these, got ()"),
        (
            ["glorot"],
            "init must be an option of tidegate.init such as Orthogonal(), its name, or a tuple of these, got "
            "['glorot']",
        ),
        (
            "Glorott",
            "unknown init 'Glorott': did you mean glorot? expected torch_uniform, glorot, orthogonal, identity, "
            "forget_bias, or Chrono with its number, as in tidegate.init.Chrono(200)",
        ),
        (
            "chrono",
            "unknown init 'chrono': expected torch_uniform, glorot, orthogonal, identity, forget_bias, or Chrono "
            "with its number, as in tidegate.init.Chrono(200)",
        ),
        (
            ("orthogonal", "torch_uniform"),
            "init=Orthogonal(gain=1.0) has no effect: a later option sets the same weights. Put it last or omit it",
        ),
        (
            (ForgetBias(2.0), Chrono(20)),
            "init=ForgetBias(value=2.0) has no effect: a later option sets the same weights. Put it last or omit it",
        ),
    ],
)
def test_what_is_no_init(init: Any, message: str) -> None:
    refused(message, tg.Recurrent, "lstm", I, H, init=init)


@pytest.mark.parametrize(
    ("call", "number", "message"),
    [
        (Glorot, 0.0, "the gain of Glorot must be a positive number, got 0.0"),
        (Orthogonal, "1", "the gain of Orthogonal must be a positive number, got '1'"),
        (Identity, math.inf, "the gain of Identity must be a positive number, got inf"),
        (ForgetBias, math.nan, "the value of ForgetBias must be a finite number, got nan"),
        (ForgetBias, True, "the value of ForgetBias must be a finite number, got True"),
        (Chrono, 2, "the T_max of Chrono must be a number of steps above 2, got 2"),
        (Chrono, None, "the T_max of Chrono must be a number of steps above 2, got None"),
    ],
)
def test_numbers(call: Any, number: Any, message: str) -> None:
    refused(message, call, number)


NO_GATE = "has no forget gate: no sigmoid multiplies an old state in that state's own update; omit it"


@pytest.mark.parametrize(
    ("name", "init", "message"),
    [
        ("elman", ForgetBias(2.0), f"init=ForgetBias(value=2.0) has no effect: cell 'elman' {NO_GATE}"),
        ("lstm_1997", Chrono(9), f"init=Chrono(T_max=9) has no effect: cell 'lstm_1997' {NO_GATE}"),
        (
            "lstm_projection",
            "identity",
            "init=Identity(gain=1.0) has no effect: cell 'lstm_projection' has no square matrix that multiplies a "
            "state; omit it",
        ),
        (
            HARD["qrnn"],
            "orthogonal",
            "init=Orthogonal(gain=1.0) has no effect: cell 'qrnn' has no matrix that multiplies a state; omit it",
        ),
        (
            HARD["recurrent_highway"](depth=2),
            "forget_bias",
            "init=ForgetBias(value=1.0) has no effect: cell 'recurrent_highway' keeps state 's' by the product of 2 "
            "gates (t~1, t); omit it",
        ),
        (
            HARD["fast_grnn"],
            Chrono(9),
            "init=Chrono(T_max=9) ties the bias of the forget gate 'z' to that of one input gate, but the input "
            "gates of state 'h' of cell 'fast_grnn' with a bias are: none. Use ForgetBias, which sets the forget "
            "gate alone",
        ),
    ],
)
def test_what_a_cell_does_not_have(name: Any, init: Any, message: str) -> None:
    refused(message, tg.Recurrent, name, I, H, init=init)


def test_cells_without_matrices_or_biases() -> None:
    @cell(states="c", inputs="x:H", source="a test")
    def bare(x, c):
        f = sigmoid(weight("a") * x)
        c = f * c + tanh(x)
        return c

    said = "has neither matrices nor linears with a bias; omit it"
    refused(f"init=TorchUniform() has no effect: cell 'bare' {said}", TorchUniform().sets, bare)
    said = "has no matrices; omit it"
    refused(f"init=Glorot(gain=1.0) has no effect: cell 'bare' {said}", Glorot().sets, bare)
    said = "has a forget gate 'f' without a bias; omit it"
    refused(f"init=ForgetBias(value=1.0) has no effect: cell 'bare' {said}", ForgetBias().sets, bare)


def test_two_input_gates() -> None:
    @cell(states="c", source="a test")
    def doubled(x, c):
        f, i, j = (sigmoid(linear(k, x)) for k in "fij")
        c = f * c + i * j * tanh(linear("g", x))
        return c

    refused(
        "init=Chrono(T_max=9) ties the bias of the forget gate 'f' to that of one input gate, but the input gates "
        "of state 'c' of cell 'doubled' with a bias are: i, j. Use ForgetBias, which sets the forget gate alone",
        Chrono(9).sets,
        doubled,
    )
