"""Transforms: functions that edit the equations of a cell and return a new cell.

Their strengths are options of the new cell, `zoneout(lstm, 0.1)(zoneout=0.2)`, and transforms compose. Random values
are *masks* of the graph: inputs or weights that a layer draws in training and replaces by their mean elsewhere.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

from tidegate.equations.cell import Cell
from tidegate.equations.draft import Draft
from tidegate.equations.functions import hard_sigmoid, hard_tanh
from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value, constant, finite, products, shown, walk
from tidegate.equations.words import clip_gradient, maximum, mean, minimum, sqrt
from tidegate.errors import ArgumentError

Strengths = Mapping[str, Value]
HARD: Mapping[str, Callable[[Value], Value]] = {"sigmoid": hard_sigmoid, "tanh": hard_tanh}


def _transformed(
    cell: Cell, word: str, source: str, own: Mapping[str, float], build: Callable[[Draft, Strengths], None]
) -> Cell:
    """The cell whose graph `build` derives from that of `cell`, with `own` as additional options."""
    taken = [name for name in own if name in cell.options]
    if taken:
        raise ArgumentError(f"cell {cell.name!r} already has an option {taken[0]!r}: {word} was applied to it before")

    def define(options: Mapping[str, Any]) -> Graph:
        inner = {name: value for name, value in options.items() if name not in own}
        base = cell if inner == dict(cell.options) else cell(**inner)
        draft = Draft(base.graph, f"{base.name}_{word}", "; ".join(filter(None, (base.source, source))))
        build(draft, {name: draft.option(name, float(options[name])) for name in own})
        return draft.graph()

    return Cell(define({**cell.options, **{name: float(value) for name, value in own.items()}}), define)


def _probability(word: str, p: object, *, below_one: bool = True) -> float:
    most = "below 1" if below_one else "at most 1"
    number = finite(p)
    if number is None or not 0.0 <= number <= 1.0 or (below_one and number == 1.0):
        raise ArgumentError(f"{word} takes a probability of at least 0 and {most}, got {shown(p)}")
    return number


def _positive(word: str, limit: object) -> float:
    number = finite(limit)
    if number is None or number <= 0.0:
        raise ArgumentError(f"{word} takes a finite limit above 0, got {shown(limit)}")
    return number


def _states(cell: Cell, word: str, names: Iterable[str] | None) -> list[str]:
    """The named states of a cell; without names, all except bookkeeping states."""
    plain = [s.name for s in cell.graph.states if not s.bookkeeping]
    return plain if names is None else _chosen(cell, word, "states", plain, names)


def _chosen(cell: Cell, word: str, what: str, known: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names as a list. Raises ArgumentError if there are none, or one is unknown."""
    chosen = [names] if isinstance(names, str) else list(names)
    wrong = [n for n in chosen if n not in known]
    if wrong or not chosen:
        found = shown(wrong[0]) if wrong else "none"
        raise ArgumentError(f"{word}: cell {cell.name!r} has the {what} {', '.join(known) or '(none)'}, got {found}")
    return chosen


def _named(cell: Cell, word: str, name: object) -> Value:
    """The cell's value with this name."""
    found = cell.graph.named.get(str(name))
    if found is None or not isinstance(name, str):
        known = ", ".join(n for n in cell.graph.named if not n.endswith(".net"))
        raise ArgumentError(f"{word}: cell {cell.name!r} computes no {shown(name)}; it has {known}")
    return found


def _linears(cell: Cell, word: str, names: Iterable[str] | None) -> list[str]:
    """The named linears of a cell; without names, those of several units."""
    every = {v.attrs["linear"]: v for v in cell.graph.values if v.op == "linear"}
    usual = [n for n, v in every.items() if v.size != (1,)]
    return _chosen(cell, word, "linears", every, usual if names is None else names)


def zoneout(cell: Cell, p: float | None = None, **by_state: float) -> Cell:
    """Randomly keep the old value of a unit (Krueger et al. 2016, arXiv:1606.01305, eqs. 5-6).

    `zoneout(cell, 0.1)` draws one mask per step for all states, `zoneout(lstm, c=0.5, h=0.05)` one for each named
    state. Bookkeeping states are not affected. Outside training each unit is the expected mix of old and new.
    """
    if (p is None) == (not by_state):
        raise ArgumentError("zoneout takes one probability, or one for each named state, as in c=0.5, h=0.05")
    chosen = _states(cell, "zoneout", by_state or None)
    of = {s: f"zoneout_{s}" if by_state else "zoneout" for s in chosen}
    own = {of[s]: _probability("zoneout", by_state[s] if by_state else p, below_one=False) for s in chosen}

    def build(draft: Draft, strengths: Strengths) -> None:
        old = {name: draft.old(name) for name in chosen}
        several = not by_state and len({v.size for v in old.values()}) > 1
        masks: dict[str, Value] = {}
        for name in chosen:
            mask = f"{of[name]}_mask" + (f"_{old[name].size[0]}" if several else "")
            if mask not in masks:
                symbol = f"d^{{{name}}}" if by_state else "d"
                masks[mask] = draft.mask(mask, old[name].size, strengths[of[name]], Rate.INPUT, symbol)
            draft.state(name, _kept(masks[mask], old[name]))

    return _transformed(cell, "zoneout", "zoneout: Krueger et al. 2016, arXiv:1606.01305", own, build)


