"""Checks that hold for every graph, whether traced, derived or loaded."""

import warnings
from collections.abc import Iterable

from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS
from tidegate.equations.values import (
    INITIALISERS,
    LEAVES,
    SCALAR,
    SHAPELESS,
    Rate,
    Size,
    Value,
    show_size,
    starts_matrices,
    walk,
)
from tidegate.errors import EquationError, TidegateNotice

MAX_VALUES, MAX_STATES, MAX_NESTING = 4096, 64, 100
LARGEST = (2 - 2**-23) * 2.0**127  # of float32
STEP_LEAVES = LEAVES - {"seed"}


def verify(graph: Graph) -> None:
    """Raise EquationError unless every value is valid: a known op, its arity, sizes and rate; initial values
    separately."""
    everything = walk([*graph.roots, *graph.weights.values(), *graph.inits.values()], shown=True)
    if len(everything) > MAX_VALUES:
        _refuse(graph, f"has {len(everything)} values, more than {MAX_VALUES}")
    if len(graph.states) > MAX_STATES:
        _refuse(graph, f"has {len(graph.states)} states, more than {MAX_STATES}")
    _verify_leaves(graph, everything)
    _verify_nesting(graph, everything)
    for value in everything:
        _verify_value(graph, value)
    for value in graph.values:
        _verify_step_value(graph, value)
    for value in everything:
        if value.op != "concat" and any("+" in str(part) for part in value.size):
            known = show_size(value.size)
            _refuse(graph, f"has a {value.op!r} of {known}, a size that only a concatenation may have", value)
    if len(graph.output.size) != 1 or graph.output.rate == Rate.WEIGHTS:
        _refuse(graph, "must give an output that is a vector and depends on inputs or states", graph.output)
    _verify_labels(graph)
    for state in graph.states:
        size = graph.new[state.name].size
        if size not in (state.size, SCALAR):
            _refuse(graph, f"gives state {state.name!r} of size {show_size(state.size)} a value of {show_size(size)}")
        if abs(state.start) > LARGEST:
            _refuse(graph, f"starts state {state.name!r} at {state.start:g}, which is beyond float32 ({LARGEST:g})")
    for name, init in graph.inits.items():
        _verify_init(graph, name, init)
    for name, chance in graph.masks.items():
        _verify_mask(graph, name, chance)


def _verify_leaves(graph: Graph, everything: list[Value]) -> None:
    """Check that each input, state and weight is a single leaf of this graph."""
    given = [v for v in everything if v.op in ("input", "old", "weight")]
    declared = {("input", i.name) for i in graph.inputs} | {("old", s.name) for s in graph.states}
    own = {(v.op, v.attrs["name"]): v for v in given if (v.op, v.attrs["name"]) in declared}  # the last is the newest
    own |= {("weight", name): w for name, w in graph.weights.items()}
    for value in given:
        if own.get((value.op, value.attrs["name"])) is not value:
            user = next((v for v in everything if any(a is value for a in v.args)), None)
            _refuse(
                graph,
                f"uses {value.attrs['name']!r} of another cell: declare it anew inside this cell's function",
                user,
            )


def _verify_nesting(graph: Graph, everything: list[Value]) -> None:
    """Refuse deep nesting: unnamed values are written out inside their users, which nobody could read."""
    depth: dict[Value, int] = {}
    for value in everything:
        shown = value.call.args if value.call else value.args
        depth[value] = 1 + max((0 if a.label else depth[a] for a in shown), default=0)
        if depth[value] > MAX_NESTING:
            _refuse(
                graph,
                f"nests more than {MAX_NESTING} operations without a name: assign intermediate results to "
                "variables of the cell's function, or name them with named(...)",
                value,
            )


def _verify_labels(graph: Graph) -> None:
    seen: set[str] = set()
    for value in graph.values:
        if value.label is not None and not value.is_leaf:
            if value.label in seen:
                _refuse(graph, f"has two values called {value.label!r}", value)
            seen.add(value.label)


