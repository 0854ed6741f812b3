"""Rewrites graphs: a visitor gets each value with its new operands and returns its replacement."""

from collections.abc import Callable, Iterable, Sequence

from tidegate.equations.values import Value, walk

Visitor = Callable[[Value, tuple[Value, ...]], Value]


def with_args(value: Value, args: Sequence[Value]) -> Value:
    """The value itself if its operands are unchanged, else a copy with the new ones under the same name."""
    if len(args) == len(value.args) and all(a is b for a, b in zip(args, value.args, strict=True)):
        return value
    return copied(value, args)


def copied(value: Value, args: Sequence[Value]) -> Value:
    """A copy of the operation with these operands, under the same name."""
    rate = value.rate if not args else None
    copy = Value(value.op, tuple(args), value.size, rate, **value.attrs)
    copy.name, copy.version, copy.legend = value.name, value.version, value.legend
    copy.file, copy.line = value.file, value.line
    return copy


def rewrite(roots: Iterable[Value], visit: Visitor) -> dict[Value, Value]:
    """The replacement of each value that the roots depend on."""
    new: dict[Value, Value] = {}
    for value in walk(roots):
        new[value] = visit(value, tuple(new[a] for a in value.args))
    return new
