"""Graphs as plain data and back. Reading runs no code and believes nothing: every value is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tidegate.equations.graph import Call, Graph, Input, Rate, State, Value, Written, walk
from tidegate.equations.names import LETTER, NAME, check_name, check_weight_name
from tidegate.equations.printing import option_text
from tidegate.equations.verify import MAX_STATES, MAX_VALUES, verify, verify_reads
from tidegate.errors import EquationError

FORMAT = 1


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as written, as plain data. Raises EquationError for an option that is a nameless function."""
    calls = [a for v in graph.values if v.call for a in v.call.args]
    values = walk([*graph.roots, *graph.weights.values(), *graph.inits.values(), *calls])
    index = {v: k for k, v in enumerate(values)}
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
        "values": [_value_to_json(v, index) for v in values],
    }


def _option_to_json(graph: Graph, name: str, option: object) -> object:
    if option is None or (isinstance(option, bool | int | float | str) and not isinstance(option, Written)):
        return option
    if getattr(option, "__name__", "") == "<lambda>":
        raise EquationError(
            f"cell {graph.name!r}: option {name!r} is a lambda, which has no name to save: define a function with def"
        )
    return {"text": option_text(option)}


def _value_to_json(value: Value, index: Mapping[Value, int]) -> dict[str, Any]:
    data: dict[str, Any] = {"op": value.op, "args": [index[a] for a in value.args], "size": list(value.size)}
    if value.is_leaf or not value.args:
        data["rate"] = value.rate.name.lower()
    if value.attrs:
        data["attrs"] = value.attrs
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


def graph_from_json(data: object) -> Graph:
    """The graph that `graph_to_json` gave. Raises EquationError where the data is not a sound graph."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise EquationError(f"a cell's data has format {FORMAT}, and {found!r} came")
    try:
        graph = _Reader(data).graph()
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, EquationError):
            raise
        raise EquationError(f"the cell's data is incomplete or of a wrong shape: {error!r}") from error
    verify(graph)
    verify_reads(graph)
    return graph


class _Reader:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.values: list[Value] = []

    def graph(self) -> Graph:
        data = self.data
        if len(data["values"]) > MAX_VALUES or len(data["states"]) > MAX_STATES:
            raise EquationError(f"the cell's data has more than {MAX_VALUES} values or {MAX_STATES} states")
        for item in data["values"]:
            self._read_value(item)
        inputs = tuple(
            Input(check_name(i["name"], "the name of an input"), self._size(i["size"]), Rate[i["rate"].upper()])
            for i in data["inputs"]
        )
        states = tuple(
            State(
                check_name(s["name"], "the name of a state"),
                self._size(s["size"]),
                _finite(s["start"]),
                s["bookkeeping"],
            )
            for s in data["states"]
        )
        self._check_leaves(inputs, states)
        return Graph(
            name=check_name(data["name"], "the name of a cell"),
            source=_text(data["source"]),
            doc=_text(data["doc"]),
            options={check_name(k, "an option"): _option(v) for k, v in data["options"].items()},
            symbols={check_name(k, "a symbol"): _text(v) for k, v in data["symbols"].items()},
            inputs=inputs,
            states=states,
            output=self._at(data["output"]["value"]),
            output_name=check_name(data["output"]["name"], "the name of an output"),
            new={s.name: self._at(data["new"][s.name]) for s in states},
            weights={name: self._weight(name, w["value"]) for name, w in data["weights"].items()},
            inits={name: self._at(w["init"]) for name, w in data["weights"].items()},
        )

    def _at(self, index: object) -> Value:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.values):
            raise EquationError(f"the cell's data refers to value {index!r}, and values come before their use")
        return self.values[index]

    def _weight(self, name: str, index: int) -> Value:
        value = self._at(index)
        if value.op != "weight" or value.attrs["name"] != check_weight_name(name):
            raise EquationError(f"the cell's data calls value {index} weight {name!r}, and it is not")
        return value

    def _size(self, size: list[Any]) -> tuple[Any, ...]:
        for part in size:
            letters = part.split("+") if isinstance(part, str) else []
            if part != 1 and not (letters and all(p == "1" or LETTER.fullmatch(p) for p in letters)):
                raise EquationError(f"the cell's data has the size {size!r}, and sizes are capital letters or 1")
        return tuple(size)

    def _check_leaves(self, inputs: tuple[Input, ...], states: tuple[State, ...]) -> None:
        declared = {("input", i.name): i.size for i in inputs} | {("old", s.name): s.size for s in states}
        for value in self.values:
            if value.op in ("input", "old") and declared.get((value.op, value.attrs["name"])) != value.size:
                raise EquationError(
                    f"the cell's data uses {value.attrs['name']!r}, which its header does not declare so"
                )

    def _read_value(self, item: dict[str, Any]) -> None:
        args = tuple(self._at(k) for k in item["args"])
        rate = Rate[item["rate"].upper()] if "rate" in item else None
        value = Value(_text(item["op"]), args, self._size(item["size"]), rate, **_attrs(item.get("attrs", {})))
        if "name" in item:
            value.name = _value_name(item["name"])
        value.version, legend = int(item.get("version", 0)), item.get("legend")
        value.legend = None if legend is None else _text(legend)
        if "call" in item:
            call = item["call"]
            shown = tuple(self._at(k) for k in call["args"])
            value.call = Call(check_name(call["function"], "a function"), shown, call.get("index"), call.get("latex"))
        self.values.append(value)


def _option(data: Any) -> Any:
    return Written(_text(data["text"])) if isinstance(data, dict) else data


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise EquationError(f"the cell's data has {value!r} where a text is expected")
    return value


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EquationError(f"the cell's data has {value!r} where a finite number is expected")
    return float(value)


def _value_name(name: str) -> str:
    if not all(NAME.fullmatch(part) for part in name.split(".")):
        raise EquationError(f"the cell's data names a value {name!r}, which is no legal name")
    return name


def _attrs(attrs: dict[str, Any]) -> dict[str, Any]:
    if "value" in attrs:
        _finite(attrs["value"])
    for key in ("name", "linear", "of"):
        if key in attrs:
            _text(attrs[key])
    return dict(attrs)


def with_options(graph: Graph, options: Mapping[str, Any]) -> Graph:
    """A graph that was read from data, with other values for its float options; the others are fixed in its form."""
    changed = {k: v for k, v in options.items() if v != graph.options[k]}
    fixed = [k for k in changed if not isinstance(graph.options[k], float)]
    if fixed:
        raise EquationError(
            f"cell {graph.name!r} was read from a file, where option {fixed[0]!r} is fixed in the form of its equations: "
            "use the cell's definition in Python to change it"
        )
    data = graph_to_json(graph)
    for value in data["values"]:
        if value["op"] == "constant" and value["attrs"].get("name") in changed:
            value["attrs"] = value["attrs"] | {"value": changed[value["attrs"]["name"]]}
    return replace_options(graph_from_json(data), {**graph.options, **changed})


def replace_options(graph: Graph, options: Mapping[str, Any]) -> Graph:
    """The same graph under other recorded options."""
    return replace(graph, options=dict(options))
