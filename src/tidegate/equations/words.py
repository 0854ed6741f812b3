"""The words of the language that compute, unit by unit and across units."""

from collections.abc import Callable

from tidegate.equations.names import parse_size
from tidegate.equations.values import SCALAR, Operand, Value, fail, lift, pointwise, show_size


def vector(word: str, value: object) -> Value:
    """The operand of a word that takes only vectors."""
    v = lift(value)
    if len(v.size) == 2:
        fail(f"{word} takes vectors, got a matrix of {show_size(v.size)}")
    return v


def _unary(name: str, meaning: str) -> Callable[[Operand], Value]:
    def word(v: Operand) -> Value:
        return pointwise(name, v)

    word.__name__ = word.__qualname__ = name
    word.__doc__ = f"{meaning}, unit by unit."
    return word


sigmoid = _unary("sigmoid", "The logistic function 1 / (1 + exp(-v))")
tanh = _unary("tanh", "The hyperbolic tangent")
relu = _unary("relu", "max(v, 0), with derivative 0 at 0")
exp = _unary("exp", "The exponential")
expm1 = _unary("expm1", "exp(v) - 1, exact near 0")
log = _unary("log", "The natural logarithm")
log1p = _unary("log1p", "log(1 + v), exact near 0")
sqrt = _unary("sqrt", "The square root, with derivative infinity at 0")
sin = _unary("sin", "The sine of an angle in radians")
cos = _unary("cos", "The cosine of an angle in radians")
softplus = _unary("softplus", "log(1 + exp(v)) without overflow")
log_sigmoid = _unary("log_sigmoid", "log(sigmoid(v)) without underflow")
floor = _unary("floor", "The largest whole number not above v, with derivative 0")
absolute = _unary("abs", "The absolute value, with derivative 0 at 0")
stop = _unary("stop", "The value itself, through which no gradient flows")


def maximum(a: Operand, b: Operand) -> Value:
    """The larger of two values; at a tie each gets half of the gradient."""
    return pointwise("maximum", a, b)


def minimum(a: Operand, b: Operand) -> Value:
    """The smaller of two values; at a tie each gets half of the gradient."""
    return pointwise("minimum", a, b)


def where(condition: Operand, a: Operand, b: Operand) -> Value:
    """`a` where the condition is not 0, `b` elsewhere. It selects values but does not protect derivatives: where the
    branch not taken is infinite its gradient is NaN, so guard the argument, as in log(maximum(v, 1e-6))."""
    return pointwise("where", condition, a, b)


def clip_gradient(v: Operand, limit: Operand) -> Value:
    """The value itself; its gradient is clipped to [-limit, limit]."""
    result = pointwise("clip_gradient", v, limit)
    value, bound = result.args
    if result.size != value.size:
        fail(
            f"clip_gradient(v, limit): limit has size {show_size(bound.size)}, but v {show_size(value.size)}: use one "
            "number"
        )
    if bound.op == "constant" and bound.attrs["value"] < 0:
        fail(f"clip_gradient(v, limit): limit must be 0 or more, got {bound.attrs['value']:g}")
    return result


def mean(v: Operand) -> Value:
    """The mean over units, a scalar."""
    value = vector("mean", v)
    return Value("mean", (value,), SCALAR)


def total(v: Operand, to: str | int = 1) -> Value:
    """The sum over units, a scalar; with `to="G"`, sums over neighbouring units, H / G each."""
    return Value("total", (vector("total", v),), parse_size(to))


def spread(v: Operand, to: str = "H") -> Value:
    """Repeat each unit in place, H / G times, until there are H."""
    return Value("spread", (vector("spread", v),), parse_size(to))


def concat(*vectors: Operand) -> Value:
    """Concatenate vectors; in the output only."""
    values = tuple(vector("concat", v) for v in vectors)
    if len(values) < 2:
        fail(f"concat takes two vectors or more, got {len(values)}: give them one by one, as in concat(h, s)")
    return Value("concat", values, ("+".join(str(v.size[0]) for v in values),))
