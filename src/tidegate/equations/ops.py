"""The op table: one row an operation, with everything that is derived from it.

`value(xp, *arrays)` computes over an array namespace (see tidegate.reference) for the pointwise kind, and `value(xp,
node, bind, *arrays)` for the others, where `size` is the node's size in numbers. `derivative(d, y, *args)` gives, for
each operand, the graph of its gradient from the gradient `d` of the result `y`; None where no gradient flows. Corners
are torch's: half and half at the tie of a maximum, 0 for relu and abs at 0, infinity for sqrt at 0. `latex` is a
template over the operands; `level` says how strongly the result binds (1 sum, 2 product, 3 power, 4 atom) and `binds`
what each operand must reach to stand without parentheses. `cost` counts floating-point operations a unit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.equations.values import SCALAR, Size, Value, matrix_product, pointwise, transpose

Kind = Literal["pointwise", "units", "product", "weights", "vjp", "initial"]
Bind = Callable[[Size], tuple[int, ...]]
Derivative = Callable[..., tuple[Value | None, ...]]


@dataclass(frozen=True)
class Op:
    """One row of the table. An arity of None takes any number of operands."""

    name: str
    arity: int | None
    kind: Kind
    value: Callable[..., Any] | None
    derivative: Derivative | None
    latex: str
    level: int = 4
    binds: tuple[int, ...] = ()
    cost: int = 1
    unbounded: bool = False  # the derivative has no bound near some finite or large argument


def _where(condition: Value, a: Value | float, b: Value | float) -> Value:
    return pointwise("where", condition, a, b)


def _call(name: str, *operands: Value | float) -> Value:
    return pointwise(name, *operands)


def _half(d: Value, loses: Value, ties: Value) -> Value:
    return d * _where(ties, 0.5, _where(loses, 0.0, 1.0))


def _power(d: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value | None]:
    base = _where(_call("eq", b, 0.0), 0.0, d * b * a ** (b - 1.0))
    if b.op == "constant":
        return base, None
    return base, _where(_call("eq", a, 0.0) * (b >= 0.0), 0.0, d * y * _call("log", a))


def spread(value: Value, to: Size) -> Value:
    """Repeat each unit in place until the vector has the size `to`."""
    return value if value.size == to else Value("spread", (value,), to)


def total(value: Value, to: Size = SCALAR) -> Value:
    """The sum over all units, or over neighbouring units until the size is `to`."""
    return value if value.size == to else Value("total", (value,), to)


def part(value: Value, parts: tuple[Value, ...], index: int) -> Value:
    """The units of a concatenation that came from its operand number `index`."""
    before = [p.size[0] for p in parts[:index]]
    return Value("part", (value,), parts[index].size, before=before)


def outer(left: Value, right: Value, blocks: int | None = None) -> Value:
    """The product of a column and a row: what a matrix's gradient is made of."""
    attrs: dict[str, Any] = {"blocks": blocks} if blocks else {}
    return Value("outer", (left, right), (left.size[0], right.size[0]), **attrs)


def count(size: Size) -> Value:
    """The number of units of a size, as a constant that a layer binds."""
    return Value("count", of=size[0])


def _linear_derivative(d: Value, y: Value, *args: Value) -> tuple[Value, ...]:
    pairs = len(y.attrs["labels"])
    gradients: list[Value] = []
    for k in range(pairs):
        gradients += _product_derivative(d, y, args[2 * k], args[2 * k + 1])
    return (*gradients, d) if y.attrs["bias"] else tuple(gradients)


def _product_derivative(d: Value, y: Value, matrix: Value, vector: Value) -> tuple[Value, Value]:
    return outer(d, vector, matrix.attrs.get("blocks")), matrix_product(transpose(matrix), d)


