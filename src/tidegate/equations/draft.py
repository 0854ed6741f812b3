"""`Draft`: a graph that is being rewritten, which transforms of cells edit."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tidegate.equations.graph import Graph, Input
from tidegate.equations.names import check_name, check_weight_name
from tidegate.equations.rewrite import copied
from tidegate.equations.values import FunctionCall, Rate, Size, Value, constant, products, walk
from tidegate.equations.verify import verify, verify_derivatives, verify_reads
from tidegate.equations.weights import glorot
from tidegate.errors import EquationError

OfArgs = Callable[[tuple[Value, ...]], Value]
OfValue = Callable[[Value], Value]


class Draft:
    """Edits of a graph, `source_graph`, which `graph` applies all at once.

    What is asked for by `old`, `option`, `mask` and `weight` are values of the new graph, to be used in edits; edits
    speak of values of the old one.
    """

    def __init__(self, source_graph: Graph, name: str, source: str) -> None:
        self.source_graph, self.name, self.source = source_graph, name, source
        self._inputs, self._states = list(source_graph.inputs), {s.name: s for s in source_graph.states}
        self._weights, self._inits = dict(source_graph.weights), dict(source_graph.inits)
        self._masks, self._options = dict(source_graph.masks), dict(source_graph.options)
        self._old, self._symbols = dict(source_graph.old), dict(source_graph.symbols)
        self._instead: dict[Value, OfArgs] = {}
        self._replaced: dict[Value, Callable[[], Value]] = {}
        self._after: dict[Value, list[OfValue]] = {}
        self._needs: dict[Value, list[Value]] = {}
        self._read: dict[Value, tuple[Value, tuple[str, ...] | None]] = {}
        self._of_state: dict[str, list[OfValue]] = {}
        self._new: dict[Value, Value] = {}

    # values of the new graph

    def option(self, name: str, value: float) -> Value:
        """A number option of the cell, which prints by its name."""
        self._options[name] = value
        return constant(value, name)

    def old(self, state: str) -> Value:
        """A state before the step."""
        if state not in self._old:
            declared = self._states[state]
            self._old[state] = _leaf("old", state, declared.size, Rate.STATE)
        return self._old[state]

    def mask(self, name: str, size: Size, chance: Value, rate: Rate, symbol: str) -> Value:
        """An input of ones, with this probability, and zeros; `symbol` is its LaTeX."""
        self._symbols[name] = symbol
        self._refuse_taken(check_name(name, "the name of a mask"))
        self._inputs.append(Input(name, size, rate))
        self._masks[name] = chance
        return _leaf("input", name, size, rate)

    def weight(
        self, name: str, size: Size, init: Value, *, learn: bool = True, mask: bool = False, blocks: int | None = None
    ) -> Value:
        """A weight; as a mask, one that is drawn at each call, whose initial value is the probability of a one."""
        self._refuse_taken(check_weight_name(name))
        more = {} if blocks is None else {"blocks": blocks}
        self._weights[name] = found = _leaf("weight", name, size, Rate.WEIGHTS, learn=learn, **more)
        self._inits[name] = init
        if mask:
            self._masks[name] = init
        return found

    def linear(self, name: str, terms: Mapping[str, Value], size: Size) -> Value:
        """A sum of products with new matrices, without a bias."""
        args: list[Value] = []
        for label, vector in terms.items():
            args += [self.weight(f"{name}.{label}", (*size, *vector.size), glorot()), vector]
        return Value("linear", tuple(args), size, linear=name, labels=list(terms), bias=False)

    def _refuse_taken(self, name: str) -> None:
        if name in self._weights or name in self._states or name in [i.name for i in self._inputs]:
            raise EquationError(
                f"cell {self.source_graph.name!r} already has {name!r}: this transform, or another that uses "
                "the name, was applied before"
            )

    def named(self, name: str, value: Value) -> Value:
        """Give a new value a name."""
        value.name = check_name(name, "the name of a value")
        return value

    def shown_as(self, function: str, latex: str, argument: Value, value: Value) -> Value:
        """A new value that people see as a function of another."""
        value.call = FunctionCall(function, (argument,), None, latex)
        return value

    def with_legend(self, legend: str, value: Value) -> Value:
        """Give a new value its legend."""
        value.legend = legend
        return value

    def now(self, value: Value) -> Value:
        """The value that replaces a value of the old graph; an edit that asks for it lists it in `needs`."""
        return self._new.get(value, value)

    # edits

    def instead(self, value: Value, make: OfArgs) -> None:
        """Replace a value by another computed from the same operands."""
        self._instead[value] = make

    def replace(self, value: Value, make: Callable[[], Value], needs: Iterable[Value] = ()) -> None:
        """Replace a value by one that does not use it."""
        self._replaced[value] = make
        self._needs.setdefault(value, []).extend(needs)

    def after(self, value: Value, make: OfValue, needs: Iterable[Value] = ()) -> None:
        """Replace a value by one computed from it, wherever it is read."""
        self._after.setdefault(value, []).append(make)
        self._needs.setdefault(value, []).extend(needs)

    def read(self, value: Value, as_this: Value, by: tuple[str, ...] | None = None) -> None:
        """Let all operations, or these, read another value in place of a given one."""
        self._read[value] = as_this, by

    def state(self, name: str, make: OfValue) -> None:
        """Replace what is carried by a value computed from it; within the step the value stays."""
        self._of_state.setdefault(name, []).append(make)

    def resize(self, state: str, size: Size) -> None:
        """Give another size to a state that only linears read, and to the matrices that multiply it."""
        before = self._old[state]
        self._states[state] = replace(self._states[state], size=size)
        self._old[state] = now = _leaf("old", state, size, Rate.STATE)
        self._read[before] = now, None
        for value in self.source_graph.values:
            for matrix, vector in products(value):
                if vector is before:
                    name = matrix.attrs["name"]
                    attrs = {k: v for k, v in matrix.attrs.items() if k != "name"}
                    self._weights[name] = _leaf("weight", name, (matrix.size[0], *size), Rate.WEIGHTS, **attrs)
                    self._read[matrix] = self._weights[name], None

    # the result

    def graph(self) -> Graph:
        """The graph with all edits applied and checked."""
        source = self.source_graph
        for value in self._ordered():
            self._new[value] = self._made(value)
        new = {name: self._carried(name, self._new[v]) for name, v in source.new.items()}
        output = new[source.output_name] if source.output_name in new else self._new[source.output]
        roots = [output, *new.values()]
        kept = self._kept_weights(roots)
        found = replace(
            source,
            name=check_name(self.name, "the name of a cell"),
            source=self.source,
            options=self._kept_options(roots, kept),
            symbols=self._symbols,
            inputs=tuple(self._inputs),
            states=tuple(self._states.values()),
            output=output,
            new=new,
            weights={n: self._weights[n] for n in kept},
            inits={n: self._inits[n] for n in kept},
            masks=self._masks,
        )
        verify(found)
        verify_reads(found)
        verify_derivatives(found)
        return found

    def _ordered(self) -> list[Value]:
        """The old graph's values, in the order in which they were written as far as edits allow."""
        found: dict[Value, None] = {}
        for value in self.source_graph.values:
            stack = [value]
            while stack:
                top = stack[-1]
                own = () if top in self._replaced else top.args
                missing = [v for v in (*own, *self._needs.get(top, ())) if v not in found]
                if top in found or not missing:
                    found.setdefault(stack.pop())
                else:
                    stack += sorted(missing, key=lambda v: -v.order)
        return list(found)

    def _made(self, value: Value) -> Value:
        if value.is_leaf:
            return value
        if value in self._replaced:
            result = _described(self._replaced[value](), value)
        else:
            args = tuple(self._as_read(value, a) for a in value.args)
            make = self._instead.get(value)
            result = _described(self._copied(value, args) if make is None else make(args), value)
        for make_after in self._after.get(value, ()):
            result.name, result.version, result.legend = None, 0, None
            result = _described(make_after(result), value)
        return result

    def _as_read(self, reader: Value, value: Value) -> Value:
        instead, by = self._read.get(value, (None, None))
        if instead is not None and (by is None or reader.op in by):
            return instead
        return self._new[value]

    def _copied(self, value: Value, args: tuple[Value, ...]) -> Value:
        """The operation on its new operands; a factor that has become 1 is omitted."""
        others = [a for a in args if a.op != "constant" or a.attrs != {"value": 1.0}]
        became = not any(a.op == "constant" for a in value.args)
        if value.op == "mul" and became and len(others) == 1 and others[0].size == value.size:
            return others[0]
        copy = copied(value, args)
        if value.call is not None:
            copy.call = replace(value.call, args=tuple(self._new.get(a, a) for a in value.call.args))
        return copy

    def _carried(self, state: str, value: Value) -> Value:
        for make in self._of_state.get(state, ()):
            result = make(value)
            if value.name == state and not value.is_leaf:
                others = [v.version for v in (*self._new.values(), value) if v.name == state]
                value.version = 1 + max(others)
            result.name, result.legend = state, value.legend
            value = result
        return value

    def _kept_weights(self, roots: list[Value]) -> list[str]:
        used = set(walk(roots, shown=True))
        kept: set[str] = set()
        for name in reversed(self._weights):
            if self._weights[name] in used:
                kept.add(name)
                used |= set(walk([self._inits[name]]))
        return [n for n in self._weights if n in kept]

    def _kept_options(self, roots: list[Value], kept: list[str]) -> dict[str, object]:
        """The options that something still reads."""
        everything = walk([*roots, *(self._inits[n] for n in kept), *self._masks.values()], shown=True)
        read = {v.attrs["name"] for v in everything if v.op == "constant" and "name" in v.attrs}
        return {k: v for k, v in self._options.items() if not isinstance(v, float) or k in read}


def _leaf(op: str, name: str, size: Size, rate: Rate, **attrs: object) -> Value:
    leaf = Value(op, (), size, rate, name=name, **attrs)
    leaf.name = name
    return leaf


def _described(value: Value, like: Value) -> Value:
    """A value with the name, legend and place of another, where it has none of its own."""
    if value.is_leaf or value.name is not None:
        return value
    value.name, value.version, value.legend = like.name, like.version, value.legend or like.legend
    value.file, value.line = like.file, like.line
    return value
