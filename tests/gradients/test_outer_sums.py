"""UORO in blocks of steps against a loop that carries the whole vector over weights, and its signs."""

import pytest
import torch
from torch import Tensor

from gradients.forward_cases import BATCH, difference, found
from layer_cases import make_layer
from tidegate.cells import CELLS
from tidegate.gradients import UORO, uoro
from tidegate.gradients.outer_sums import Additions
from tidegate.gradients.uoro import random_signs

STEPS, I, H = 11, 3, 5  # noqa: E741 - the project's word for the input size


def by_hand(weights: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Tallec & Ollivier 2017, algorithm 1, of h' = tanh(W x + R h + b), for the loss of `forward_cases`."""
    signs, tiny = random_signs(5, 0, STEPS, (BATCH, H), x), 1e-7
    total = torch.zeros(H, I + H + 1, dtype=x.dtype)
    for b in range(BATCH):
        h = s = torch.zeros(H, dtype=x.dtype)
        over_weights = torch.zeros_like(total)
        for t in range(STEPS):
            read = torch.cat([x[t, b], h, torch.ones(1, dtype=x.dtype)])
            h = torch.tanh(weights["x"] @ x[t, b] + weights["h"] @ h + weights["bias"])
            slope, sign = 1 - h * h, signs[t, b]
            moved, new = slope * (weights["h"] @ s), torch.outer(sign * slope, read)
            keep = torch.sqrt(over_weights.norm() / (moved.norm() + tiny)) + tiny
            drive = torch.sqrt(new.norm() / (sign.norm() + tiny)) + tiny
            s, over_weights = keep * moved + drive * sign, over_weights / keep + new / drive
            total += ((target[t, b] + 0.6 * h) @ s) * over_weights
    return {"x": total[:, :I], "h": total[:, I : I + H], "bias": total[:, -1]}


@pytest.mark.parametrize("block", [1, 3, 11, 64])
@pytest.mark.parametrize("every", [None, 4])
def test_blocks_are_what_a_loop_gives(block: int, every: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uoro, "BLOCK", block)
    layer = make_layer(CELLS["elman"], I, H)
    x = torch.randn(STEPS, BATCH, I, dtype=torch.float64)
    target = torch.randn(STEPS, BATCH, H, dtype=torch.float64)
    weights = {n.rpartition(".")[2]: p.detach() for n, p in layer.named_parameters()}
    right = by_hand(weights, x, target)
    named = {n: right[n.rpartition(".")[2]] for n, _ in layer.named_parameters()}
    assert difference(found(layer, x, target, UORO(every=every, seed=5)), named) < 1e-11


def test_signs_of_a_step_do_not_depend_on_where_a_call_begins() -> None:
    like = torch.zeros((), dtype=torch.float64)
    signs = random_signs(3, 0, 40, (3, 101), like)
    assert torch.equal(random_signs(3, 17, 23, (3, 101), like), signs[17:])
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / signs.numel() ** 0.5
    assert not torch.equal(random_signs(4, 0, 40, (3, 101), like), signs)
    assert abs(float((signs[1:] * signs[:-1]).mean())) < 4 / signs.numel() ** 0.5


def test_additions_whose_rows_read_different_vectors() -> None:
    T, B, rows, V = 4, 2, 6, 3
    given, read = torch.randn(T, B, rows, dtype=torch.float64), torch.randn(T, B, rows, V, dtype=torch.float64)
    outer, factors = torch.randn(B, rows, V, dtype=torch.float64), torch.randn(B, 1 + T, dtype=torch.float64)
    full = torch.cat([outer.unsqueeze(0), given.unsqueeze(-1) * read]).flatten(2)
    new = Additions.of(given, read)
    torch.testing.assert_close(new.products(outer), torch.einsum("tbw,ubw->btu", full[1:], full))
    torch.testing.assert_close(new.combined(outer, factors).flatten(1), torch.einsum("bt,tbw->bw", factors, full))
