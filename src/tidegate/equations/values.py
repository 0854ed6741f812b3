"""Values: what each line of a cell's equations becomes. Plain data; nothing here computes."""

from __future__ import annotations

import itertools
import math
import numbers
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from reprlib import Repr
from types import FrameType, FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Union

from tidegate.equations.instead import refusal
from tidegate.errors import EquationError, type_of

Size = tuple[str | int, ...]
SCALAR: Size = (1,)
SHAPELESS: Size = ()  # an initial value: it takes the shape of the weight it belongs to
LEAVES = frozenset({"input", "old", "weight", "constant", "eye", "count", "seed"})
INITIALISERS = frozenset({"uniform", "normal", "orthogonal", "glorot", "identity", "ramp", "position"})

_HERE = Path(__file__).parent
_order = itertools.count()
_SHORT = Repr()  # neither deep nor long things are written out before they are cut
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 5, 40, 40, 20
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


class Rate(IntEnum):
    """How often a value changes: the highest rate of its operands, never declared."""

    WEIGHTS = 0
    SEQUENCE = 1
    INPUT = 2
    STATE = 3


class Written(str):
    """An option that was loaded as text: a function's name, or an initialiser as written."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class FunctionCall:
    """A value that people see as `function(args)`; with `index`, as that item of its results."""

    function: str
    args: tuple[Value, ...]
    index: int | None = None
    latex: str | None = None


class Listener(Protocol):
    """Notified of each new value: the tracer."""

    def created(self, value: Value) -> None:
        """Record a new value."""


listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def user_frame() -> FrameType | None:
    """The innermost stack frame outside this package and the array libraries: the user's own line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    return frame


def _is_ours(frame: FrameType) -> bool:
    library = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return library in ("numpy", "torch") or Path(frame.f_code.co_filename).parent == _HERE


def fail(message: str) -> NoReturn:
    """Raise an EquationError that points to the user's line."""
    frame = user_frame() if listener.get() is not None else None
    if frame is None:
        raise EquationError(message)
    raise EquationError(message, file=frame.f_code.co_filename, line=frame.f_lineno)


def _operator(op: str) -> Callable[[Value, Operand], Value]:
    return lambda self, other: pointwise(op, self, other)


def _reflected(op: str) -> Callable[[Value, Operand], Value]:
    return lambda self, other: pointwise(op, other, self)


