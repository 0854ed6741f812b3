"""Slips inside a cell: each is refused with its whole text, at the user's own line."""

# ruff: noqa: E501 - a slip and the whole of what is said of it stand on one line

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from slips import complaint_within
from tidegate.equations import (
    cell,
    clip_gradient,
    concat,
    eye,
    floor,
    function,
    identity,
    layer_norm,
    linear,
    matrix,
    maximum,
    mean,
    named,
    normal,
    orthogonal,
    position,
    rms_norm,
    sigmoid,
    spread,
    tanh,
    total,
    uniform,
    weight,
    where,
)

TRUTH = (
    "a value of a cell is neither true nor false while the equations are read: for 'if' write where(condition, a, b); "
    "for 'and' multiply the conditions; for 'a < b < c' write (a < b) * (b < c); for max() and min() write "
    "maximum(a, b) and minimum(a, b)"
)
NUMBER = (
    "a value of a cell is not a number while the equations are read: instead of math.exp, float() and the like use the "
    "words of tidegate.equations (exp, log, sqrt, ...)"
)
ITEMS = (
    "a value of a cell has no items and no length, since an equation describes all units at once: for sums over units "
    "write total(v) or mean(v) (a state array is a Python list and has both)"
)
CONDITIONS = (
    "conditions of a cell are 1 or 0 and have no &, | and ~: write a * b for 'a and b', maximum(a, b) for 'a or b', and "
    "1 - a for 'not a'"
)
QUOTIENT = "a value of a cell has no // and no divmod(): write floor(a / b) for the quotient, a % b for the remainder"
WORDS = "words of tidegate.equations, such as tanh(v), where(a, b, c), total(v)"
TENSORS = "numbers, weight(name) and matrix(name) in the place of tensors"
ARRAY = "a value of a cell cannot become a numpy array: use the words of tidegate.equations instead"


def cannot(name: str, instead: str) -> str:
    return f"{name} cannot be applied to a value of a cell: write {instead}"


def no_operand(what: str, kind: str) -> str:
    return (
        f"{what} of type {kind} cannot be used in an equation: values are numbers, inputs, states, weights and what is "
        "computed from them"
    )


def differ(a: str, b: str) -> str:
    return (
        f"sizes differ: one operand is {a}, the other {b}; sizes are equal only if they are the same letter (a product "
        "such as linear(...) or matrix(...) @ v changes a size; declare a size in the header, as in inputs='x:H')"
    )


def bad_name(what: str, came: str) -> str:
    return (
        f"{what} must begin with a letter or underscore, followed by at most 63 letters, digits or underscores, got "
        f"{came}"
    )


def bad_size(came: str) -> str:
    return (
        f"a size must be a capital letter or 1, got {came}: a layer binds letters to numbers, as in "
        "Recurrent(cell, 8, 64, S=32), and each gate has a linear(...) of its own"
    )


def matrix_size(came: str) -> str:
    return (
        f"size {came} is that of a matrix: inputs and states are vectors; for several vectors declare a state array, as "
        "in states='h c*4', for sums of products write total(a * b), and for a matrix of weights matrix(name, rows, cols)"
    )


def no_left_matrix(found: str, way: str = "write matrix(...) @ v") -> str:
    return (
        f"the left side of @ must be a matrix of weights, got {found}: {way}, or for the inner product of two vectors "
        "total(a * b)"
    )


def bad_start(name: str, came: str) -> str:
    return (
        f"the initial value of weight {name!r} must be a number, an initialiser such as uniform(-1, 1), or an "
        f"expression of these and of weights declared before, got {came}"
    )


def other_start(name: str, size: str, came: str) -> str:
    return (
        f"weight {name!r} has size {size}, but its initial value {came}: give a number, an initialiser, or an expression "
        "of the weight's own size"
    )


def changing_start(name: str, rate: str) -> str:
    return (
        f"the initial value of weight {name!r} depends on the {rate}: it may use numbers, initialisers and weights "
        "declared before"
    )


def matrix_start(word: str) -> str:
    return f"weight 'q' is a vector, but {word} is for matrices: use uniform, normal, ramp or position()"


def unlabelled(label: str) -> str:
    return (
        "linear 'q': only inputs and old states may be given without a label, and this vector is computed: name its "
        f"weight, as in linear('q', ..., {label}=...)"
    )


def no_vector(came: str) -> str:
    return (
        f"linear 'q' takes vectors, got {came}: give inputs and states one by one (a state array as *u), and the "
        "initial bias as bias=..."
    )