def _linear_value(xp: Any, node: Value, bind: Bind, *arrays: Any) -> Any:
    pairs = len(node.attrs["labels"])
    result = arrays[-1] if node.attrs["bias"] else None
    for k in range(pairs):
        term = xp.product(arrays[2 * k], arrays[2 * k + 1])
        result = term if result is None else term + result
    return result


def _row(name: str, latex: str, value: Callable[..., Any], derivative: Derivative, **more: Any) -> Op:
    arity = value.__code__.co_argcount - 1
    return Op(name, arity, "pointwise", value, derivative, latex, **more)


_POINTWISE = [
    _row("add", "{0} + {1}", lambda xp, a, b: a + b, lambda d, y, a, b: (d, d), level=1, binds=(1, 1)),
    _row("sub", "{0} - {1}", lambda xp, a, b: a - b, lambda d, y, a, b: (d, -d), level=1, binds=(1, 2)),
    _row("mul", r"{0} \odot {1}", lambda xp, a, b: a * b, lambda d, y, a, b: (d * b, d * a), level=2, binds=(2, 2)),
    _row(
        "div",
        r"\frac{{{0}}}{{{1}}}",
        lambda xp, a, b: a / b,
        lambda d, y, a, b: (d / b, -(d * y / b)),
        level=3,
        cost=4,
        unbounded=True,
    ),
    _row("neg", "-{0}", lambda xp, a: -a, lambda d, y, a: (-d,), level=1, binds=(2,)),
    _row("pow", "{0}^{{{1}}}", lambda xp, a, b: a**b, _power, level=3, binds=(4, 0), cost=20, unbounded=True),
    _row(
        "mod",
        r"{0} \bmod {1}",
        lambda xp, a, b: xp.mod(a, b),
        lambda d, y, a, b: (d, -(d * _call("floor", a / b))),
        level=1,
        binds=(2, 3),
        cost=6,
    ),
    _row("abs", r"\left|{0}\right|", lambda xp, a: xp.abs(a), lambda d, y, a: (d * _call("sign", a),), binds=(0,)),
    _row(
        "exp",
        "e^{{{0}}}",
        lambda xp, a: xp.exp(a),
        lambda d, y, a: (d * y,),
        level=3,
        binds=(0,),
        cost=10,
        unbounded=True,
    ),
    _row(
        "expm1",
        "e^{{{0}}} - 1",
        lambda xp, a: xp.expm1(a),
        lambda d, y, a: (d * (y + 1.0),),
        level=1,
        cost=12,
        unbounded=True,
    ),
    _row(
        "log",
        r"\log\left({0}\right)",
        lambda xp, a: xp.log(a),
        lambda d, y, a: (d / a,),
        cost=10,
        unbounded=True,
    ),
    _row(
        "log1p",
        r"\log\left(1 + {0}\right)",
        lambda xp, a: xp.log1p(a),
        lambda d, y, a: (d / (1.0 + a),),
        binds=(1,),
        cost=12,
        unbounded=True,
    ),
    _row(
        "sqrt",
        r"\sqrt{{{0}}}",
        lambda xp, a: xp.sqrt(a),
        lambda d, y, a: (d / (2.0 * y),),
        cost=4,
        unbounded=True,
    ),
    _row("sin", r"\sin\left({0}\right)", lambda xp, a: xp.sin(a), lambda d, y, a: (d * _call("cos", a),), cost=15),
    _row("cos", r"\cos\left({0}\right)", lambda xp, a: xp.cos(a), lambda d, y, a: (-(d * _call("sin", a)),), cost=15),
    _row("tanh", r"\tanh\left({0}\right)", lambda xp, a: xp.tanh(a), lambda d, y, a: (d * (1.0 - y * y),), cost=15),
    _row(
        "sigmoid", r"\sigma\left({0}\right)", lambda xp, a: xp.sigmoid(a), lambda d, y, a: (d * y * (1.0 - y),), cost=15
    ),
    _row(
        "softplus",
        r"\operatorname{{softplus}}\left({0}\right)",
        lambda xp, a: xp.softplus(a),
        lambda d, y, a: (d * _call("sigmoid", a),),
        cost=20,
    ),
    _row(
        "log_sigmoid",
        r"\log\sigma\left({0}\right)",
        lambda xp, a: xp.log_sigmoid(a),
        lambda d, y, a: (d * _call("sigmoid", -a),),
        cost=20,
    ),
    _row(
        "relu",
        r"\operatorname{{ReLU}}\left({0}\right)",
        lambda xp, a: xp.relu(a),
        lambda d, y, a: (_where(a <= 0.0, 0.0, d),),
    ),
    _row("floor", r"\left\lfloor {0} \right\rfloor", lambda xp, a: xp.floor(a), lambda d, y, a: (None,)),
    _row("sign", r"\operatorname{{sign}}\left({0}\right)", lambda xp, a: xp.sign(a), lambda d, y, a: (None,)),
    _row(
        "maximum",
        r"\max\left({0}, {1}\right)",
        lambda xp, a, b: xp.maximum(a, b),
        lambda d, y, a, b: (_half(d, a < b, _call("eq", a, b)), _half(d, b < a, _call("eq", a, b))),
    ),
    _row(
        "minimum",
        r"\min\left({0}, {1}\right)",
        lambda xp, a, b: xp.minimum(a, b),
        lambda d, y, a, b: (_half(d, a > b, _call("eq", a, b)), _half(d, b > a, _call("eq", a, b))),
    ),
    _row(
        "where",
        r"\begin{{cases}} {1} & {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
        lambda xp, c, a, b: xp.where(c, a, b),
        lambda d, y, c, a, b: (None, _where(c, d, 0.0), _where(c, 0.0, d)),
    ),
    *(
        _row(name, f"{{0}} {sign} {{1}}", value, lambda d, y, a, b: (None, None), level=0, binds=(1, 1))
        for name, sign, value in (
            ("lt", "<", lambda xp, a, b: xp.compare(operator.lt, a, b)),
            ("le", r"\le", lambda xp, a, b: xp.compare(operator.le, a, b)),
            ("gt", ">", lambda xp, a, b: xp.compare(operator.gt, a, b)),
            ("ge", r"\ge", lambda xp, a, b: xp.compare(operator.ge, a, b)),
            ("eq", "=", lambda xp, a, b: xp.compare(operator.eq, a, b)),
            ("ne", r"\ne", lambda xp, a, b: xp.compare(operator.ne, a, b)),
        )
    ),
    _row("stop", r"\operatorname{{stop}}\left({0}\right)", lambda xp, a: xp.stop(a), lambda d, y, a: (None,), cost=0),
    _row(
        "clip_gradient",
        r"\operatorname{{clip}}_{{\partial}}\left({0}, {1}\right)",
        lambda xp, a, limit: xp.clip_gradient(a, limit),
        lambda d, y, a, limit: (_call("minimum", _call("maximum", d, -limit), limit), None),
        cost=0,
    ),
]