def _kept(mask: Value, old: Value) -> Callable[[Value], Value]:
    return lambda new: mask * old + (1.0 - mask) * new


def recurrent_dropout(cell: Cell, p: float, on: str = "h", per: Literal["sequence", "step"] | None = None) -> Cell:
    """Dropout within the recurrence, scaled to keep the mean.

    On a state, elements are dropped where products read it, with one mask per sequence unless `per="step"` (Gal &
    Ghahramani 2016, arXiv:1512.05287, section 4). On a computed value such as the candidate `g`, elements of the value
    are dropped, with one mask per step unless `per="sequence"` (Semeniuta, Severyn & Barth 2016, arXiv:1603.05118, eq.
    7).
    """
    p = _probability("recurrent_dropout", p)
    of_state = on in [s.name for s in cell.graph.states]
    if not of_state:
        _named(cell, "recurrent_dropout", on)
    chosen = per or ("sequence" if of_state else "step")
    if chosen not in ("sequence", "step"):
        raise ArgumentError(f"recurrent_dropout: per must be 'sequence' or 'step', got {shown(per)}")
    rate = Rate.SEQUENCE if chosen == "sequence" else Rate.INPUT
    option = f"dropout_{on}"

    def build(draft: Draft, strengths: Strengths) -> None:
        keep = 1.0 - strengths[option]
        if of_state:
            old = draft.old(on)
            mask = draft.mask(f"dropout_{on}_mask", old.size, keep, rate, "m")
            dropped = draft.named(f"{on}_dropped", old * (mask / keep))
            draft.read(old, dropped, by=("linear", "product"))
        else:
            value = draft.source_graph.named[on]
            mask = draft.mask(f"dropout_{on}_mask", value.size, keep, rate, "m")
            draft.after(value, lambda new: new * (mask / keep))

    source = "arXiv:1512.05287" if of_state else "arXiv:1603.05118"
    who = "Gal & Ghahramani 2016" if of_state else "Semeniuta, Severyn & Barth 2016"
    return _transformed(cell, "dropout", f"recurrent dropout: {who}, {source}", {option: p}, build)


def weight_drop(cell: Cell, p: float) -> Cell:
    """Randomly drop elements of the recurrent matrices, once per call, scaled to keep the mean (Merity, Keskar & Socher
    2017, arXiv:1708.02182, section 2)."""
    p = _probability("weight_drop", p)

    def build(draft: Draft, strengths: Strengths) -> None:
        keep = 1.0 - strengths["weight_drop"]
        found = _recurrent_matrices(draft.source_graph)
        if not found:
            raise ArgumentError(f"weight_drop: cell {cell.name!r} multiplies no state by a matrix of weights")
        for matrix in found:
            mask = draft.weight(
                f"{matrix.attrs['name']}_mask",
                matrix.size,
                keep,
                learn=False,
                mask=True,
                blocks=matrix.attrs.get("blocks"),
            )
            draft.read(matrix, matrix * (mask / keep))

    return _transformed(
        cell, "weight_drop", "weight drop: Merity, Keskar & Socher 2017, arXiv:1708.02182", {"weight_drop": p}, build
    )


def _recurrent_matrices(graph: Graph) -> list[Value]:
    """The weight matrices that multiply an old state or a value computed from one."""
    pairs = (pair for value in graph.values for pair in products(value))
    return list(dict.fromkeys(m for m, v in pairs if v.rate == Rate.STATE and m.op == "weight"))


def layer_norm_gates(cell: Cell, linears: Iterable[str] | None = None) -> Cell:
    """Normalise each linear over its units and scale it by a gain that starts at 1; its bias becomes the shift
    (Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 4)."""
    chosen = _linears(cell, "layer_norm_gates", linears)

    def build(draft: Draft, strengths: Strengths) -> None:
        epsilon = strengths["norm_epsilon"]
        for value in draft.source_graph.values:
            if value.op == "linear" and value.attrs["linear"] in chosen:
                draft.instead(value, partial(_normalised, draft, value, epsilon))

    return _transformed(
        cell, "layer_norm", "gates normalised: Ba, Kiros & Hinton 2016, arXiv:1607.06450", {"norm_epsilon": 1e-5}, build
    )


