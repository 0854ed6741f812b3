"""Graphs as plain data, which tidegate.equations.formats.from_json reads back."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tidegate.equations.formats.from_json import FORMAT, graph_from_json
from tidegate.equations.formats.text import option_text
from tidegate.equations.graph import Graph
from tidegate.equations.values import Value, Written, walk
from tidegate.errors import EquationError


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as written, as plain data. Raises EquationError for an option that is a nameless function."""
    values = walk([*graph.roots, *graph.weights.values(), *graph.inits.values(), *graph.masks.values()], shown=True)
    index = {v: k for k, v in enumerate(values)}
    masks = {"masks": {name: index[chance] for name, chance in graph.masks.items()}} if graph.masks else {}
    return {
        "format": FORMAT,
        "name": graph.name,
        "source": graph.source,
        "doc": graph.doc,
        "options": {k: _option_to_json(graph, k, v) for k, v in graph.options.items()},
        "symbols": dict(graph.symbols),
        "inputs": [{"name": i.name, "size": list(i.size), "rate": i.rate.name.lower()} for i in graph.inputs],
        "states": [
            {"name": s.name, "size": list(s.size), "start": s.start, "bookkeeping": s.bookkeeping} for s in graph.states
        ],
        "output": {"name": graph.output_name, "value": index[graph.output]},
        "new": {name: index[v] for name, v in graph.new.items()},
        "weights": {name: {"value": index[w], "init": index[graph.inits[name]]} for name, w in graph.weights.items()},
        **masks,
        "values": [_value_to_json(v, index) for v in values],
    }


def _option_to_json(graph: Graph, name: str, option: object) -> object:
    if option is None or (isinstance(option, bool | int | float | str) and not isinstance(option, Written)):
        return option
    if any(
        getattr(o, "__name__", "") == "<lambda>" for o in (option if isinstance(option, tuple | list) else [option])
    ):
        raise EquationError(
            f"cell {graph.name!r}: option {name!r} is a lambda, which has no name to save: define a function with def"
        )
    return {"text": option_text(option)}


def _value_to_json(value: Value, index: Mapping[Value, int]) -> dict[str, Any]:
    data: dict[str, Any] = {"op": value.op, "args": [index[a] for a in value.args], "size": list(value.size)}
    if value.is_leaf or not value.args:
        data["rate"] = value.rate.name.lower()
    if value.attrs:
        data["attrs"] = deepcopy(value.attrs)
    if value.name is not None:
        data["name"] = value.name
    if value.version:
        data["version"] = value.version
    if value.legend:
        data["legend"] = value.legend
    if value.call:
        call = value.call
        data["call"] = {"function": call.function, "args": [index[a] for a in call.args]}
        data["call"] |= {k: v for k, v in (("index", call.index), ("latex", call.latex)) if v is not None}
    return data


def with_options(graph: Graph, options: Mapping[str, Any]) -> Graph:
    """A loaded graph with other values for its float options; its other options cannot be changed."""
    changed = {k: v for k, v in options.items() if v != graph.options[k]}
    fixed = [k for k in changed if not isinstance(graph.options[k], float)]
    if fixed:
        raise EquationError(
            f"cell {graph.name!r} was loaded from a file, where option {fixed[0]!r} is part of the equations: "
            "change it where the cell is defined in Python"
        )
    data = graph_to_json(graph)
    data["options"] |= changed
    for value in data["values"]:
        if value["op"] == "constant" and value["attrs"].get("name") in changed:
            value["attrs"] = value["attrs"] | {"value": changed[value["attrs"]["name"]]}
    return graph_from_json(data)
