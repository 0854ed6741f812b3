"""The words of the language: what a cell's equations are written with."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, overload

from tidegate.equations.graph import (
    SCALAR,
    SHAPELESS,
    Call,
    Operand,
    Rate,
    Size,
    Value,
    fail,
    finite,
    lift,
    listener,
    pointwise,
    show_size,
    shown,
)
from tidegate.equations.names import check_name, parse_size
from tidegate.equations.tracer import Tracer

Initial = Value | float | int | None


def _tracer(word: str) -> Tracer:
    tracer = listener.get()
    if not isinstance(tracer, Tracer):
        fail(f"{word} belongs inside a function decorated with @cell, and no cell is being read here")
    return tracer


def _vector(word: str, value: object) -> Value:
    v = lift(value)
    if len(v.size) == 2:
        fail(f"{word} takes vectors, and this value is a matrix of {show_size(v.size)}")
    return v


# ------------------------------------------------------------------------------------------------------- unit by unit
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
    """`a` where the condition is not 0, `b` elsewhere. It selects values, and does not protect derivatives: where the
    unselected branch is infinite its gradient is NaN, so guard the argument, as in log(maximum(v, 1e-6))."""
    return pointwise("where", condition, a, b)


def clip_gradient(v: Operand, limit: Operand) -> Value:
    """The value itself; on the way back its gradient is clipped to [-limit, limit]."""
    result = pointwise("clip_gradient", v, limit)
    value, bound = result.args
    if result.size != value.size:
        fail(
            f"clip_gradient(v, limit): the limit is {show_size(bound.size)} and v is {show_size(value.size)}; "
            "use one limit"
        )
    if bound.op == "constant" and bound.attrs["value"] < 0:
        fail(f"clip_gradient(v, limit): a limit is 0 or more, and {bound.attrs['value']:g} came")
    return result


# ------------------------------------------------------------------------------------------------------- across units
def mean(v: Operand) -> Value:
    """The mean over units, a scalar."""
    value = _vector("mean", v)
    return Value("mean", (value,), SCALAR)


def total(v: Operand, to: str | int = 1) -> Value:
    """The sum over units, a scalar; with `to="G"`, the sums over neighbouring units, H / G each."""
    return Value("total", (_vector("total", v),), parse_size(to))


def spread(v: Operand, to: str = "H") -> Value:
    """Repeat each unit in place, H / G times, until there are H."""
    return Value("spread", (_vector("spread", v),), parse_size(to))


def concat(*vectors: Operand) -> Value:
    """Vectors one after another; in the output only."""
    values = tuple(_vector("concat", v) for v in vectors)
    if len(values) < 2:
        fail(f"concat takes two vectors or more, and {len(values)} came: give them one by one, as in concat(h, s)")
    return Value("concat", values, ("+".join(str(v.size[0]) for v in values),))


# ------------------------------------------------------------------------------------------------------- weights
def weight(name: str, init: Initial = 0.0, size: str | int = "H", learn: bool = True) -> Value:
    """A vector of weights of the given size; `size=1` is a scalar, `learn=False` a buffer.

    `init` is a number, an initialiser, or an expression of these and of other weights.
    """
    return _tracer("weight()").weight(name, parse_size(size), _initial(name, init), learn)


def matrix(name: str, rows: str = "H", cols: str = "H", init: Initial = None, learn: bool = True) -> Value:
    """A matrix of weights, for `M @ v` in the step and for algebra among weights; Glorot's uniform unless declared."""
    start = glorot() if init is None else init
    return _tracer("matrix()").weight(name, (*parse_size(rows), *parse_size(cols)), _initial(name, start), learn)


def eye(size: str = "H") -> Value:
    """The identity matrix, for algebra among weights."""
    return Value("eye", (), parse_size(size) * 2)


def _initial(name: str, init: object) -> Value:
    if not isinstance(init, Value) and (isinstance(init, bool) or not isinstance(init, numbers.Real)):
        fail(
            f"the initial value of weight {name!r} is {shown(init)}: it must be a number, an initialiser such as "
            "uniform(-1, 1), or an expression of these and of weights declared before"
        )
    value = lift(init)
    if value.rate != Rate.WEIGHTS:
        fail(
            f"the initial value of weight {name!r} changes with the {value.rate.name.lower()}: it may use numbers, "
            "initialisers and weights declared before"
        )
    return value