def _normalised(draft: Draft, linear: Value, epsilon: Value, args: tuple[Value, ...]) -> Value:
    bias = args[-1:] if linear.attrs["bias"] else ()
    bare = Value("linear", args[: len(args) - len(bias)], linear.size, **{**linear.attrs, "bias": False})
    deviation = bare - mean(bare)
    normal = deviation / sqrt(mean(deviation * deviation) + epsilon)
    scaled = draft.shown_as("layer_norm", r"\operatorname{LN}", bare, normal)
    result = draft.weight(f"{linear.attrs['linear']}.gain", linear.size, constant(1.0)) * scaled
    return result + bias[0] if bias else result


def peepholes(cell: Cell, state: str = "c", gates: Iterable[str] | None = None) -> Cell:
    """Let gates read a state element-wise: its newest value that does not depend on the gate (Gers, Schraudolph &
    Schmidhuber 2002, jmlr.org/papers/v3/gers02a.html). By default, every named sigmoid is a gate."""
    (state,) = _states(cell, "peepholes", [state])
    named = [n for n, v in cell.graph.named.items() if v.op == "sigmoid" and not v.args[0].is_leaf]
    chosen = _chosen(cell, "peepholes", "gates", named, named if gates is None else gates)

    def build(draft: Draft, strengths: Strengths) -> None:
        graph = draft.source_graph
        new, old = graph.new[state], draft.old(state)
        behind = set(walk([new]))
        for name in chosen:
            gate = graph.named[name]
            seen = old if gate in behind else new
            weight = draft.weight(f"p_{name}", old.size, constant(0.0))
            draft.after(gate.args[0], partial(_peeping, draft, weight, seen), needs=() if seen.is_leaf else (seen,))

    return _transformed(cell, "peepholes", "peepholes: Gers, Schraudolph & Schmidhuber 2002", {}, build)


def _peeping(draft: Draft, weight: Value, seen: Value, net: Value) -> Value:
    return net + weight * draft.now(seen)


def couple(cell: Cell, gate: str = "i", to: str = "f", *, name: str | None = None, source: str | None = None) -> Cell:
    """Replace a gate by 1 minus another: `i = 1 - f` (Greff et al. 2015, arXiv:1503.04069, CIFG).

    `name` and `source` override those of the new cell.
    """
    first, second = _named(cell, "couple", gate), _named(cell, "couple", to)
    if first is second or first.size != second.size or first in set(walk([second])):
        raise ArgumentError(
            f"couple: {gate!r} of cell {cell.name!r} cannot be computed from {to!r}, which is the same gate, "
            "computed from it, or of another size"
        )

    def build(draft: Draft, strengths: Strengths) -> None:
        draft.name, draft.source = name or draft.name, source or draft.source
        one, other = (draft.source_graph.named[n] for n in (gate, to))
        draft.replace(one, lambda: draft.with_legend(f"what {to} leaves", 1.0 - draft.now(other)), needs=(other,))

    return _transformed(cell, "coupled", "coupled gates: Greff et al. 2015, arXiv:1503.04069", {}, build)


def projection(cell: Cell, state: str = "h", size: str = "P") -> Cell:
    """Project a state to another size before it is carried (Sak, Senior & Beaufays 2014, arXiv:1402.1128, eq. 6).
    Only products may read the state."""
    (state,) = _states(cell, "projection", [state])
    old = cell.graph.old[state]
    users = {v.op for v in cell.graph.values if any(a is old for a in v.args)}
    if users - {"linear"} or any(old is v for v in cell.graph.roots):
        raise ArgumentError(
            f"projection: cell {cell.name!r} reads state {state!r} unit by unit, so it cannot have another size"
        )
    if size in cell.graph.letters:
        raise ArgumentError(f"projection: size {size} is taken in cell {cell.name!r}: choose another letter")

    def build(draft: Draft, strengths: Strengths) -> None:
        draft.resize(state, (size,))
        draft.state(state, lambda new: draft.linear("p", {"m": new}, (size,)))

    source = "recurrent projection: Sak, Senior & Beaufays 2014, arXiv:1402.1128"
    return _transformed(cell, "projection", source, {}, build)


def residual(cell: Cell, state: str = "h") -> Cell:
    """Add to a state instead of replacing it (Yue, Fu & Liang 2018, doi:10.1007/978-3-030-04179-3, following He et al.
    2016)."""
    (state,) = _states(cell, "residual", [state])

    def build(draft: Draft, strengths: Strengths) -> None:
        old = draft.old(state)
        draft.state(state, lambda new: old + new)

    return _transformed(cell, "residual", "residual state", {}, build)


