"""A graph as text: short and stable, one line per named value."""

from collections.abc import Mapping

from tidegate.equations.formats.latex import shown_args
from tidegate.equations.graph import Graph, StateVariable
from tidegate.equations.values import Rate, Value, Written, show_size

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "mod": "%"}
SIGNS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
NONE: Mapping[Value, str] = {}
STRENGTH = {"lt": 0, "le": 0, "gt": 0, "ge": 0, "eq": 0, "ne": 0, "add": 1, "sub": 1, "mul": 2, "div": 2, "mod": 2}


def print_graph(graph: Graph) -> str:
    """The header, the weights with their initial values, then one line per named value in the order written.

    A value without a name that is used more than once is numbered: `%1`.
    """
    lines = [f"cell {graph.name}", *([f"  source {graph.source}"] if graph.source else [])]
    if graph.options:
        lines.append("  options " + " ".join(f"{k}={option_text(v)}" for k, v in graph.options.items()))
    lines.append("  inputs " + " ".join(f"{i.name}:{show_size(i.size)}{_sequence(i.rate)}" for i in graph.inputs))
    lines.append("  states " + " ".join(_state(s) for s in graph.states))
    lines.append("weights")
    lines += [_weight(graph, name) for name in graph.weights]
    lines.append("step")
    numbers = _numbered(graph)
    shown = [v for v in graph.values if not v.is_leaf and (v.label is not None or v in numbers)]
    lines += [f"  {_target(v, numbers)} = {expression(v, numbers, top=True)}{_legend(v)}" for v in shown]
    lines.append("return")
    lines.append(f"  output {graph.output_name} = {expression(graph.output, numbers)}")
    lines += [f"  {name}' = {expression(v, numbers)}" for name, v in graph.new.items()]
    return "\n".join(lines) + "\n"


def _numbered(graph: Graph) -> dict[Value, str]:
    uses: dict[Value, int] = {}
    seen = set(graph.roots)
    stack = list(seen)
    while stack:
        for a in shown_args(stack.pop()):
            uses[a] = uses.get(a, 0) + 1
            if a not in seen:
                seen.add(a)
                stack.append(a)
    several = [v for v, n in uses.items() if n > 1 and v.label is None and not v.is_leaf]
    return {v: f"%{k}" for k, v in enumerate(sorted(several, key=lambda v: v.order), start=1)}


def _sequence(rate: Rate) -> str:
    return "@sequence" if rate == Rate.SEQUENCE else ""


def _state(state: StateVariable) -> str:
    mark = "|" if state.bookkeeping else ""
    start = f"={state.start:g}" if state.start else ""
    return f"{mark}{state.name}:{show_size(state.size)}{start}"


def _weight(graph: Graph, name: str) -> str:
    weight = graph.weights[name]
    fixed = "" if weight.attrs["learn"] else " fixed"
    blocks = f" in {weight.attrs['blocks']} blocks" if "blocks" in weight.attrs else ""
    return f"  {name}: {show_size(weight.size)}{blocks}{fixed}, from {expression(graph.inits[name])}"


def _target(value: Value, numbers: Mapping[Value, str]) -> str:
    return f"{value.label or numbers[value]}: {show_size(value.size)} {value.rate.name.lower()}"


def _legend(value: Value) -> str:
    return f"    # {value.legend}" if value.legend and "." not in str(value.name) else ""


def option_text(value: object) -> str:
    """An option's value as text: functions by name, initialisers as written."""
    if isinstance(value, Value):
        return expression(value)
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(option_text, value)) + "]"
    return str(getattr(value, "__name__", None) or repr(value))


def expression(value: Value, numbers: Mapping[Value, str] = NONE, *, top: bool = False, strength: int = 0) -> str:
    """A value as text, expanded down to named or numbered values; with `top`, the value itself is expanded too."""
    known = value.label or numbers.get(value)
    if known is not None and not top:
        return f"{known}[t-1]" if value.op == "old" else known
    if value.call:
        text = f"{value.call.function}({', '.join(expression(a, numbers) for a in value.call.args)})"
        return text if value.call.index is None else f"{text}[{value.call.index}]"
    if value.op in SIGNS:
        own = STRENGTH.get(value.op, 3)
        left = expression(value.args[0], numbers, strength=own)
        right = expression(value.args[1], numbers, strength=own + 1)
        return _wrapped(f"{left} {SIGNS[value.op]} {right}", own < strength)
    if value.op == "constant":
        return value.attrs.get("name") or f"{value.attrs['value']:g}"
    if value.op == "seed":
        return f"d({value.attrs['name']})"
    if value.op == "neg":
        return f"-{expression(value.args[0], numbers, strength=3)}"
    if value.op == "linear":
        return _wrapped(_linear(value, numbers), bool(strength))
    return _called(value, numbers)


def _wrapped(text: str, brackets: bool) -> str:
    return f"({text})" if brackets else text


def _linear(value: Value, numbers: Mapping[Value, str]) -> str:
    labels, args = value.attrs["labels"], value.args
    pairs = [(args[2 * k], args[2 * k + 1]) for k in range(len(labels))]
    terms = [" @ ".join(expression(part, numbers, strength=3) for part in pair) for pair in pairs]
    return " + ".join(terms + [expression(a, numbers) for a in args[2 * len(labels) :]])


def _called(value: Value, numbers: Mapping[Value, str]) -> str:
    if value.op == "count":
        return f"count({value.attrs['of']})"
    if value.op == "position":
        return f"position({value.attrs['axis']})"
    to = f", to={show_size(value.size)}" if value.op in ("spread", "total") else ""
    return f"{value.op}({', '.join(expression(a, numbers) for a in value.args)}{to})"
