"""The words of the language that declare weights: linears, vectors, matrices and initial values."""

import numbers
from collections.abc import Mapping
from typing import Any

from tidegate.equations.names import check_name, parse_size
from tidegate.equations.tracer import Tracer, reading
from tidegate.equations.values import SCALAR, SHAPELESS, Operand, Rate, Size, Value, fail, lift, show_size, shown, whole
from tidegate.equations.words import vector

Initial = Value | float | int | None


def weight(name: str, init: Initial = 0.0, size: str | int = "H", learn: bool = True) -> Value:
    """A vector of weights of the given size; `size=1` is a scalar, `learn=False` a buffer.

    `init` is a number, an initialiser, or an expression of these and of other weights.
    """
    return reading("weight()").weight(name, parse_size(size), _initial(name, init), learn)


def matrix(name: str, rows: str = "H", cols: str = "H", init: Initial = None, learn: bool = True) -> Value:
    """A matrix of weights, for `M @ v` in the step and for algebra among weights; Glorot uniform unless declared
    otherwise."""
    start = glorot() if init is None else init
    return reading("matrix()").weight(name, (*parse_size(rows), *parse_size(cols)), _initial(name, start), learn)


def eye(size: str = "H") -> Value:
    """The identity matrix, for algebra among weights."""
    return Value("eye", (), parse_size(size) * 2)


def _initial(name: str, init: object) -> Value:
    if not isinstance(init, Value) and (isinstance(init, bool) or not isinstance(init, numbers.Real)):
        fail(
            f"the initial value of weight {name!r} must be a number, an initialiser such as uniform(-1, 1), or an "
            f"expression of these and of weights declared before, got {shown(init)}"
        )
    value = lift(init)
    if value.rate != Rate.WEIGHTS:
        fail(
            f"the initial value of weight {name!r} depends on the {value.rate.name.lower()}: it may use numbers, "
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
    tracer, rows = reading("linear()"), parse_size(size)
    if isinstance(name, Value):
        fail(f"linear() takes a name before its vectors, as in linear('n', x, h), got {shown(name)}")
    check_name(name, "the name of a linear")
    terms = [(_unlabelled(name, v), v) for v in vectors]
    terms += [(label, vector(f"linear {name!r}", v)) for label, v in labelled.items()]
    if not terms:
        fail(f"linear {name!r} has no vectors: write linear({name!r}, x, h)")
    args: list[Value] = []
    _refuse_other_labels(name, [label for label, _ in terms], blocks=blocks, init=init)
    for label, v in terms:
        chosen, count = _by_label(init, label), _by_label(blocks, label)
        usual = orthogonal() if v.rate == Rate.STATE and rows == v.size else glorot()
        start = usual if chosen is None else chosen
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
                fail(f"linear {name!r}: {option} names {label!r}, but the vectors are {', '.join(labels)}")


def _checked_blocks(name: str, count: object) -> int:
    number = whole(count)
    if number is None or number < 1:
        fail(f"linear {name!r}: blocks must be a whole number of 1 or more, got {count!r}")
    return number


def _unlabelled(name: str, vector: object) -> str:
    if not isinstance(vector, Value):
        fail(
            f"linear {name!r} takes vectors, got {shown(vector)}: give inputs and states one by one (a state array "
            "as *u), and the initial bias as bias=..."
        )
    if vector.op not in ("input", "old"):
        label = vector.name if vector.name and vector.name.isidentifier() else "h"
        fail(
            f"linear {name!r}: only inputs and old states may be given without a label, and this vector is computed: "
            f"name its weight, as in linear({name!r}, ..., {label}=...)"
        )
    return str(vector.attrs["name"])


def _bias(tracer: Tracer, name: str, bias: object, rows: Size) -> tuple[Value, ...]:
    if bias is None:
        return ()
    if isinstance(bias, bool):
        fail(f"linear {name!r}: bias must be an initial number such as 0.0, or None for no bias, got {bias}")
    if isinstance(bias, Value) and bias.op == "weight":
        if bias.size != rows:
            fail(
                f"linear {name!r} has size {show_size(rows)}, but its bias {bias.name!r} {show_size(bias.size)}: "
                f"declare it as weight({bias.name!r}, size={show_size(rows)!r})"
            )
        return (bias,)
    return (tracer.weight(f"{name}.bias", rows, _initial(f"{name}.bias", bias), True),)


def _initialiser(op: str, *args: Operand, **attrs: Any) -> Value:
    values = tuple(lift(a) for a in args)
    for value in values:
        if value.size != SCALAR:
            fail(
                f"{op}() takes numbers, got a value of size {show_size(value.size)}: compute with the drawn values "
                f"instead, as in {op}(...) * v"
            )
    return Value(op, values, SHAPELESS, **attrs)


def uniform(low: Operand, high: Operand) -> Value:
    """Initial values from the uniform distribution on [low, high)."""
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
    """The index of a unit divided by the size, in [0, 1), along axis 0 (rows) or 1 (columns of a matrix)."""
    if type(axis) is not int or axis not in (0, 1):
        fail(f"position(axis) takes 0 for rows or 1 for columns, got {shown(axis)}")
    return _initialiser("position", axis=axis)
