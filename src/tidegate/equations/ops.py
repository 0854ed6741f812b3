"""The op table: one row per operation, with everything derived from it.

`value(xp, *arrays)` computes over an array namespace (see tidegate.reference) for the pointwise kind, and `value(xp,
node, bind, *arrays)` for the others, where `size` is the node's size in numbers. `derivative(d, y, *args)` gives, for
each operand, the graph of its gradient from the gradient `d` of the result `y`; None where no gradient flows. Corners
are torch's: half and half at the tie of a maximum, 0 for relu and abs at 0, infinity for sqrt at 0. `latex` is a
template over the operands; `level` says how strongly the result binds (1 sum, 2 product, 3 power, 4 atom) and `binds`
what each operand must reach to stand without parentheses. `cost` counts floating-point operations a unit.
"""

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
    """One row of the table. Arity None means any number of operands."""

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
    """The units of a concatenation that belong to operand number `index`."""
    before = [p.size[0] for p in parts[:index]]
    return Value("part", (value,), parts[index].size, before=before)


def outer(left: Value, right: Value, blocks: int | None = None) -> Value:
    """The product of a column and a row: a term of a matrix's gradient."""
    attrs: dict[str, Any] = {"blocks": blocks} if blocks else {}
    return Value("outer", (left, right), (left.size[0], right.size[0]), **attrs)


def count(size: Size) -> Value:
    """The number of units of a size, as a constant bound by the layer."""
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


def _method(name: str) -> Callable[..., Any]:
    return lambda xp, *arrays: getattr(xp, name)(*arrays)


def _row(name: str, latex: str, derivative: Derivative, value: Callable[..., Any] | None = None, **more: Any) -> Op:
    """A pointwise operation; without `value`, the function of its name in the array namespace."""
    arity = derivative.__code__.co_argcount - 2
    return Op(name, arity, "pointwise", value or _method(name), derivative, latex, **more)


def _function(name: str, derivative: Derivative, **more: Any) -> Op:
    return _row(name, _called(name), derivative, **more)


def _called(name: str) -> str:
    return rf"\operatorname{{{{{name}}}}}\left({{0}}\right)"


def _comparison(name: str, sign: str) -> Op:
    relation = getattr(operator, name)
    return _row(
        name,
        f"{{0}} {sign} {{1}}",
        lambda d, y, a, b: (None, None),
        lambda xp, a, b: xp.compare(relation, a, b),
        level=0,
        binds=(1, 1),
    )


_POINTWISE = [
    _row("add", "{0} + {1}", lambda d, y, a, b: (d, d), lambda xp, a, b: a + b, level=1, binds=(1, 1)),
    _row("sub", "{0} - {1}", lambda d, y, a, b: (d, -d), lambda xp, a, b: a - b, level=1, binds=(1, 2)),
    _row("mul", r"{0} \odot {1}", lambda d, y, a, b: (d * b, d * a), lambda xp, a, b: a * b, level=2, binds=(2, 2)),
    _row(
        "div",
        r"\frac{{{0}}}{{{1}}}",
        lambda d, y, a, b: (d / b, -(d * y / b)),
        lambda xp, a, b: a / b,
        level=3,
        cost=4,
        unbounded=True,
    ),
    _row("neg", "-{0}", lambda d, y, a: (-d,), lambda xp, a: -a, level=1, binds=(2,)),
    _row("pow", "{0}^{{{1}}}", _power, lambda xp, a, b: a**b, level=3, binds=(4, 0), cost=20, unbounded=True),
    _row("mod", r"{0} \bmod {1}", lambda d, y, a, b: (d, -(d * _call("floor", a / b))), level=1, binds=(2, 3), cost=6),
    _row("abs", r"\left|{0}\right|", lambda d, y, a: (d * _call("sign", a),), binds=(0,)),
    _row("exp", "e^{{{0}}}", lambda d, y, a: (d * y,), level=3, binds=(0,), cost=10, unbounded=True),
    _row("expm1", "e^{{{0}}} - 1", lambda d, y, a: (d * (y + 1.0),), level=1, cost=12, unbounded=True),
    _row("log", r"\log\left({0}\right)", lambda d, y, a: (d / a,), cost=10, unbounded=True),
    _row("log1p", r"\log\left(1 + {0}\right)", lambda d, y, a: (d / (1.0 + a),), binds=(1,), cost=12, unbounded=True),
    _row("sqrt", r"\sqrt{{{0}}}", lambda d, y, a: (d / (2.0 * y),), cost=4, unbounded=True),
    _row("sin", r"\sin\left({0}\right)", lambda d, y, a: (d * _call("cos", a),), cost=15),
    _row("cos", r"\cos\left({0}\right)", lambda d, y, a: (-(d * _call("sin", a)),), cost=15),
    _row("tanh", r"\tanh\left({0}\right)", lambda d, y, a: (d * (1.0 - y * y),), cost=15),
    _row("sigmoid", r"\sigma\left({0}\right)", lambda d, y, a: (d * y * (1.0 - y),), cost=15),
    _function("softplus", lambda d, y, a: (d * _call("sigmoid", a),), cost=20),
    _row("log_sigmoid", r"\log\sigma\left({0}\right)", lambda d, y, a: (d * _call("sigmoid", -a),), cost=20),
    _row("relu", _called("ReLU"), lambda d, y, a: (_where(a <= 0.0, 0.0, d),)),
    _row("floor", r"\left\lfloor {0} \right\rfloor", lambda d, y, a: (None,)),
    _function("sign", lambda d, y, a: (None,)),
    _row(
        "maximum",
        r"\max\left({0}, {1}\right)",
        lambda d, y, a, b: (_half(d, a < b, _call("eq", a, b)), _half(d, b < a, _call("eq", a, b))),
    ),
    _row(
        "minimum",
        r"\min\left({0}, {1}\right)",
        lambda d, y, a, b: (_half(d, a > b, _call("eq", a, b)), _half(d, b > a, _call("eq", a, b))),
    ),
    _row(
        "where",
        r"\begin{{cases}} {1} & {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
        lambda d, y, c, a, b: (None, _where(c, d, 0.0), _where(c, 0.0, d)),
    ),
    *(_comparison("lt", "<"), _comparison("le", r"\le"), _comparison("gt", ">"), _comparison("ge", r"\ge")),
    *(_comparison("eq", "="), _comparison("ne", r"\ne")),
    _function("stop", lambda d, y, a: (None,), cost=0),
    _row(
        "clip_gradient",
        r"\operatorname{{clip}}_{{\partial}}\left({0}, {1}\right)",
        lambda d, y, a, limit: (_call("minimum", _call("maximum", d, -limit), limit), None),
        cost=0,
    ),
]