def _verify_value(graph: Graph, value: Value) -> None:
    if value.op not in OPS and value.op not in STEP_LEAVES:
        _refuse(graph, f"uses the unknown operation {value.op!r}", value)
    row = OPS.get(value.op)
    if row is None and value.args:
        _refuse(graph, f"gives {value.op!r} operands, but it takes none", value)
    if row is not None and row.arity is not None and row.arity != len(value.args):
        _refuse(graph, f"gives {value.op!r} {len(value.args)} operands, but it takes {row.arity}", value)
    wanted = expected_size(value)
    if value.args and value.rate != max(a.rate for a in value.args):
        _refuse(
            graph, f"has a {value.op!r} of rate {value.rate.name.lower()}, which is not that of its operands", value
        )
    if wanted is not None and wanted != value.size:
        _refuse(graph, f"has a {value.op!r} of {show_size(value.size)}, but it must be {show_size(wanted)}", value)


def expected_size(value: Value) -> Size | None:
    """The size that follows from the operands; None where it is declared."""
    row = OPS.get(value.op)
    if row is None:
        return SCALAR if value.op == "constant" else None
    if row.kind == "initial":
        return None
    if row.kind == "pointwise":
        sizes = [a.size for a in value.args if a.size not in (SCALAR, SHAPELESS)]
        if any(s != sizes[0] for s in sizes):
            return SHAPELESS
        return sizes[0] if sizes else max((a.size for a in value.args), key=len)
    return _structural_size(value)


def _structural_size(value: Value) -> Size | None:
    args = value.args
    if value.op == "linear":
        pairs = range(len(value.attrs["labels"]))
        bias = [value.size] * bool(value.attrs["bias"])
        if len(value.size) != 1:
            return SCALAR
        sound = len(args) == 2 * len(pairs) + len(bias)
        sound = sound and [a.size for a in args[2 * len(pairs) :]] == bias
        sound = sound and all(args[2 * k].size == (*value.size, *args[2 * k + 1].size) for k in pairs)
        return value.size if sound else SHAPELESS
    if value.op == "product":
        return args[0].size[:1] if args[0].size[1:] == args[1].size else SHAPELESS
    if value.op == "matmul":
        return (args[0].size[0], args[1].size[-1]) if args[0].size[-1] == args[1].size[0] else SHAPELESS
    if value.op == "transpose":
        return args[0].size[::-1]
    if value.op == "concat":
        return ("+".join(str(a.size[0]) for a in args),)
    if value.op in ("total", "spread"):
        return value.size if len(value.size) == 1 else SCALAR
    return SCALAR if value.op == "mean" else None


def _verify_step_value(graph: Graph, value: Value) -> None:
    if value.op in INITIALISERS:
        _refuse(graph, f"uses {value.op}() in its step, but it is for init= and bias= only", value)
    row = OPS.get(value.op)
    if row is not None and row.kind == "vjp":
        _refuse(graph, f"uses {value.op!r}, which belongs to derivatives only", value)
    if len(value.size) == 2 and value.rate > Rate.WEIGHTS:
        _refuse(graph, "computes a matrix within the step: matrix states are not part of the language yet", value)
    if any(a.op == "concat" for a in value.args) or (value.op == "concat" and value is not graph.output):
        _refuse(
            graph,
            "uses concat(...) within the step, but it is for the output only: give a linear its vectors one by one, "
            "as in linear(name, x, c=c)",
            value,
        )


def _verify_init(graph: Graph, name: str, init: Value) -> None:
    names, size = list(graph.weights), graph.weights[name].size
    if init.size not in (SHAPELESS, SCALAR, size):
        _refuse(
            graph, f"initialises weight {name!r} of size {show_size(size)} with a value of {show_size(init.size)}", init
        )
    for value in walk([init]):
        if value.op in INITIALISERS and (value.size != SHAPELESS or any(a.size != SCALAR for a in value.args)):
            _refuse(graph, f"initialises weight {name!r} with {value.op!r} of something other than numbers", value)
        if len(size) == 1 and starts_matrices(value):
            _refuse(graph, f"initialises the vector {name!r} with {value.op!r}, which is for matrices", value)
        if value.rate != Rate.WEIGHTS or value.op in ("linear", "product"):
            _refuse(
                graph,
                f"initialises weight {name!r} with {value.op!r}: an initial value may use numbers, initialisers and "
                "weights declared before, but no products",
                value,
            )
        if value.op == "weight" and names.index(value.attrs["name"]) >= names.index(name):
            _refuse(
                graph,
                f"initialises weight {name!r} with {value.attrs['name']!r}, which must be declared before it",
                value,
            )


