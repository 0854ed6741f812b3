"""What the array namespaces do beyond unit-by-unit operations: products, one-hots, blocks, groups; both alike."""

import numpy as np
import pytest
import torch

from tidegate.equations import Rate, Value, cell, concat, eye, linear, matrix, mean, spread, tanh, total
from tidegate.equations.values import constant
from tidegate.errors import ArgumentError
from tidegate.reference import Program, bound, evaluate, numpy_ops, step, torch_ops, weight_shape

SIZES = {"I": 6, "H": 4, "G": 2}


def alike(name, *arrays, **more):
    """The result on numpy, and the same on torch."""
    ours = getattr(numpy_ops, name)(*arrays, **more)
    given = [torch.from_numpy(np.ascontiguousarray(a)) if isinstance(a, np.ndarray) else a for a in arrays]
    theirs = getattr(torch_ops, name)(*given, **more)
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-14)
    return ours


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_product():
    matrix, vector = normal(4, 6), normal(5, 2, 6)
    expected = np.array(
        [[[sum(matrix[r, c] * v[c] for c in range(6)) for r in range(4)] for v in row] for row in vector]
    )
    np.testing.assert_allclose(alike("product", matrix, vector), expected, rtol=1e-12, atol=1e-14)


def test_product_in_blocks_is_that_of_the_matrix_written_out():
    blocks, vector = normal(3, 4, 2), normal(5, 6)
    full = alike("dense", blocks)
    assert full.shape == (12, 6)
    for r in range(12):
        for c in range(6):
            same = r // 4 == c // 2
            assert full[r, c] == (blocks[r // 4, r % 4, c % 2] if same else 0)
    np.testing.assert_allclose(alike("product", blocks, vector), vector @ full.T, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(4, 6), (2, 2, 3)])
def test_integers_are_one_hots(shape):
    matrix, index = normal(*shape), np.array([[0, 5, 3], [2, 2, 1]])
    picked = alike("product", matrix, index)
    one_hot = np.eye(6)[index]
    np.testing.assert_allclose(picked, alike("product", matrix, one_hot), rtol=1e-13)


def test_a_step_on_one_hots():
    @cell(states="h", source="a test")
    def words(x, h):
        return tanh(linear("a", x, h, blocks={"x": 2}))

    graph = words.graph
    weights = {name: normal(*weight_shape(w, SIZES)) for name, w in graph.weights.items()}
    index, h = np.array([3, 0, 5]), normal(3, 4)
    for xp, make in ((numpy_ops, np.asarray), (torch_ops, torch.from_numpy)):
        given = {k: make(v) for k, v in weights.items()}
        by_index, _ = step(graph, given, {"x": make(index)}, {"h": make(h)}, xp, SIZES)
        by_product, _ = step(graph, given, {"x": make(np.eye(6)[index])}, {"h": make(h)}, xp, SIZES)
        assert by_index.shape == (3, 4)
        np.testing.assert_allclose(np.asarray(by_index), np.asarray(by_product), rtol=1e-13)


def test_groups_are_neighbours():
    v = np.arange(8.0).reshape(2, 4)
    assert alike("total", v, 2).tolist() == [[1.0, 5.0], [9.0, 13.0]]
    assert alike("total", v, 1).tolist() == [[6.0], [22.0]]
    assert alike("spread", np.array([[1.0, 2.0]]), 4).tolist() == [[1.0, 1.0, 2.0, 2.0]]
    assert alike("spread", np.array([[3.0]]), 2).tolist() == [[3.0, 3.0]]
    assert alike("mean", v).tolist() == [[1.5], [5.5]]


def test_concatenation_broadcasts_the_batch():
    joined = numpy_ops.concat([normal(3, 2), normal(4)])
    theirs = torch_ops.concat([torch.from_numpy(normal(3, 2)), torch.from_numpy(normal(4))])
    assert joined.shape == (3, 6)
    assert np.array_equal(joined, theirs.numpy())


def test_what_derivatives_use():
    a, b, m = normal(5, 4), normal(5, 6), normal(5, 4, 6)
    np.testing.assert_allclose(alike("outer", a, b), np.einsum("br,bc->brc", a, b))
    blocked = alike("outer", a, b, 2)
    np.testing.assert_allclose(
        blocked, np.stack([np.einsum("br,bc->brc", a[:, :2], b[:, :3]), np.einsum("br,bc->brc", a[:, 2:], b[:, 3:])], 1)
    )
    assert np.array_equal(alike("diagonal", a)[2], np.diag(a[2]))
    assert np.array_equal(alike("part", b, 1, 3), b[:, 1:4])
    assert np.array_equal(alike("column", a) * m, m * a[:, :, None])
    assert np.array_equal(alike("row", b) * m, m * b[:, None, :])
    np.testing.assert_allclose(alike("total_rows", m, 2), m.reshape(5, 2, 2, 6).sum(2))
    assert np.array_equal(alike("spread_rows", m, 8), np.repeat(m, 2, axis=1))
    np.testing.assert_allclose(alike("total_matrix", m), [m.sum()])
    assert np.array_equal(alike("transpose", m), m.swapaxes(1, 2))
    assert numpy_ops.diagonal(a.astype(np.float32)).dtype == np.float32


def test_words_across_units_in_a_cell():
    @cell(states="h", output="y", source="a test")
    def across(x, h):
        groups = total(h, to="G")
        h = tanh(linear("a", x) + spread(groups) * mean(x)) + (matrix("M") - 2.0 * eye()) @ h
        return concat(groups, h, mean(h)), h

    graph = across.graph
    weights = {name: normal(*weight_shape(w, SIZES)) for name, w in graph.weights.items()}
    x, h = normal(3, 6), normal(3, 4) + 1
    y, new = step(graph, weights, {"x": x}, {"h": h}, numpy_ops, SIZES)
    groups = np.stack([h[:, 0] + h[:, 1], h[:, 2] + h[:, 3]], 1)
    net = x @ weights["a.x"].T + weights["a.bias"] + groups[:, [0, 0, 1, 1]] * x.mean(1, keepdims=True)
    expected = np.tanh(net) + h @ (weights["M"] - 2 * np.eye(4)).T
    np.testing.assert_allclose(new["h"], expected, rtol=1e-12)
    np.testing.assert_allclose(y, np.concatenate([groups, expected, expected.mean(1, keepdims=True)], 1), rtol=1e-12)


def test_numbers_become_states_of_the_right_type():
    @cell(states="h | first:1=1", source="a test")
    def starts(x, h, first):
        h = tanh(linear("a", x, h)) * first
        return h, 0.0

    for kind in ("float32", "float64"):
        arrays = {name: normal(*weight_shape(w, SIZES)).astype(kind) for name, w in starts.graph.weights.items()}
        states = {"h": normal(3, 4).astype(kind), "first": np.ones((3, 1), kind)}
        _, new = step(starts.graph, arrays, {"x": normal(3, 6).astype(kind)}, states, numpy_ops, SIZES)
        assert (new["first"].shape, new["first"].dtype) == ((3, 1), kind)
        tensors = (
            {k: torch.from_numpy(v) for k, v in d.items()} for d in (arrays, {"x": normal(3, 6).astype(kind)}, states)
        )
        _, new = step(starts.graph, *tensors, torch_ops, SIZES)
        assert str(new["first"].dtype) == f"torch.{kind}"


def test_programs_compute_only_what_is_asked_and_not_given():
    a = Value("input", (), ("H",), Rate.INPUT, name="a")
    b, unused = Value("exp", (a,), ("H",)), Value("log", (a,), ("H",))
    c = Value("add", (b, constant(1.0)), ("H",))
    env = {a: np.zeros(2)}
    assert Program([c])(numpy_ops, {}, env)[0].tolist() == [2.0, 2.0]
    assert unused not in env
    assert Program([c], given=[b])(numpy_ops, {}, {b: np.ones(2)})[0].tolist() == [2.0, 2.0]
    assert evaluate([a], {a: 3.0}, numpy_ops, {}) == [3.0]


def test_errors():
    with pytest.raises(ArgumentError) as caught:
        bound(("H+Q",), SIZES)
    assert str(caught.value) == "size Q is not bound: give it a number, as in Q=8"
    blocked = Value("weight", (), ("H", "I"), Rate.WEIGHTS, name="i.x", learn=True, blocks=4)
    with pytest.raises(ArgumentError) as caught:
        weight_shape(blocked, SIZES)
    assert str(caught.value) == "weight 'i.x' of 4 x 6 cannot be cut into 4 blocks: choose sizes divisible by 4"
    draw = Value("uniform", (constant(0.0), constant(1.0)), ())
    with pytest.raises(ArgumentError) as caught:
        evaluate([draw], {}, numpy_ops, SIZES)
    assert str(caught.value) == "uniform is not computed here: give its value in the environment"
    with pytest.raises(ArgumentError) as caught:
        evaluate([blocked], {}, numpy_ops, SIZES)
    assert str(caught.value) == "weight is not computed here: give its value in the environment"
