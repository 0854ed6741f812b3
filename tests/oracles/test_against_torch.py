"""The oracles themselves, held against torch's modules where torch has the cell, and against each other elsewhere."""

import pytest
import torch
from torch import Tensor, nn

from . import ORACLES, slstm_unstabilised, unroll

T, B, N_IN, H, P = 6, 3, 4, 5, 2


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def parts(module: nn.Module, layout: dict[str, int], gates: int) -> dict[str, Tensor]:
    """Torch's stacked tensors taken apart: gate name -> the rows of its place, with the two biases added."""
    w = {}
    for name, place in layout.items():
        w[f"{name}.x"] = module.weight_ih_l0.chunk(gates)[place]
        w[f"{name}.h"] = module.weight_hh_l0.chunk(gates)[place]
        w[f"{name}.bias"] = module.bias_ih_l0.chunk(gates)[place] + module.bias_hh_l0.chunk(gates)[place]
    return w


def same(ours: Tensor, theirs: Tensor) -> None:
    assert torch.max((ours - theirs).abs()) < 1e-14


def a_sequence() -> Tensor:
    return torch.randn(T, B, N_IN, dtype=torch.float64)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_elman(activation: str) -> None:
    x = a_sequence()
    module = nn.RNN(N_IN, H, nonlinearity=activation).double()
    h = torch.randn(B, H, dtype=torch.float64)
    ours, last = unroll(
        ORACLES["elman" if activation == "tanh" else "elman_relu"], parts(module, {"h": 0}, 1), {"x": x}, {"h": h}
    )
    theirs, h_n = module(x, h[None])
    same(ours, theirs)
    same(last["h"], h_n[0])


@pytest.mark.parametrize("projected", [False, True])
def test_lstm(projected: bool) -> None:
    x, out = a_sequence(), P if projected else H
    module = nn.LSTM(N_IN, H, proj_size=P if projected else 0).double()
    start = {"h": torch.randn(B, out, dtype=torch.float64), "c": torch.randn(B, H, dtype=torch.float64)}
    w = parts(module, {"i": 0, "f": 1, "g": 2, "o": 3}, 4)
    if projected:
        w["p.m"] = module.weight_hr_l0
        ours, last = unroll(ORACLES["lstm_projection"], w, {"x": x}, start, peepholes=False)
    else:
        ours, last = unroll(ORACLES["lstm"], w, {"x": x}, start)
    theirs, (h_n, c_n) = module(x, (start["h"][None], start["c"][None]))
    same(ours, theirs)
    same(last["h"], h_n[0])
    same(last["c"], c_n[0])


def test_gru_reset_after() -> None:
    x = a_sequence()
    module = nn.GRU(N_IN, H).double()
    w = parts(module, {"r": 0, "z": 1}, 3)
    w["n.x"], w["n.bias"] = module.weight_ih_l0.chunk(3)[2], module.bias_ih_l0.chunk(3)[2]
    w["m.h"], w["m.bias"] = module.weight_hh_l0.chunk(3)[2], module.bias_hh_l0.chunk(3)[2]
    h = torch.randn(B, H, dtype=torch.float64)
    ours, _ = unroll(ORACLES["gru_reset_after"], w, {"x": x}, {"h": h})
    same(ours, module(x, h[None])[0])


def test_gru_resets_before_the_product() -> None:
    """With the recurrent matrix of the candidate diagonal, it does not matter where the reset stands."""
    x = a_sequence()
    w = {k: v for g in "rzn" for k, v in random_linear(g).items()}
    w["n.h"] = torch.diag(torch.diag(w["n.h"]))
    after = {k: v for k, v in w.items() if k != "n.h"} | {"m.h": w["n.h"], "m.bias": torch.zeros(H).double()}
    start = {"h": torch.randn(B, H, dtype=torch.float64)}
    ours, _ = unroll(ORACLES["gru"], w, {"x": x}, start)
    same(ours, unroll(ORACLES["gru_reset_after"], after, {"x": x}, start)[0])


def random_linear(name: str) -> dict[str, Tensor]:
    shapes = {"x": (H, N_IN), "h": (H, H), "bias": (H,)}
    return {f"{name}.{label}": torch.randn(shape, dtype=torch.float64) for label, shape in shapes.items()}


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_slstm_output_does_not_depend_on_the_stabiliser(forget: str) -> None:
    heads, size = 2, 6
    w = {}
    for gate in "zoif":
        w[f"{gate}.x"] = torch.randn(size, N_IN, dtype=torch.float64)
        w[f"{gate}.h"] = torch.randn(heads, size // heads, size // heads, dtype=torch.float64)
        w[f"{gate}.bias"] = torch.randn(size, dtype=torch.float64)
    zero = torch.zeros(B, size, dtype=torch.float64)
    start = {"h": zero, "c": zero, "n": zero, "m": torch.full_like(zero, -1e9)}
    x = {"x": a_sequence()}
    stable, _ = unroll(ORACLES["slstm"], w, x, start, forget=forget)
    plain, _ = unroll(slstm_unstabilised, w, x, start, forget=forget)
    assert torch.max((stable - plain).abs()) < 1e-12


def a_start(*names: str) -> dict[str, Tensor]:
    return {name: torch.randn(B, H, dtype=torch.float64) for name in names}


def test_peephole_cell_without_peepholes_is_the_lstm() -> None:
    w = {k: v for g in "ifgo" for k, v in random_linear(g).items()}
    x, start = {"x": a_sequence()}, a_start("h", "c")
    peeps = {f"p_{g}": torch.zeros(H, dtype=torch.float64) for g in "ifo"}
    same(unroll(ORACLES["lstm"], w, x, start)[0], unroll(ORACLES["lstm_peephole"], w | peeps, x, start)[0])


def test_blocks_of_one_cell_without_feedback_are_the_lstm_of_1997() -> None:
    w = {k: v for g in "igo" for k, v in random_linear(g).items()}
    deaf = {f"{g}.{label}": torch.zeros(H, H, dtype=torch.float64) for g in "igo" for label in "io"}
    x, start = {"x": a_sequence()}, a_start("h", "c", "i", "o")
    same(unroll(ORACLES["lstm_1997"], w, x, start)[0], unroll(ORACLES["lstm_blocks_1997"], w | deaf, x, start)[0])


def test_clockwork_of_one_module_is_elman() -> None:
    w = random_linear("h")
    x, start = {"x": a_sequence()}, a_start("h") | {"n": torch.zeros(B, 1, dtype=torch.float64)}
    same(
        unroll(ORACLES["elman"], w, x, start)[0],
        unroll(ORACLES["clockwork"], w | {"U": w["h.h"]}, x, start, groups=1)[0],
    )


def test_augru_at_full_attention_is_a_gru_whose_update_gate_is_turned_round() -> None:
    w = {k: v for g in "run" for k, v in random_linear(g).items()} | {"m.h": random_linear("m")["m.h"]}
    turned = {k: v for k, v in w.items() if k[0] != "u"} | {"m.bias": torch.zeros(H, dtype=torch.float64)}
    turned |= {k.replace("u", "z", 1): -v for k, v in w.items() if k[0] == "u"}
    x, start = a_sequence(), a_start("h")
    attended = unroll(ORACLES["augru"], w, {"x": x, "a": torch.ones(T, B, 1, dtype=torch.float64)}, start)[0]
    same(attended, unroll(ORACLES["gru_reset_after"], turned, {"x": x}, start)[0])
