"""Eligibility traces of tensors: kernels and torch's own operations agree, and what cannot be is said."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from tidegate.errors import ArgumentError, NativeError, TidegateNotice
from tidegate.native.eligibility.form import TraceForm
from tidegate.runtime import eligibility, support
from tidegate.runtime.bound_call import BoundCall
from tidegate.runtime.eligibility import TraceInputs, advance_traces, bind_traces, reference_traces

T, B, K, WIDTHS = 6, 3, 5, (4, 7)
V = sum(WIDTHS) + 1
FORM = TraceForm(2, ((0, 1), (1, 1)), (0, 1), (0,))
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-5}


def arguments(dtype: torch.dtype = torch.float64, steps: int = T, rows: int = B) -> dict[str, Any]:
    """Random tensors; the coefficients are columns of one."""
    columns = (0.5 * torch.randn(steps, rows, 5 * K, dtype=dtype)).split(K, 2)
    return {
        "e": torch.randn(rows, FORM.states, K, V, dtype=dtype),
        "d": columns[:2],
        "u": columns[2:4],
        "v": [torch.randn(steps, rows, width, dtype=dtype) for width in WIDTHS],
        "delta": columns[4:],
        "g": torch.randn(K, V, dtype=dtype),
        "bias": True,
    }


def run(given: dict[str, Any], **changes: Any) -> tuple[Tensor, Tensor]:
    """The traces and the gradient, in tensors of their own."""
    given = given | changes
    g = given["g"].clone()
    return advance_traces(inputs(given), given["e"], g), g


def inputs(given: dict[str, Any]) -> TraceInputs:
    """What the traces read of these arguments."""
    return TraceInputs(FORM, **{name: value for name, value in given.items() if name not in ("e", "g")})


def assert_close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[b.dtype])


@pytest.fixture
def unsaid() -> None:
    support.warn_once.cache_clear()


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("resetting", [False, True])
def test_kernels_agree_with_the_reference(dtype: torch.dtype, resetting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(dtype)
    if resetting:
        given["reset"] = torch.rand(T, B) < 0.3
    before = given["e"].clone()
    with support.disabled():
        expected = run(given)
    monkeypatch.setattr(eligibility, "reference_traces", None)
    assert_close(run(given), expected)
    assert torch.equal(given["e"], before)


def test_the_reference_is_the_rule() -> None:
    given = arguments(steps=1)
    reset = torch.tensor([[False, True, False]])
    e, g = given["e"] * ~reset[0].view(B, 1, 1, 1), given["g"].clone()
    found = reference_traces(inputs(given | {"reset": reset}), given["e"], g)
    v = torch.cat([*given["v"], torch.ones(1, B, 1, dtype=e.dtype)], 2)[0]
    d, u, delta = ([factor[0] for factor in given[name]] for name in ("d", "u", "delta"))
    for b in range(B):
        for k in range(K):
            c = d[1][b, k] * e[b, 1, k] + u[1][b, k] * v[b]
            h = d[0][b, k] * e[b, 1, k] + u[0][b, k] * v[b]
            torch.testing.assert_close(found[b, :, k], torch.stack([h, c]), rtol=0, atol=1e-14)
    added = torch.einsum("bk,bkj->kj", delta[0], found[:, 0])
    torch.testing.assert_close(g, given["g"] + added, rtol=0, atol=1e-13)


@pytest.mark.parametrize("uneven", ["d", "u", "v", "delta"])
def test_what_does_not_lie_evenly_is_copied(uneven: str) -> None:
    given = arguments()
    expected = run(given)
    mixed = [t.permute(2, 1, 0).contiguous().permute(2, 1, 0) for t in given[uneven]]
    assert all(torch.equal(a, b) for a, b in zip(run(given, **{uneven: mixed}), expected, strict=True))


def test_a_piece_may_be_one_row() -> None:
    given = arguments()
    row = given["v"][1][:1, :1]
    still, written = row.expand(T, B, -1), row.repeat(T, B, 1)
    found, expected = (run(given, v=[given["v"][0], piece]) for piece in (still, written))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_bias_alone() -> None:
    given = arguments()
    given |= {"e": given["e"][..., -1:], "g": given["g"][:, -1:].contiguous(), "v": []}
    with support.disabled():
        expected = run(given)
    assert_close(run(given), expected)


@pytest.mark.parametrize(("steps", "rows"), [(0, B), (T, 0), (0, 0)])
def test_nothing_to_do(steps: int, rows: int) -> None:
    given = arguments(steps=steps, rows=rows)
    for found, before in zip(run(given), (given["e"], given["g"]), strict=True):
        assert torch.equal(found, before)
        assert found is not before


def test_no_columns() -> None:
    given = arguments()
    e, g = run(given, e=given["e"][..., :0], g=given["g"][:, :0], v=[], bias=False)
    assert e.shape == (B, 2, K, 0)
    assert g.shape == (K, 0)


@pytest.mark.kernels
def test_a_bound_call_reads_the_tensors_it_is_pointed_to() -> None:
    example, given = arguments(), arguments()
    expected = run(given)
    end, g = torch.empty_like(given["e"]), given["g"].clone()

    def buffers(some: dict[str, Any]) -> list[Tensor]:
        whole = torch.cat([*some["d"], *some["u"], *some["delta"]], 2)
        return [some["e"].clone(), whole, *(v.clone() for v in some["v"])]

    def arranged(some: list[Tensor]) -> dict[str, Any]:
        columns = some[1].split(K, 2)
        return {"d": columns[:2], "u": columns[2:4], "v": some[2:], "delta": columns[4:]}

    first, later = buffers(example), buffers(given)
    spare = torch.empty_like(end)
    bind = bind_traces(inputs(arranged(first) | {"bias": True}), first[0], spare, example["g"])
    assert bind is not None
    call = BoundCall(bind, [*first, spare, example["g"]])
    for buffer in first:
        buffer.fill_(torch.nan)  # nothing is read from the examples
    call([t.data_ptr() for t in [*later, end, g]])
    assert torch.equal(end, expected[0])
    assert torch.equal(g, expected[1])


@pytest.mark.kernels
def test_what_would_be_copied_is_not_bound() -> None:
    given = arguments()
    given["v"][0] = given["v"][0].transpose(0, 1).contiguous().transpose(0, 1)
    end = torch.empty_like(given["e"])
    assert bind_traces(inputs(given), given["e"], end, given["g"]) is None


@pytest.mark.kernels
@pytest.mark.usefixtures("unsaid")
def test_without_kernels_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise NativeError("there is no LLVM")

    monkeypatch.setattr(eligibility, "trace_kernel", none)
    given = arguments()
    with support.disabled():
        expected = run(given)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(given)
        run(given)
    said = "a cell's eligibility traces are computed on the reference path: there is no LLVM"
    assert [(w.category, str(w.message)) for w in caught] == [(TidegateNotice, said)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.kernels
@pytest.mark.usefixtures("unsaid")
def test_other_types_are_the_reference_s() -> None:
    with pytest.warns(TidegateNotice) as caught:
        run(arguments(torch.bfloat16))
    assert [str(w.message) for w in caught] == [
        "a cell's eligibility traces are computed on the reference path: kernels are for float32 and float64, got "
        "weights of torch.bfloat16"
    ]


WRONG = {
    "g": "g must have the shape [5, 12] to match the other tensors, got [12, 5].",
    "e": "e must have the shape [3, 2, 5, 12] to match the other tensors, got [3, 1, 5, 12].",
    "v": "a piece of v must have the shape [6, 3, 4] to match the other tensors, got [5, 3, 4].",
    "u": "a coefficient must have the shape [6, 3, 5] to match the other tensors, got [6, 3, 4].",
    "reset": "reset must have the shape [6, 3] to match the other tensors, got [3, 6].",
}


@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_do_not_fit(name: str) -> None:
    given = arguments()
    wrong = {
        "g": given["g"].t().contiguous(),
        "e": given["e"][:, :1],
        "v": [given["v"][0][1:], given["v"][1]],
        "u": [given["u"][0], given["u"][1][:, :, 1:]],
        "reset": torch.zeros(B, T, dtype=torch.bool),
    }
    given[name] = wrong[name]
    with pytest.raises(ArgumentError) as error:
        advance_traces(inputs(given), given["e"], given["g"])
    assert str(error.value) == WRONG[name]


def test_other_arguments_that_do_not_fit() -> None:
    given = arguments()
    told = {
        "d": (given["d"][:1], f"{FORM} takes 2, 2 and 1 tensors in d, u and delta, got 1, 2 and 1."),
        "reset": (torch.zeros(T, B), "reset must be a tensor of bools, got torch.float32: pass reset.bool()."),
        "g": (
            given["g"].t().contiguous().t(),
            "g must be contiguous, since the gradient is added in place: pass a contiguous tensor.",
        ),
    }
    for name, (value, text) in told.items():
        changed = given | {name: value}
        with pytest.raises(ArgumentError) as error:
            advance_traces(inputs(changed), changed["e"], changed["g"])
        assert str(error.value) == text