def in_step(word: str) -> str:
    return f"cell 'step' uses {word}() in its step, but it is for init= and bias= only"


def exists(name: str) -> str:
    return (
        f"weight {name!r} is declared twice: choose another name, or, to use one weight in two places, declare it once, "
        "as in W = matrix(...), and write W @ v in both"
    )


def both(name: str, group: str) -> str:
    return f"weight {name!r}: {group!r} cannot be both a weight and the name of a linear: choose another"


def taken(what: str, name: str) -> str:
    return f"{what} cannot be {name!r}, which is an attribute of torch.nn.Module: choose another"


def not_finite(came: str) -> str:
    return f"a constant must be a finite number, got {came}: use a large number such as 1e9"


def columns(left: str, right: str) -> str:
    return (
        f"the matrix has {left} columns, but what it multiplies has {right} rows: they must be the same letter, so "
        "declare the matrix with these, as in matrix(name, rows='H', cols='I')"
    )


def is_leaf(what: str) -> str:
    return f"named('m', ...) takes a computed value, got {what}, which prints by its own name or value"


CONCATENATION = (
    "cell 'step' uses concat(...) within the step, but it is for the output only: give a linear its vectors one by one, "
    "as in linear(name, x, c=c)"
)
NO_MATRIX_STATES = "matrix states are not part of the language yet"
BLOCKS = "linear 'q': blocks must be a whole number of 1 or more, got "
NORMALISES = "layer_norm(name, ...) takes vectors of one size, got "
LEARN = "weight 'q': learn must be True for a weight or False for a buffer, got "
BIAS = "linear 'q': bias must be an initial number such as 0.0, or None for no bias, got "
VALUE = "the name of a value"
WEIGHT = "the name of a weight"

