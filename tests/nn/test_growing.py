"""A cell's steps with a vector that grows between them, against a loop over rows and steps in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tidegate.equations import cell, concat, linear, sqrt, tanh, total
from tidegate.native import _llvm
from tidegate.native.outer_kernel import OuterKernel
from tidegate.native.target import TARGETS
from tidegate.nn import growing
from tidegate.nn.growing import Course, Growing, grow, shares
from tidegate.runtime import support
from tidegate.runtime.kernel_call import DTYPES
from tidegate.runtime.unroll import Unroll

SIZES = {"I": 3, "H": 5}


@cell(states="h norm:1", inputs="x", output="out", source="a test: it reads how large the vector is, and says by what")
def measured(x, h, norm):
    h = tanh(linear("h", x, h) * (1.0 + norm / (1.0 + norm)))
    keep = 0.5 + sqrt(norm / (1.0 + total(h * h)))
    return concat(h, keep), h, norm


def by_hand(
    weights: dict[str, Tensor], x: Tensor, h: Tensor, norm: float, once: Tensor, vector: list[list[Growing]]
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """One row of the batch; `vector` has the parts of each block apart."""
    found, outer = [], [[p.outer.clone() for p in block] for block in vector]
    for t in range(len(x)):
        h = torch.tanh((weights["h.x"] @ x[t] + weights["h.h"] @ h + weights["h.bias"]) * (1 + norm / (1 + norm)))
        keep = 0.5 + math.sqrt(norm / (1 + float(h @ h)))
        for block, before in zip(vector, outer, strict=True):
            for i, p in enumerate(block):
                before[i] = before[i] / keep + once[t] * torch.outer(p.rows[t], p.read[t])
        norm = math.sqrt(sum(float(o.square().sum()) for before in outer for o in before))
        found.append(torch.cat([h, torch.tensor([keep], dtype=h.dtype)]))
    return found, outer


@pytest.fixture(params=[None, *TARGETS])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reference path, and kernels for each target that can run here."""
    if request.param is None:
        with support.disabled():
            yield
        return
    target = TARGETS[request.param]
    if missing := [f for f in target.needs if f not in _llvm.host_features()]:
        pytest.skip(f"this machine has no {', '.join(missing)}")
    kernels = {dtype: OuterKernel(name, target) for dtype, name in DTYPES.items()}
    monkeypatch.setattr(growing, "outer", kernels.get)
    yield


@pytest.mark.parametrize(("T", "B"), [(1, 1), (4, 1), (11, 1), (7, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("path")
def test_as_a_loop(dtype: torch.dtype, T: int, B: int) -> None:
    run = Unroll(measured.graph, SIZES)
    weights = {n: 0.5 * torch.randn(w) for n, w in {"h.x": (5, 3), "h.h": (5, 5), "h.bias": (5,)}.items()}
    x, once = torch.randn(T, B, 8)[..., 2:5], 0.5 + torch.rand(B, T).T
    shapes = [(1, 1, 1), (1, 6, 16), (1, 9, 37), (3, 2, 19), (1, 4, 3)]  # parts, rows, columns
    blocks = [
        Growing(
            torch.randn(B * n, r, v),
            torch.randn(T, B * n, r + 2)[..., 1:-1].transpose(0, 1),
            torch.randn(B * n, T, v),
            n,
        )
        for n, r, v in shapes
    ]
    size = torch.cat([p.outer.double().reshape(B, -1) for p in blocks], 1).norm(dim=1, keepdim=True)
    begin = {"h": torch.randn(B, 5), "norm": size}
    given = [Growing(p.outer.to(dtype, copy=True), p.rows.to(dtype), p.read.to(dtype), p.parts) for p in blocks]
    state, found = {n: s.to(dtype, copy=True) for n, s in begin.items()}, torch.empty(T, B, 6, dtype=dtype)
    course = Course({"x": x.to(dtype)}, state, found, once.to(dtype))
    grow(run, {n: w.to(dtype) for n, w in weights.items()}, course, given)
    near = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    for b in range(B):
        apart = [
            [Growing(*(t[b * p.parts + i].double() for t in (p.outer, p.rows, p.read)), 1) for i in range(p.parts)]
            for p in blocks
        ]
        named = {n: w.double() for n, w in weights.items()}
        wanted, outer = by_hand(
            named, x[:, b].double(), begin["h"][b].double(), float(size[b]), once[:, b].double(), apart
        )
        torch.testing.assert_close(found[:, b].double(), torch.stack(wanted), **near)
        torch.testing.assert_close(state["h"][b].double(), wanted[-1][:5], **near)
        for p, block in zip(given, outer, strict=True):
            for i, o in enumerate(block):
                torch.testing.assert_close(p.outer[b * p.parts + i].double(), o, **near)
        square = sum(float(o.square().sum()) for block in outer for o in block)
        torch.testing.assert_close(float(state["norm"][b]), math.sqrt(square), **near)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("T", "B"), [(1, 1), (6, 3)])
def test_shares(T: int, B: int) -> None:
    keep = (0.5 + torch.rand(T, B, 4, dtype=torch.float64))[..., 2]
    once, share = (torch.randn(B, T, dtype=torch.float64).T for _ in range(2))
    of_each, of_first = shares(keep, once, share)
    added = torch.zeros(T, B, dtype=torch.float64)
    before, whole = torch.zeros(B, dtype=torch.float64), torch.ones(B, dtype=torch.float64)
    for t in range(T):
        whole = whole / keep[t]
        before += share[t] * whole
        factor = once[t].clone()
        for later in range(t, T):
            added[t] += share[later] * factor
            if later + 1 < T:
                factor = factor / keep[later + 1]
    torch.testing.assert_close(of_each, added)
    torch.testing.assert_close(of_first, before)


@pytest.mark.parametrize(("T", "B"), [(1, 1), (6, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("path")
def test_squares_of_what_is_added(dtype: torch.dtype, T: int, B: int) -> None:
    kernel = growing.outer(dtype) if support.enabled() else None
    if kernel is None:
        pytest.skip("a call that is made again and again has no reference path")
    shapes = [(1, 1, 1), (1, 6, 16), (1, 9, 37), (3, 2, 19)]  # parts, rows, columns
    vector = [
        Growing(
            torch.empty(B * n, r, v, dtype=dtype),
            torch.randn(T, B * n, r + 2, dtype=dtype)[..., 1:-1].transpose(0, 1),
            torch.randn(B * n, T, v, dtype=dtype),
            n,
        )
        for n, r, v in shapes
    ]
    found = torch.empty(T, B, dtype=dtype)
    measure = growing.bind_squares(kernel, vector, found)
    for _ in range(2):
        measure()
        wanted = torch.zeros(B, T, dtype=torch.float64)
        for p in vector:
            each = p.rows.double().unsqueeze(3) * p.read.double().unsqueeze(2)
            wanted += each.square().sum((2, 3)).view(B, p.parts, T).sum(1)
        torch.testing.assert_close(found.double(), wanted.T, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0.0)
        for p in vector:
            p.rows.mul_(0.7)
