"""Sums over units, their reverse, rows gathered: against numpy, without a stray access, the same bits everywhere."""

import numpy as np
import pytest

from native_calls import Calls, calls, everywhere, guarded, rows_of

SIZES = [(1, 1), (7, 1), (16, 1), (37, 1), (100, 1), (100, 2), (100, 50), (96, 3), (6, 6)]


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Calls:
    return calls(*request.param)


@everywhere
@pytest.mark.parametrize(("units", "groups"), SIZES)
def test_total(call: Calls, units: int, groups: int) -> None:
    a, c = call.some(5, units), call.some(5, groups)
    call("total", 5, a, units, units, groups, c, groups)
    assert call.close(c, a.astype(float).reshape(5, groups, -1).sum(2), units)


@everywhere
def test_total_touches_only_its_own(call: Calls) -> None:
    a, c = call.some(3, 40), call.some(3, 9)
    before = c.copy()
    call("total", 3, a, 40, 36, 4, c, 9)
    assert call.close(c[:, :4], a[:, :36].astype(float).reshape(3, 4, 9).sum(2), 9)
    assert np.array_equal(c[:, 4:], before[:, 4:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("units", "groups"), SIZES)
def test_total_has_the_same_bits_on_every_target(dtype: str, units: int, groups: int) -> None:
    found = []
    for name in ("avx512", "avx2"):
        call = calls(name, dtype)
        a = np.random.default_rng(1).standard_normal((4, units)).astype(dtype)
        c = np.zeros((4, groups), dtype)
        call("total", 4, a, units, units, groups, c, groups)
        found.append(c)
    assert np.array_equal(*found)


@everywhere
def test_total_of_one_group_is_16_sums_side_by_side(call: Calls) -> None:
    a, c = call.some(1, 100), call.some(1, 1)
    sums = np.zeros(16, call.dtype)
    for start in range(0, 100, 16):
        part = a[0, start : start + 16]
        sums[: part.size] += part
    while sums.size > 1:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    call("total", 1, a, 100, 100, 1, c, 1)
    assert c[0, 0] == sums[0]


@everywhere
@pytest.mark.parametrize(("units", "groups"), SIZES)
def test_spread(call: Calls, units: int, groups: int) -> None:
    a, c = call.some(5, groups), call.some(5, units)
    call("spread", 5, a, groups, groups, units, c, units)
    assert np.array_equal(c, np.repeat(a, units // groups, axis=1))


@everywhere
def test_spread_touches_only_its_own(call: Calls) -> None:
    a, c = call.some(3, 5), call.some(3, 50)
    before = c.copy()
    call("spread", 3, a, 5, 4, 36, c, 50)
    assert np.array_equal(c[:, :36], np.repeat(a[:, :4], 9, axis=1))
    assert np.array_equal(c[:, 36:], before[:, 36:])


@everywhere
@pytest.mark.parametrize("width", [1, 7, 16, 37, 100])
def test_gather(call: Calls, width: int) -> None:
    rows, c = [call.some(width) for _ in range(4)], call.some(4, width + 3)
    before = c.copy()
    pointers = guarded(np.array([row.ctypes.data for row in rows], np.int64))
    call("gather", 4, pointers, width, c, width + 3)
    assert np.array_equal(c[:, :width], np.stack(rows))
    assert np.array_equal(c[:, width:], before[:, width:])


@everywhere
def test_no_rows(call: Calls) -> None:
    a = call.some(2, 8)
    before = a.copy()
    call("total", 0, a, 8, 8, 1, a, 8)
    call("spread", 0, a, 8, 1, 8, a, 8)
    call("gather", 0, rows_of(a), 8, a, 8)
    assert np.array_equal(a, before)