def _array(name: str) -> Callable[..., Any]:
    return lambda xp, node, bind, *arrays: getattr(xp, name)(*arrays)


def _vjp(name: str, arity: int | None, value: Callable[..., Any] | None = None, cost: int = 0) -> Op:
    """An operation of derivatives only, which are not differentiated again."""
    return Op(name, arity, "vjp", value or _array(name), None, "", cost=cost)


def _initial(name: str, arity: int, latex: str) -> Op:
    return Op(name, arity, "initial", None, None, latex)


_OTHERS = [
    Op("linear", None, "product", _linear_value, _linear_derivative, "", level=1),
    Op("product", 2, "product", _array("product"), _product_derivative, r"{0}\, {1}", level=2, binds=(3, 3)),
    Op(
        "matmul",
        2,
        "weights",
        _array("matmul"),
        lambda d, y, a, b: (matrix_product(d, transpose(b)), matrix_product(transpose(a), d)),
        r"{0}\, {1}",
        level=2,
        binds=(3, 3),
    ),
    Op(
        "transpose",
        1,
        "weights",
        _array("transpose"),
        lambda d, y, a: (transpose(d),),
        r"{0}^\top",
        level=3,
        binds=(3,),
        cost=0,
    ),
    _vjp("diagonal_part", 1),
    Op("eye", 0, "weights", None, lambda d, y: (), "I", cost=0),
    Op("count", 0, "weights", None, lambda d, y: (), "n", cost=0),
    Op("mean", 1, "units", _array("mean"), lambda d, y, a: (spread(d / count(a.size), a.size),), _called("mean")),
    Op(
        "total",
        1,
        "units",
        lambda xp, node, bind, a: xp.total(a, *bind(node.size)) if len(node.args[0].size) == 1 else xp.total_matrix(a),
        lambda d, y, a: (spread(d, a.size),),
        _called("sum"),
    ),
    Op(
        "spread",
        1,
        "units",
        lambda xp, node, bind, a: xp.spread(a, *bind(node.size)),
        lambda d, y, a: (total(d, a.size),),
        _called("spread"),
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
    _vjp(
        "stack_known",
        None,
        lambda xp, node, bind, *m: xp.stack_known(m, node.attrs["known"], bind(tuple(node.attrs["rows"]))),
    ),
    _vjp("part", 1, lambda xp, node, bind, a: xp.part(a, sum(bind(tuple(node.attrs["before"]))), *bind(node.size))),
    _vjp("outer", 2, lambda xp, node, bind, a, b: xp.outer(a, b, node.attrs.get("blocks")), cost=1),
    _vjp("diagonal", 1),
    _vjp("scale_rows", 2, lambda xp, node, bind, d, m: xp.column(d) * m, cost=1),
    _vjp("scale_columns", 2, lambda xp, node, bind, m, d: m * xp.row(d), cost=1),
    _vjp("compose", 2, lambda xp, node, bind, a, b: xp.matmul(a, b), cost=1),
    _vjp("dense", 1, cost=1),
    _vjp("total_rows", 1, lambda xp, node, bind, m: xp.total_rows(m, bind(node.size)[0]), cost=1),
    _vjp("spread_rows", 1, lambda xp, node, bind, m: xp.spread_rows(m, bind(node.size)[0])),
    _initial("uniform", 2, r"\mathcal{{U}}\left({0}, {1}\right)"),
    _initial("normal", 2, r"\mathcal{{N}}\left({0}, {1}\right)"),
    _initial("orthogonal", 1, _called("orthogonal")),
    _initial("glorot", 1, _called("Glorot")),
    _initial("identity", 1, r"{0} I"),
    _initial("ramp", 2, r"\operatorname{{ramp}}\left({0}, {1}\right)"),
    _initial("position", 0, r"\operatorname{{position}}"),
]

OPS: dict[str, Op] = {row.name: row for row in (*_POINTWISE, *_OTHERS)}