def linear(
    name: str,
    *vectors: Value,
    bias: Initial = 0.0,
    size: str | int = "H",
    blocks: int | Mapping[str, int] | None = None,
    init: Initial | Mapping[str, Initial] = None,
    **labelled: Operand,
) -> Value:
    """A sum of matrix products plus a bias: `linear("i", x, h)` is W_i x + U_i h + b_i.

    Unlabelled vectors are inputs and old states, and lend their names to the weights `i.x` and `i.h`; anything else
    comes by keyword, as in `linear("n", x, h=r * h)`. `bias` is a number or an initialiser (the initial value), a
    weight (the bias itself), or None for no bias. `blocks=n` makes the matrices block-diagonal with n blocks.
    `init` is the matrices' initial value, one for all or a mapping by label; unless declared, orthogonal for a square
    matrix on a state, Glorot's uniform otherwise.
    """
    tracer, rows = _tracer("linear()"), parse_size(size)
    check_name(name, "the name of a linear")
    terms = [(_unlabelled(name, v), v) for v in vectors]
    terms += [(label, _vector(f"linear {name!r}", v)) for label, v in labelled.items()]
    if not terms:
        fail(f"linear {name!r} multiplies nothing: give it the vectors, as in linear({name!r}, x, h)")
    args: list[Value] = []
    _refuse_other_labels(name, [label for label, _ in terms], blocks=blocks, init=init)
    for label, v in terms:
        chosen, count = _by_label(init, label), _by_label(blocks, label)
        start = _default_matrix(rows, v) if chosen is None else chosen
        more = {"blocks": _checked_blocks(name, count)} if count is not None else {}
        full = f"{name}.{label}"
        args += [tracer.weight(full, (*rows, *v.size), _initial(full, start), True, **more), v]
    given = _bias(tracer, name, bias, rows)
    labels = [label for label, _ in terms]
    return Value("linear", (*args, *given), rows, linear=name, labels=labels, bias=bool(given))


def _by_label(choice: Any, label: str) -> Any:
    return choice.get(label) if isinstance(choice, Mapping) else choice


def _refuse_other_labels(name: str, labels: list[str], **choices: object) -> None:
    for option, choice in choices.items():
        for label in choice if isinstance(choice, Mapping) else ():
            if label not in labels:
                fail(f"linear {name!r}: {option} speaks of {label!r}, and the vectors are {', '.join(labels)}")


def _checked_blocks(name: str, count: object) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        fail(f"linear {name!r}: blocks must be a whole number of 1 or more, and {count!r} came")
    return count


def _default_matrix(rows: Size, vector: Value) -> Value:
    return orthogonal() if vector.rate == Rate.STATE and rows == vector.size else glorot()


def _unlabelled(name: str, vector: object) -> str:
    if not isinstance(vector, Value):
        fail(
            f"linear {name!r} multiplies vectors, and {shown(vector)} came: give inputs and states one by one "
            "(a state array with a star, *u), and the initial bias as bias=..."
        )
    if vector.op not in ("input", "old"):
        label = vector.name if vector.name and vector.name.isidentifier() else "h"
        fail(
            f"linear {name!r}: only inputs and old states may stand without a label, and this vector is computed; "
            f"say which weight it meets: linear({name!r}, ..., {label}=...)"
        )
    return str(vector.attrs["name"])


def _bias(tracer: Tracer, name: str, bias: object, rows: Size) -> tuple[Value, ...]:
    if bias is None:
        return ()
    if isinstance(bias, bool):
        fail(f"linear {name!r}: bias={bias} is not a value: give the initial number (bias=0.0), or None for no bias")
    if isinstance(bias, Value) and bias.op == "weight":
        if bias.size != rows:
            fail(
                f"linear {name!r} has {show_size(rows)} rows, and its bias {bias.name!r} is {show_size(bias.size)}: "
                f"declare it as weight({bias.name!r}, size={show_size(rows)!r})"
            )
        return (bias,)
    return (tracer.weight(f"{name}.bias", rows, _initial(f"{name}.bias", bias), True),)


# ------------------------------------------------------------------------------------------------------- initial values
def _initialiser(op: str, *args: Operand, **attrs: Any) -> Value:
    values = tuple(lift(a) for a in args)
    for value in values:
        if value.size != SCALAR:
            fail(
                f"{op}() takes numbers, and a value of size {show_size(value.size)} came: compute with the drawn "
                f"values instead, as in {op}(...) * v"
            )
    return Value(op, values, SHAPELESS, **attrs)


def uniform(low: Operand, high: Operand) -> Value:
    """Initial values drawn evenly from [low, high)."""
    return _initialiser("uniform", low, high)


def normal(mean: Operand = 0.0, std: Operand = 1.0) -> Value:
    """Initial values drawn from a normal distribution."""
    return _initialiser("normal", mean, std)


def orthogonal(gain: Operand = 1.0) -> Value:
    """A random orthogonal matrix times `gain` (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120)."""
    return _initialiser("orthogonal", gain)


def glorot(gain: Operand = 1.0) -> Value:
    """Uniform on +-gain sqrt(6 / (rows + columns)) (Glorot & Bengio 2010, eq. 16)."""
    return _initialiser("glorot", gain)


def identity(gain: Operand = 1.0) -> Value:
    """The identity matrix times `gain` (Le, Jaitly & Hinton 2015, arXiv:1504.00941)."""
    return _initialiser("identity", gain)


def ramp(start: Operand, step: Operand) -> Value:
    """start, start + step, start + 2 step, ... along the units."""
    return _initialiser("ramp", start, step)


def position(axis: int = 0) -> Value:
    """Where a unit stands: its index over the size, in [0, 1), along axis 0 (rows) or 1 (columns of a matrix)."""
    if type(axis) is not int or axis not in (0, 1):
        fail(f"position(axis) takes 0 for rows or 1 for columns, and {shown(axis)} came")
    return _initialiser("position", axis=axis)