def _verify_mask(graph: Graph, name: str, chance: Value) -> None:
    weight = graph.weights.get(name)
    if name not in [i.name for i in graph.inputs[1:]] and (weight is None or weight.attrs["learn"]):
        _refuse(graph, f"draws {name!r}, which is neither an input after the first nor a weight that is not learned")
    if chance.size != SCALAR or any(v.op not in ("constant", "add", "sub", "mul") for v in walk([chance])):
        _refuse(graph, f"draws {name!r} with a probability that is not computed from numbers", chance)


def verify_reads(graph: Graph) -> None:
    """Raise EquationError for a weight, old state or input that is never read."""
    used = set(graph.values) | set(walk(graph.inits.values()))
    unused = [n for n, w in graph.weights.items() if w not in used]
    if unused:
        _refuse(graph, f"never uses the weights {', '.join(map(repr, unused))}: use them, or remove them")
    unread = [s.name for s in graph.states if s.name not in graph.old]
    if unread:
        _refuse(
            graph,
            f"never reads the states {', '.join(map(repr, unread))}: use them, or remove them from states=",
        )
    unseen = [i.name for i in graph.inputs if i.name not in graph.input_values]
    if unseen:
        _refuse(
            graph, f"never reads the inputs {', '.join(map(repr, unseen))}: use them, or remove them from the function"
        )


def verify_derivatives(graph: Graph) -> None:
    """Warn where `where` hides an unbounded derivative: 0 times infinity is NaN in the backward pass."""
    for value in graph.values:
        if value.op != "where":
            continue
        culprit = next((v for v in _unguarded(value.args[1:]) if _hazard(v)), None)
        if culprit is not None:
            warnings.warn_explicit(
                f"cell {graph.name!r}: where(...) selects values but does not protect derivatives: {culprit.op!r} in a "
                "branch may have an infinite derivative where the branch is not taken, which makes the gradient NaN; "
                "guard its argument, as in log(maximum(v, 1e-6))",
                TidegateNotice,
                value.file or "<graph>",
                value.line or 0,
            )


def _unguarded(branches: Iterable[Value]) -> list[Value]:
    found: list[Value] = []
    stack = list(branches)
    while stack:
        value = stack.pop()
        row = OPS.get(value.op)
        if row is not None and row.kind == "pointwise" and value.op not in ("where", "stop"):
            found.append(value)
            stack.extend(value.args)
    return found


def _hazard(value: Value) -> bool:
    if not OPS[value.op].unbounded or value.rate == Rate.WEIGHTS:
        return False
    if value.op == "div":
        return value.args[1].rate > Rate.WEIGHTS and not _guarded(value.args[1])
    if value.op == "pow":
        exponent = value.args[1]
        whole = exponent.op == "constant" and exponent.attrs["value"] >= 1 and exponent.attrs["value"] % 1 == 0
        return not whole and not _guarded(value.args[0])
    return not _guarded(value.args[0])


def _guarded(argument: Value) -> bool:
    if argument.op == "neg":
        return _guarded(argument.args[0])
    return argument.op in ("maximum", "minimum", "where", "sigmoid", "tanh", "softplus", "relu", "sin", "cos", "mod")


def _refuse(graph: Graph, complaint: str, value: Value | None = None) -> None:
    place = {} if value is None or value.file is None else {"file": value.file, "line": value.line}
    raise EquationError(f"cell {graph.name!r} {complaint}", **place)  # type: ignore[arg-type]