_OTHERS = [
    Op("linear", None, "product", _linear_value, _linear_derivative, "", level=1),
    Op(
        "product",
        2,
        "product",
        lambda xp, node, bind, m, v: xp.product(m, v),
        _product_derivative,
        r"{0}\, {1}",
        level=2,
        binds=(3, 3),
    ),
    Op(
        "matmul",
        2,
        "weights",
        lambda xp, node, bind, a, b: xp.matmul(a, b),
        lambda d, y, a, b: (matrix_product(d, transpose(b)), matrix_product(transpose(a), d)),
        r"{0}\, {1}",
        level=2,
        binds=(3, 3),
    ),
    Op(
        "transpose",
        1,
        "weights",
        lambda xp, node, bind, a: xp.transpose(a),
        lambda d, y, a: (transpose(d),),
        r"{0}^\top",
        level=3,
        binds=(3,),
        cost=0,
    ),
    Op("diagonal_part", 1, "vjp", lambda xp, node, bind, m: xp.diagonal_part(m), None, "", cost=0),
    Op("eye", 0, "weights", None, lambda d, y: (), "I", cost=0),
    Op("count", 0, "weights", None, lambda d, y: (), "n", cost=0),
    Op(
        "mean",
        1,
        "units",
        lambda xp, node, bind, a: xp.mean(a),
        lambda d, y, a: (spread(d / count(a.size), a.size),),
        r"\operatorname{{mean}}\left({0}\right)",
    ),
    Op(
        "total",
        1,
        "units",
        lambda xp, node, bind, a: xp.total(a, *bind(node.size)) if len(node.args[0].size) == 1 else xp.total_matrix(a),
        lambda d, y, a: (spread(d, a.size),),
        r"\operatorname{{sum}}\left({0}\right)",
    ),
    Op(
        "spread",
        1,
        "units",
        lambda xp, node, bind, a: xp.spread(a, *bind(node.size)),
        lambda d, y, a: (total(d, a.size),),
        r"\operatorname{{spread}}\left({0}\right)",
        cost=0,
    ),
    Op(
        "concat",
        None,
        "units",
        lambda xp, node, bind, *a: xp.concat(a),
        lambda d, y, *a: tuple(part(d, a, k) for k in range(len(a))),
        r"\left[{0}\right]",
        cost=0,
    ),
    Op("stack_rows", None, "vjp", lambda xp, node, bind, *m: xp.stack_rows(m), None, "", cost=0),
    Op(
        "stack_known",
        None,
        "vjp",
        lambda xp, node, bind, *m: xp.stack_known(m, node.attrs["known"], bind(tuple(node.attrs["rows"]))),
        None,
        "",
        cost=0,
    ),
    Op(
        "part",
        1,
        "vjp",
        lambda xp, node, bind, a: xp.part(a, sum(bind(tuple(node.attrs["before"]))), *bind(node.size)),
        None,
        "",
        cost=0,
    ),
    Op("outer", 2, "vjp", lambda xp, node, bind, a, b: xp.outer(a, b, node.attrs.get("blocks")), None, "", cost=1),
    Op("diagonal", 1, "vjp", lambda xp, node, bind, a: xp.diagonal(a), None, "", cost=0),
    Op("scale_rows", 2, "vjp", lambda xp, node, bind, d, m: xp.column(d) * m, None, ""),
    Op("scale_columns", 2, "vjp", lambda xp, node, bind, m, d: m * xp.row(d), None, ""),
    Op("compose", 2, "vjp", lambda xp, node, bind, a, b: xp.matmul(a, b), None, ""),
    Op("dense", 1, "vjp", lambda xp, node, bind, m: xp.dense(m), None, ""),
    Op("total_rows", 1, "vjp", lambda xp, node, bind, m: xp.total_rows(m, bind(node.size)[0]), None, ""),
    Op("spread_rows", 1, "vjp", lambda xp, node, bind, m: xp.spread_rows(m, bind(node.size)[0]), None, "", cost=0),
    Op("uniform", 2, "initial", None, None, r"\mathcal{{U}}\left({0}, {1}\right)"),
    Op("normal", 2, "initial", None, None, r"\mathcal{{N}}\left({0}, {1}\right)"),
    Op("orthogonal", 1, "initial", None, None, r"\operatorname{{orthogonal}}\left({0}\right)"),
    Op("glorot", 1, "initial", None, None, r"\operatorname{{Glorot}}\left({0}\right)"),
    Op("identity", 1, "initial", None, None, r"{0} I"),
    Op("ramp", 2, "initial", None, None, r"\operatorname{{ramp}}\left({0}, {1}\right)"),
    Op("position", 0, "initial", None, None, r"\operatorname{{position}}"),
]

OPS: dict[str, Op] = {row.name: row for row in (*_POINTWISE, *_OTHERS)}