# ---------------------------------------------------------------------------------------------- names and functions
def named(name: str, value: Operand) -> Value:
    """Give a value a name by hand; otherwise it has that of the variable that first holds it."""
    tracer, v = _tracer("named()"), lift(value)
    check_name(name, "the name of a value")
    if v.is_leaf:
        what = {"old": "a state", "weight": "a weight", "input": "an input"}.get(v.op, "a number")
        fail(f"named({name!r}, ...) is for what is computed, and {what} came: it prints by its own name or value")
    return tracer.rename(v, name)


@overload
def function(body: Callable[..., Any]) -> Callable[..., Any]: ...
@overload
def function(*, latex: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def function(body: Callable[..., Any] | None = None, *, latex: str | None = None) -> Callable[..., Any]:
    """Make a function of the language: inlined for machines, kept as a call for people."""

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isfunction(inner) or not inner.__name__.isidentifier():
            fail(f"@function is for a function defined with def, which has a name to show, and {shown(inner)} came")

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(inner).bind(*args, **kwargs)
            visible = _arguments(bound.args)
            result = inner(*args, **kwargs)
            several = isinstance(result, list | tuple)
            for k, v in enumerate(result if several else [result]):
                if isinstance(v, Value) and not v.is_leaf and v.call is None and not any(v is a for a in visible):
                    v.call = Call(inner.__name__, visible, k if several else None, latex)
            return result

        return call

    return decorate if body is None else decorate(body)


def _arguments(args: tuple[Any, ...]) -> tuple[Value, ...]:
    """What people see a function applied to: values and numbers, not names and switches."""
    flat = [item for a in args for item in (a if isinstance(a, list | tuple) else (a,))]
    return tuple(lift(a) for a in flat if isinstance(a, Value) or finite(a) is not None)


@function(latex=r"\operatorname{SiLU}")
def silu(v: Value) -> Value:
    """v sigmoid(v) (Elfwing, Uchibe & Doya 2018, arXiv:1702.03118)."""
    return v * sigmoid(v)


@function(latex=r"\operatorname{hard}\sigma")
def hard_sigmoid(v: Value) -> Value:
    """min(max(v / 6 + 1/2, 0), 1), as torch has it."""
    return minimum(maximum(v / 6.0 + 0.5, 0.0), 1.0)


@function(latex=r"\operatorname{hard}\tanh")
def hard_tanh(v: Value) -> Value:
    """min(max(v, -1), 1)."""
    return minimum(maximum(v, -1.0), 1.0)


@function(latex=r"\operatorname{LN}")
def layer_norm(name: str, *vectors: Value, gain: float = 1.0, epsilon: float = 1e-5) -> Any:
    """Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) with one mean and one variance over all the
    vectors given, which must have the same size; each has its gain and shift. One vector in, one out; several, a list.
    """
    vectors = _to_normalise("layer_norm", name, vectors)
    centre = _mean_of(vectors)
    deviations = [v - centre for v in vectors]
    scale = 1.0 / sqrt(_mean_of([d * d for d in deviations]) + epsilon)
    results = []
    for k, (v, d) in enumerate(zip(vectors, deviations, strict=True)):
        suffix = str(k) if len(vectors) > 1 else ""
        scaled = weight(f"{name}.gain{suffix}", init=gain, size=str(v.size[0])) * (d * scale)
        results.append(scaled + weight(f"{name}.shift{suffix}", size=str(v.size[0])))
    return results if len(results) > 1 else results[0]


@function(latex=r"\operatorname{RMS}")
def rms_norm(name: str, vector: Value, gain: float = 1.0, epsilon: float = 1e-5) -> Value:
    """Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    (vector,) = _to_normalise("rms_norm", name, (vector,))
    scale = 1.0 / sqrt(mean(vector * vector) + epsilon)
    return weight(f"{name}.gain", init=gain, size=str(vector.size[0])) * (vector * scale)


@function(latex=r"\operatorname{ST}")
def straight_through(hard: Value, soft: Value) -> Value:
    """`hard` on the way forward, the gradient of `soft` on the way back (Bengio, Leonard & Courville 2013)."""
    return soft + stop(hard - soft)


def _to_normalise(word: str, name: object, given: tuple[object, ...]) -> tuple[Value, ...]:
    check_name(name, f"the name that {word}() begins with")
    vectors = tuple(_vector(word, v) for v in given)
    if len({v.size for v in vectors}) != 1:
        found = ", ".join(show_size(v.size) for v in vectors) or "none"
        fail(f"{word}(name, ...) normalises vectors of one size together, and these came: {found}")
    return vectors


def _mean_of(vectors: Any) -> Value:
    means = [mean(v) for v in vectors]
    return functools.reduce(lambda a, b: a + b, means) / float(len(means)) if len(means) > 1 else means[0]


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (sigmoid, tanh, relu, softplus, log_sigmoid, silu, hard_sigmoid, hard_tanh)
}