class Value:
    """One value of a step: an operation on other values, or a leaf.

    `size` is nominal: ("H",) a vector of H units, (1,) a scalar that broadcasts, ("H", "I") a matrix. `rate` says how
    often the value changes. `attrs` holds what JSON can hold. Arithmetic on values makes new values.
    """

    __slots__ = ("args", "attrs", "call", "file", "legend", "line", "name", "op", "order", "rate", "size", "version")

    def __init__(
        self, op: str, args: tuple[Value, ...] = (), size: Size = SCALAR, rate: Rate | None = None, **attrs: Any
    ) -> None:
        self.op, self.args, self.size, self.attrs = op, args, size, attrs
        self.rate: Rate = max((a.rate for a in args), default=Rate.WEIGHTS) if rate is None else rate
        self.name: str | None = None
        self.version = 0
        self.file: str | None = None
        self.line: int | None = None
        self.legend: str | None = None
        self.call: FunctionCall | None = None
        self.order = next(_order)
        watcher = listener.get()
        if watcher is not None:
            watcher.created(self)

    @property
    def label(self) -> str | None:
        """The printed name: `i`, `i.net`, or `s~1` for an earlier version of a name bound again."""
        return self.name if self.name is None or not self.version else f"{self.name}~{self.version}"

    @property
    def is_leaf(self) -> bool:
        """Whether the value is given rather than computed."""
        return self.op in LEAVES

    @property
    def T(self) -> Value:  # noqa: N802 - as it is written on paper
        """The transpose of a matrix of weights."""
        return transpose(self)

    def __deepcopy__(self, memo: object) -> Value:
        return self

    def __repr__(self) -> str:
        return f"<{self.label or self.op}: {show_size(self.size)}, {self.rate.name.lower()}>"

    __add__, __radd__ = _operator("add"), _reflected("add")
    __sub__, __rsub__ = _operator("sub"), _reflected("sub")
    __mul__, __rmul__ = _operator("mul"), _reflected("mul")
    __truediv__, __rtruediv__ = _operator("div"), _reflected("div")
    __pow__, __rpow__ = _operator("pow"), _reflected("pow")
    __mod__, __rmod__ = _operator("mod"), _reflected("mod")
    __lt__, __le__, __gt__, __ge__ = _operator("lt"), _operator("le"), _operator("gt"), _operator("ge")

    def __neg__(self) -> Value:
        return pointwise("neg", self)

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return pointwise("abs", self)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return pointwise("eq", self, other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return pointwise("ne", self, other)

    __hash__ = object.__hash__

    def __matmul__(self, other: Operand) -> Value:
        return matrix_product(self, lift(other))

    def __rmatmul__(self, other: Operand) -> Value:
        return matrix_product(lift(other), self)

    def __getitem__(self, *_: object) -> NoReturn:
        fail(
            "a value of a cell has no items and no length, since an equation describes all units at once: for sums "
            "over units write total(v) or mean(v) (a state array is a Python list and has both)"
        )

    __iter__ = __len__ = __contains__ = __setitem__ = __delitem__ = __reversed__ = __getitem__

    if not TYPE_CHECKING:  # a type checker shall go on refusing unknown attributes

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            fail(refusal(f".{name}"))

    def __bool__(self) -> NoReturn:
        fail(
            "a value of a cell is neither true nor false while the equations are read: "
            "for 'if' write where(condition, a, b); for 'and' multiply the conditions; for 'a < b < c' write "
            "(a < b) * (b < c); for max() and min() write maximum(a, b) and minimum(a, b)"
        )

    def __float__(self) -> NoReturn:
        fail(
            "a value of a cell is not a number while the equations are read: "
            "instead of math.exp, float() and the like use the words of tidegate.equations (exp, log, sqrt, ...)"
        )

    __int__ = __index__ = __complex__ = __trunc__ = __float__

    def __round__(self, *_: object) -> NoReturn:
        fail("a value of a cell cannot be rounded by round(): write floor(v + 0.5)")

    def __floordiv__(self, _: object) -> NoReturn:
        fail(
            "a value of a cell has no // and no divmod(): write floor(a / b) for the quotient, a % b for the remainder"
        )

    __rfloordiv__ = __divmod__ = __rdivmod__ = __floordiv__

    def __and__(self, _: object) -> NoReturn:
        fail(
            "conditions of a cell are 1 or 0 and have no &, | and ~: write a * b for 'a and b', maximum(a, b) for "
            "'a or b', and 1 - a for 'not a'"
        )

    __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __and__

    def __invert__(self) -> NoReturn:
        self.__and__(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Value:
        if method == "__call__" and ufunc.__name__ in NUMPY_OPERATORS and not isinstance(inputs[0], Value):
            return pointwise(NUMPY_OPERATORS[ufunc.__name__], *inputs)  # a numpy number stands on the left
        fail(refusal(f"numpy.{ufunc.__name__}"))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        fail("a value of a cell cannot become a numpy array: use the words of tidegate.equations instead")

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any, **__: Any) -> NoReturn:
        fail(refusal(f"torch.{function.__name__}"))


Operand = Union[Value, int, float]  # noqa: UP007 - a run-time alias

NUMPY_OPERATORS = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow"}
NUMPY_OPERATORS |= {"remainder": "mod", "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"}
NUMPY_OPERATORS |= {"equal": "eq", "not_equal": "ne"}


def show_size(size: Size) -> str:
    """A size as text: `H`, `1`, `H x I`."""
    return " x ".join(map(str, size)) if size else "any"


def constant(value: float, name: str | None = None) -> Value:
    """A number; with a name, an option of the cell, which prints by its name."""
    number = finite(value)
    if number is None:
        fail(f"a constant must be a finite number, got {shown(value)}: use a large number such as 1e9")
    return Value("constant", **({"value": number} if name is None else {"value": number, "name": name}))


def finite(number: object) -> float | None:
    """A finite number as a float; None for anything else, including True and False."""
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        return None
    try:
        value = float(number)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def whole(number: object) -> int | None:
    """A whole number as an int, numpy's included; None for anything else, including True and False."""
    return int(number) if isinstance(number, numbers.Integral) and not isinstance(number, bool) else None


def lift(operand: object) -> Value:
    """Convert an operand to a value: values stay, numbers become constants, anything else is an error."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, numbers.Real) and not isinstance(operand, bool):
        return constant(operand)  # type: ignore[arg-type]
    fail(
        f"{shown(operand)} of type {type(operand).__name__} cannot be used in an equation: values are numbers, inputs, "
        "states, weights and what is computed from them"
    )


def shown(thing: object) -> str:
    """A value as error messages show it: a function's name, else the repr, on one line and not too long."""
    if isinstance(thing, type | FunctionType):
        return f"{'the class' if isinstance(thing, type) else 'the function'} {thing.__name__}"
    try:
        text = " ".join(_SHORT.repr(thing).split())
    except ValueError:  # a whole number of more digits than Python writes
        return f"{type_of(thing)} that is too long to show"
    return text if len(text) <= 80 else text[:77] + "..."


def join(a: Size, b: Size) -> Size:
    """The common size of unit-by-unit operands: equal letters, or a scalar with anything."""
    if a == b or b in (SCALAR, SHAPELESS):
        return a if a != SHAPELESS else b
    if a in (SCALAR, SHAPELESS):
        return b
    fail(
        f"sizes differ: one operand is {show_size(a)}, the other {show_size(b)}; sizes are equal only if they are the "
        "same letter (a product such as linear(...) or matrix(...) @ v changes a size; declare a size in the header, "
        "as in inputs='x:H')"
    )


def pointwise(op: str, *operands: object) -> Value:
    """A unit-by-unit operation."""
    args = tuple(lift(o) for o in operands)
    size: Size = SHAPELESS
    for a in args:
        size = join(size, a.size)
    return Value(op, args, size)


def matrix_product(left: Value, right: Value) -> Value:
    """`M @ v` in the step, `M @ N` among weights only."""
    if len(left.size) != 2:
        way = "write the matrix first, as in matrix(...) @ v" if len(right.size) == 2 else "write matrix(...) @ v"
        fail(
            f"the left side of @ must be a matrix of weights, got {show_size(left.size)}: {way}, or for the inner "
            "product of two vectors total(a * b)"
        )
    if left.rate != Rate.WEIGHTS:
        fail("the left side of @ must be computed from weights only: matrix states are not part of the language yet")
    rows, columns = left.size
    if columns != right.size[0]:
        fail(
            f"the matrix has {columns} columns, but what it multiplies has {right.size[0]} rows: they must be the same "
            "letter, so declare the matrix with these, as in matrix(name, rows='H', cols='I')"
        )
    if len(right.size) == 2:
        if right.rate != Rate.WEIGHTS:
            fail("a product of two matrices is for weights only: matrix states are not part of the language yet")
        return Value("matmul", (left, right), (rows, right.size[1]))
    return Value("product", (left, right), (rows,))


def products(value: Value) -> list[tuple[Value, Value]]:
    """The (matrix, vector) pairs that a linear or product multiplies; empty for other values."""
    count = len(value.attrs["labels"]) if value.op == "linear" else int(value.op == "product")
    return [(value.args[2 * k], value.args[2 * k + 1]) for k in range(count)]


def transpose(matrix: Value) -> Value:
    """The transpose of a matrix of weights."""
    if len(matrix.size) != 2:
        fail(f".T is for a matrix of weights, got {show_size(matrix.size)}: a vector needs no transpose")
    return Value("transpose", (matrix,), matrix.size[::-1], **_blocks(matrix))


def _blocks(matrix: Value) -> dict[str, Any]:
    return {"blocks": matrix.attrs["blocks"]} if "blocks" in matrix.attrs else {}


def starts_matrices(value: Value) -> bool:
    """Whether an initial value makes sense for matrices only."""
    return value.op in ("orthogonal", "identity") or value.attrs.get("axis") == 1


def walk(roots: Iterable[Value], *, shown: bool = False) -> list[Value]:
    """Everything that the roots depend on, operands first, in the order in which it was written.

    With `shown`, also what they are shown with: the arguments of calls.
    """
    seen: set[Value] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack.extend((*value.args, *value.call.args) if shown and value.call else value.args)
    return sorted(seen, key=lambda v: v.order)