def leaky(cell: Cell, rate: float, states: Iterable[str] | None = None) -> Cell:
    """Leaky units: move states only a fraction `rate` of the way to their new values, which slows the dynamics down
    (Jaeger et al. 2007, doi:10.1016/j.neunet.2007.04.016, eq. 5; Tallec & Ollivier 2018, arXiv:1804.11188, eq. 6)."""
    own = {"rate": _probability("leaky", rate, below_one=False)}
    chosen = _states(cell, "leaky", states)

    def build(draft: Draft, strengths: Strengths) -> None:
        part = strengths["rate"]
        for name in chosen:
            draft.state(name, partial(_part_of_the_way, part, draft.old(name)))

    return _transformed(cell, "leaky", "leaky units: Jaeger et al. 2007, doi:10.1016/j.neunet.2007.04.016", own, build)


def _part_of_the_way(part: Value, old: Value, new: Value) -> Value:
    return old + part * (new - old)


def hard(cell: Cell) -> Cell:
    """Make sigmoids and tanhs piecewise linear: `hard_sigmoid`, `hard_tanh` (Courbariaux, Bengio & David 2015,
    arXiv:1511.00363, eq. 3)."""
    if not any(v.op in HARD for v in cell.graph.values):
        raise ArgumentError(f"hard: cell {cell.name!r} has neither sigmoid nor tanh")

    def build(draft: Draft, strengths: Strengths) -> None:
        for value in draft.source_graph.values:
            if value.op in HARD:
                draft.instead(value, partial(_applied, HARD[value.op]))

    return _transformed(cell, "hard", "hard activations: Courbariaux, Bengio & David 2015, arXiv:1511.00363", {}, build)


def _applied(function: Callable[[Value], Value], args: tuple[Value, ...]) -> Value:
    return function(args[0])


def clip_values(cell: Cell, limit: float, states: Iterable[str] | None = None) -> Cell:
    """Clip states to [-limit, limit], as speech recognisers do (Sak, Senior & Beaufays 2014, section 3.1)."""
    own = {"clip": _positive("clip_values", limit)}
    chosen = _states(cell, "clip_values", states)

    def build(draft: Draft, strengths: Strengths) -> None:
        bound = strengths["clip"]
        for name in chosen:
            draft.state(name, lambda new: minimum(maximum(new, -bound), bound))

    return _transformed(cell, "clipped", "", own, build)


def clip_gradients(cell: Cell, limit: float, states: Iterable[str] | None = None) -> Cell:
    """In the backward pass, clip the gradient that a step passes to its old states to [-limit, limit] (Graves 2013,
    arXiv:1308.0850, section 2.1, clips at the pre-activations)."""
    own = {"gradient_limit": _positive("clip_gradients", limit)}
    chosen = _states(cell, "clip_gradients", states)

    def build(draft: Draft, strengths: Strengths) -> None:
        for name in chosen:
            old = draft.old(name)
            draft.read(old, draft.named(f"{name}_clipped", clip_gradient(old, strengths["gradient_limit"])))

    return _transformed(cell, "gradient_clipped", "gradients clipped: Graves 2013, arXiv:1308.0850", own, build)


def variant(cell: Cell, name: str, source: str, **instead: float | str) -> Cell:
    """Replace named values: by a number (`i=1.0`, a gate that is always open), or by their argument (`g="identity"`).
    Weights that are no longer read are removed."""
    if not instead:
        raise ArgumentError(f"variant: no value of cell {cell.name!r} is replaced: name one, as in i=1.0")
    for key, by in instead.items():
        value = _named(cell, "variant", key)
        if by == "identity" and len(value.args) != 1:
            raise ArgumentError(f"variant: {key!r} of cell {cell.name!r} is not a function of one value")
        if by != "identity" and (isinstance(by, bool | str) or not isinstance(by, int | float)):
            raise ArgumentError(f"variant: {key!r} must be replaced by a number or by 'identity', got {shown(by)}")

    def build(draft: Draft, strengths: Strengths) -> None:
        draft.name, draft.source = name, source
        for key, by in instead.items():
            value = draft.source_graph.named[key]
            if by == "identity":
                draft.instead(value, partial(_without_activation, value))
            else:
                draft.replace(value, partial(constant, float(by)))

    return _transformed(cell, "variant", source, {}, build)


def _without_activation(value: Value, args: tuple[Value, ...]) -> Value:
    """The argument of an activation, under the activation's name."""
    (net,) = args
    if net.name == f"{value.name}.net":
        net.name, net.version, net.legend = value.name, value.version, value.legend
    return net