# fmt: off
PYTHON = [
    (lambda x, h: h if x > 0 else x, TRUTH),
    (lambda x, h: x and h, TRUTH),
    (lambda x, h: not h, TRUTH),
    (lambda x, h: 0 < h < 1, TRUTH),
    (lambda x, h: max(h, 0), TRUTH),
    (lambda x, h: min(0, h), TRUTH),
    (lambda x, h: sorted([h, h]), TRUTH),
    (lambda x, h: h in [1, 2], TRUTH),
    (lambda x, h: math.exp(h), NUMBER),
    (lambda x, h: math.floor(h), NUMBER),
    (lambda x, h: math.trunc(h), NUMBER),
    (lambda x, h: float(h), NUMBER),
    (lambda x, h: int(h), NUMBER),
    (lambda x, h: complex(h), NUMBER),
    (lambda x, h: range(h), NUMBER),
    (lambda x, h: [1, 2][h], NUMBER),
    (lambda x, h: h[0], ITEMS),
    (lambda x, h: h[1:], ITEMS),
    (lambda x, h: h.__setitem__(0, 1), ITEMS),
    (lambda x, h: list(h), ITEMS),
    (lambda x, h: sum(h), ITEMS),
    (lambda x, h: len(h), ITEMS),
    (lambda x, h: 1 in h, ITEMS),
    (lambda x, h: [*h], ITEMS),
    (lambda x, h: round(h, 2), "a value of a cell cannot be rounded by round(): write floor(v + 0.5)"),
    (lambda x, h: h // 2, QUOTIENT),
    (lambda x, h: 2 // h, QUOTIENT),
    (lambda x, h: divmod(h, 2), QUOTIENT),
    (lambda x, h: (h > 0) & (h < 1), CONDITIONS),
    (lambda x, h: (h > 0) | True, CONDITIONS),
    (lambda x, h: ~(h > 0), CONDITIONS),
    (lambda x, h: h.tanh(), cannot(".tanh", "tanh(v)")),
    (lambda x, h: h.T, ".T is for a matrix of weights, got H: a vector needs no transpose"),
    (lambda x, h: h + None, no_operand("None", "NoneType")),
    (lambda x, h: h + "a", no_operand("'a'", "str")),
    (lambda x, h: h + True, no_operand("True", "bool")),
    (lambda x, h: h == None, no_operand("None", "NoneType")),  # noqa: E711 - the slip
    (lambda x, h: h * Decimal(1), no_operand("Decimal('1')", "Decimal")),
    (lambda x, h: h * 1j, no_operand("1j", "complex")),
    (lambda x, h: h * tanh, no_operand("the function tanh", "function")),
    (lambda x, h: h * Decimal, no_operand("the class Decimal", "type")),
    (lambda x, h: h + ["long"] * 40, no_operand("[" + "'long', " * 9 + "'lon...", "list")),
    (lambda x, h: h * math.inf, not_finite("inf")),
    (lambda x, h: h + math.nan, not_finite("nan")),
    (lambda x, h: h * 10**400, not_finite("1" + "0" * 76 + "...")),
    (lambda x, h: where(True, h, x), no_operand("True", "bool")),
    (lambda x, h: sigmoid([h]), no_operand("[<h: H, state>]", "list")),
]
ARRAYS = [
    (lambda x, h: np.tanh(h), cannot("numpy.tanh", "tanh(v)")),
    (lambda x, h: np.add(h, 1.0), cannot("numpy.add", TENSORS)),
    (lambda x, h: np.sum(h), cannot(".sum", "total(v)")),
    (lambda x, h: np.where(h, 1, 0), ARRAY),
    (lambda x, h: np.clip(h, 0, 1), cannot(".clip", "minimum(maximum(v, low), high)")),
    (lambda x, h: np.array([h]), ARRAY),
    (lambda x, h: np.ones(3) * h, no_operand("array([1., 1., 1.])", "ndarray")),
    (lambda x, h: h * np.ones(3), no_operand("array([1., 1., 1.])", "ndarray")),
    (lambda x, h: np.eye(2) @ h, cannot("numpy.matmul", "linear(name, x, h), or matrix(name) @ v")),
    (lambda x, h: torch.tanh(h), cannot("torch.tanh", "tanh(v)")),
    (lambda x, h: torch.nn.functional.relu(h), cannot("torch.relu", "relu(v)")),
    (lambda x, h: torch.cat([h, h]), cannot("torch.cat", "linear(name, a, b), which reads several")),
    (lambda x, h: torch.ones(3) * h, cannot("torch.mul", TENSORS)),
    (lambda x, h: h * torch.ones(1), no_operand("tensor([1.])", "Tensor")),
    (lambda x, h: torch.tensor(h), ITEMS),
    (lambda x, h: torch.where(h > 0, h, 0), cannot("torch.where", "where(condition, a, b)")),
    (lambda x, h: torch.softmax(h, 0), cannot("torch.softmax", "exp(v) / total(exp(v))")),
    (lambda x, h: torch.nn.functional.linear(x, torch.ones(2, 3)), cannot("torch.linear", "linear(name, x, h), or matrix(name) @ v")),
    (lambda x, h: torch.chunk(h, 2), cannot("torch.chunk", "one linear(...) for each part")),
    (lambda x, h: torch.erf(h), cannot("torch.erf", WORDS)),
    (lambda x, h: h.detach(), cannot(".detach", "stop(v)")),
    (lambda x, h: h.shape, cannot(".shape", WORDS)),
]
SIZES = [
    (lambda x, h: x + h, differ("I", "H")),
    (lambda x, h: x * weight("q"), differ("I", "H")),
    (lambda x, h: where(x > 0, h, 0), differ("I", "H")),
    (lambda x, h: maximum(h, x), differ("H", "I")),
    (lambda x, h: matrix("M") + h, differ("H x H", "H")),
    (lambda x, h: spread(total(h, to="G"), to="K") + h, differ("K", "H")),
    (lambda x, h: matrix("M") @ x, columns("H", "I")),
    (lambda x, h: matrix("M", rows="I").T @ h, columns("I", "H")),
    (lambda x, h: h @ h, no_left_matrix("H")),
    (lambda x, h: 3 @ h, no_left_matrix("1")),
    (lambda x, h: h @ matrix("M"), no_left_matrix("H", "write the matrix first, as in matrix(...) @ v")),
    (lambda x, h: (matrix("M") * mean(h)) @ h, f"the left side of @ must be computed from weights only: {NO_MATRIX_STATES}"),
    (lambda x, h: matrix("M") @ (matrix("N") * mean(x)), f"a product of two matrices is for weights only: {NO_MATRIX_STATES}"),
    (lambda x, h: mean(matrix("M")), "mean takes vectors, got a matrix of H x H"),
    (lambda x, h: total(matrix("M")), "total takes vectors, got a matrix of H x H"),
    (lambda x, h: spread(matrix("M")), "spread takes vectors, got a matrix of H x H"),
    (lambda x, h: concat(h, matrix("M")), "concat takes vectors, got a matrix of H x H"),
    (lambda x, h: total(h, to="g"), bad_size("'g'")),
    (lambda x, h: spread(h, to=2), bad_size("2")),
    (lambda x, h: eye("HH") @ h, bad_size("'HH'")),
    (lambda x, h: weight("q", size=True), bad_size("True")),
    (lambda x, h: weight("q", size=1.0), bad_size("1.0")),
    (lambda x, h: linear("q", x, size=h), bad_size("<h: H, state>")),
    (lambda x, h: weight("q", size="H,K"), matrix_size("'H,K'")),
    (lambda x, h: weight("q", size="HxH"), matrix_size("'HxH'")),
    (lambda x, h: weight("q", size=("H", "I")), matrix_size("('H', 'I')")),
    (lambda x, h: linear("q", x, size="4H"), bad_size("'4H'")),
    (lambda x, h: concat(h), "concat takes two vectors or more, got 1: give them one by one, as in concat(h, s)"),
    (lambda x, h: mean(concat(x, h)), CONCATENATION),
    (lambda x, h: tanh(linear("q", a=concat(x, h))), CONCATENATION),
    (lambda x, h: clip_gradient(mean(h), h), "clip_gradient(v, limit): limit has size H, but v 1: use one number"),
    (lambda x, h: clip_gradient(h, -1), "clip_gradient(v, limit): limit must be 0 or more, got -1"),
    (lambda x, h: layer_norm("n", x, h), NORMALISES + "I, H"),
    (lambda x, h: layer_norm("n"), NORMALISES + "none"),
    (lambda x, h: layer_norm("n", matrix("M")), "layer_norm takes vectors, got a matrix of H x H"),
    (lambda x, h: layer_norm(h), bad_name("the name that layer_norm() begins with", "<h: H, state>")),
    (lambda x, h: rms_norm(h, h), bad_name("the name that rms_norm() begins with", "<h: H, state>")),
]
WEIGHTS = [
    (lambda x, h: weight("q") + weight("q"), exists("q")),
    (lambda x, h: linear("q", x) + linear("q", x), exists("q.x")),
    (lambda x, h: linear("q", x, x), exists("q.x")),
    (lambda x, h: linear("q", x, x=h), exists("q.x")),
    (lambda x, h: weight("u") * linear("u", x), both("u.x", "u")),
    (lambda x, h: linear("u", x) * weight("u"), both("u", "u")),
    (lambda x, h: weight("a.b.c"), "the name of a weight may have one dot, as in 'i.bias', got 'a.b.c'"),
    (lambda x, h: weight(""), bad_name(WEIGHT, "''")),
    (lambda x, h: weight(3), bad_name(WEIGHT, "3")),
    (lambda x, h: weight("a" * 65), bad_name(WEIGHT, repr("a" * 65))),
    (lambda x, h: weight("a-b"), bad_name(WEIGHT, "'a-b'")),
    (lambda x, h: weight("ä"), bad_name(WEIGHT, "'ä'")),
    (lambda x, h: weight("forward"), taken(WEIGHT, "forward")),
    (lambda x, h: weight("q.half"), taken(WEIGHT, "half")),
    (lambda x, h: linear("train", x), taken("the name of a linear", "train")),
    (lambda x, h: linear("q", type=x), taken(WEIGHT, "type")),
    (lambda x, h: linear("q.r", x), bad_name("the name of a linear", "'q.r'")),
    (lambda x, h: linear(x, h), "linear() takes a name before its vectors, as in linear('n', x, h), got <x: I, input>"),
    (lambda x, h: linear("q"), "linear 'q' has no vectors: write linear('q', x, h)"),
    (lambda x, h: linear("q", h * 2), unlabelled("h")),
    (lambda x, h: linear("q", weight("b")), unlabelled("b")),
    (lambda x, h: linear("q", named("r", h * 2)), unlabelled("r")),
    (lambda x, h: linear("q", 3.0), no_vector("3.0")),
    (lambda x, h: linear("q", [x, h]), no_vector("[<x: I, input>, <h: H, state>]")),
    (lambda x, h: linear("q", a=matrix("M")), "linear 'q' takes vectors, got a matrix of H x H"),
    (lambda x, h: linear("q", a="x"), no_operand("'x'", "str")),
    (lambda x, h: linear("q", x, bias=True), BIAS + "True"),
    (lambda x, h: linear("q", x, bias=False), BIAS + "False"),
    (lambda x, h: linear("q", x, bias="zeros"), bad_start("q.bias", "'zeros'")),
    (lambda x, h: linear("q", x, bias=h), changing_start("q.bias", "state")),
    (lambda x, h: linear("q", x, bias=weight("b", size=1)), "linear 'q' has size H, but its bias 'b' 1: declare it as weight('b', size='H')"),
    (lambda x, h: linear("q", x, blocks=0), BLOCKS + "0"),
    (lambda x, h: linear("q", x, blocks=True), BLOCKS + "True"),
    (lambda x, h: linear("q", x, blocks=2.0), BLOCKS + "2.0"),
    (lambda x, h: linear("q", x, h, blocks={"k": 2}), "linear 'q': blocks names 'k', but the vectors are x, h"),
    (lambda x, h: linear("q", x, h, init={"k": 2}), "linear 'q': init names 'k', but the vectors are x, h"),
    (lambda x, h: linear("q", x, init=True), bad_start("q.x", "True")),
    (lambda x, h: linear("q", x, init=weight("b")), other_start("q.x", "H x I", "H")),
    (lambda x, h: weight("q", init=None), bad_start("q", "None")),
    (lambda x, h: weight("q", init=uniform), bad_start("q", "the function uniform")),
    (lambda x, h: weight("q", init=math.nan), not_finite("nan")),
    (lambda x, h: weight("q", init=weight("r", size="I")), other_start("q", "H", "I")),
    (lambda x, h: weight("q", init=x), changing_start("q", "input")),
    (lambda x, h: weight("q", init=uniform(0, mean(h))), changing_start("q", "state")),
    (lambda x, h: weight("q", init=matrix("M") @ weight("r")), "cell 'step' initialises weight 'q' with 'product': an initial value may use numbers, initialisers and weights declared before, but no products"),
    (lambda x, h: weight("q", init=identity()), matrix_start("identity()")),
    (lambda x, h: weight("q", init=2 * orthogonal()), matrix_start("orthogonal()")),
    (lambda x, h: weight("q", init=position(1)), matrix_start("position(1)")),
    (lambda x, h: weight("q", init=position(2)), "position(axis) takes 0 for rows or 1 for columns, got 2"),
    (lambda x, h: weight("q", init=position(True)), "position(axis) takes 0 for rows or 1 for columns, got True"),
    (lambda x, h: weight("q", init=normal(0, weight("r"))), "normal() takes numbers, got a value of size H: compute with the drawn values instead, as in normal(...) * v"),
    (lambda x, h: weight("q", learn="no"), LEARN + "'no'"),
    (lambda x, h: matrix("q", learn=None), LEARN + "None"),
    (lambda x, h: h * uniform(0, 1), in_step("uniform")),
    (lambda x, h: h * floor(position()), in_step("position")),
    (lambda x, h: named("3", h * 2), bad_name(VALUE, "'3'")),
    (lambda x, h: named("a.b", h * 2), bad_name(VALUE, "'a.b'")),
    (lambda x, h: named("m", x), is_leaf("an input")),
    (lambda x, h: named("m", h), is_leaf("a state")),
    (lambda x, h: named("m", weight("q")), is_leaf("a weight")),
    (lambda x, h: named("m", 3), is_leaf("a number")),
    (lambda x, h: function(lambda v: v), "@function takes a function defined with def, whose name is shown, got the function <lambda>"),
    (lambda x, h: function(3), "@function takes a function defined with def, whose name is shown, got 3"),
    (lambda x, h: cell(states="h", source="s"), "a cell's equations cannot define another cell: move the inner @cell out of them"),
]
# fmt: on


def line(case: object) -> str:
    return str(case.__code__.co_firstlineno) if hasattr(case, "__code__") else ""


@pytest.mark.parametrize(("slip", "text"), PYTHON, ids=line)
def test_python_on_a_symbol(slip, text):
    assert complaint_within(slip) == text


@pytest.mark.parametrize(("slip", "text"), ARRAYS, ids=line)
def test_array_libraries_on_a_symbol(slip, text):
    assert complaint_within(slip) == text


@pytest.mark.parametrize(("slip", "text"), SIZES, ids=line)
def test_sizes(slip, text):
    assert complaint_within(slip) == text


@pytest.mark.parametrize(("slip", "text"), WEIGHTS, ids=line)
def test_weights_and_names(slip, text):
    assert complaint_within(slip) == text
