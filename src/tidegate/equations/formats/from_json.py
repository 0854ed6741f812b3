"""Reads a graph from plain data. Reading runs no code and trusts nothing: every value is checked, then the graph."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn, TypeVar

from tidegate.equations.graph import Graph, Input, StateVariable
from tidegate.equations.names import LETTER, check_identifier, check_name, check_weight_name
from tidegate.equations.ops import OPS
from tidegate.equations.values import FunctionCall, Rate, Size, Value, Written, finite, shown
from tidegate.equations.verify import MAX_STATES, MAX_VALUES, verify, verify_reads
from tidegate.errors import EquationError

FORMAT = 1
LATEX_LIMIT = 200  # characters
Kind = TypeVar("Kind")
LEAF_RATES = {"input": ("sequence", "input"), "old": ("state",), "weight": ("weights",)}


def graph_from_json(data: object) -> Graph:
    """Read the graph that `graph_to_json` wrote. Raises EquationError if the data is not a valid graph."""
    if not isinstance(data, dict) or type(data.get("format")) is not int or data["format"] != FORMAT:
        found = shown(data.get("format")) if isinstance(data, dict) else type(data).__name__
        raise EquationError(f"a cell's data must have format {FORMAT}, got {found}: another version wrote it")
    graph = _Reader(data).graph()
    verify(graph)
    verify_reads(graph)
    return graph


class _Reader:
    """Reads one graph. Sizes of lists and mappings are checked before they are iterated."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.values: list[Value] = []

    def graph(self) -> Graph:
        data = self.data
        options = {check_identifier(k, "an option"): _option(v) for k, v in _mapping(data, "options").items()}
        for item in _items(data, "values", MAX_VALUES):
            self.values.append(self._value(item, options))
        inputs = tuple(self._input(item) for item in _items(data, "inputs", MAX_STATES))
        states = tuple(self._state(item) for item in _items(data, "states", MAX_STATES))
        self._check_header(inputs, states)
        weights = _mapping(data, "weights", MAX_VALUES)
        new, output = _mapping(data, "new", MAX_STATES), _mapping(data, "output")
        if set(new) != {s.name for s in states}:
            _wrong(f"gives new values for {shown(list(new))}, but the states are {[s.name for s in states]}")
        return Graph(
            name=check_name(_get(data, "name"), "the name of a cell"),
            source=_text(data, "source"),
            doc=_text(data, "doc"),
            options=options,
            symbols={_str(k): _str(v) for k, v in _mapping(data, "symbols", MAX_VALUES).items()},
            inputs=inputs,
            states=states,
            output=self._at(_get(output, "value")),
            output_name=check_name(_get(output, "name"), "the name of an output"),
            new={s.name: self._at(new[s.name]) for s in states},
            weights={name: self._weight(name, _get(w, "value")) for name, w in weights.items()},
            inits={name: self._at(_get(w, "init")) for name, w in weights.items()},
            masks={name: self._at(k) for name, k in (_mapping(data, "masks") if "masks" in data else {}).items()},
        )

    def _at(self, index: object) -> Value:
        if type(index) is not int or not 0 <= index < len(self.values):
            _wrong(f"refers to value {shown(index)}, but only {len(self.values)} come before it, counted from 0")
        return self.values[index]

    def _list_at(self, item: object, key: str) -> tuple[Value, ...]:
        return tuple(self._at(k) for k in _items(item, key, MAX_VALUES))

    def _weight(self, name: object, index: object) -> Value:
        value = self._at(index)
        if value.op != "weight" or value.attrs["name"] != name:
            _wrong(f"calls value {index} weight {shown(name)}, but it is not that weight")
        return value

    def _input(self, item: object) -> Input:
        name, rate = check_name(_get(item, "name"), "the name of an input"), _choice(item, "rate", LEAF_RATES["input"])
        return Input(name, _vector_size(item), Rate[rate.upper()])

    def _state(self, item: object) -> StateVariable:
        name = check_name(_get(item, "name"), "the name of a state")
        return StateVariable(name, _vector_size(item), _number(_get(item, "start")), _bool(_get(item, "bookkeeping")))

    def _check_header(self, inputs: tuple[Input, ...], states: tuple[StateVariable, ...]) -> None:
        names = [i.name for i in inputs] + [s.name for s in states]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice or not states or not any(i.rate == Rate.INPUT for i in inputs):
            _wrong("must name at least one state and one input of each step, each once")
        declared = {("input", i.name): (i.size, i.rate) for i in inputs}
        declared |= {("old", s.name): (s.size, Rate.STATE) for s in states}
        for v in self.values:
            if v.op in ("input", "old") and declared.get((v.op, v.attrs["name"])) != (v.size, v.rate):
                _wrong(f"uses {v.attrs['name']!r}, which its header does not declare with that size and rate")

    def _value(self, item: object, options: Mapping[str, Any]) -> Value:
        op = _text(item, "op")
        args, size = self._list_at(item, "args"), _size(_get(item, "size"))
        rate = None if args else Rate[_choice(item, "rate", LEAF_RATES.get(op, ("weights",))).upper()]
        value = Value(op, args, size, rate, **_attrs(op, _mapping(item, "attrs") if "attrs" in _dict(item) else {}))
        if op == "constant" and "name" in value.attrs and options.get(value.attrs["name"]) != value.attrs["value"]:
            _wrong(f"has a constant {value.attrs['name']!r} that is not an option with that value")
        self._describe(value, _dict(item))
        return value

    def _describe(self, value: Value, item: dict[str, Any]) -> None:
        if value.op in LEAF_RATES:
            value.name = value.attrs["name"]
        elif "name" in item:
            value.name = _value_name(item["name"])
        value.version = _whole(item.get("version", 0), MAX_VALUES)
        value.legend = _text(item, "legend") if "legend" in item else None
        if "call" in item:
            value.call = self._call(item["call"])

    def _call(self, call: object) -> FunctionCall:
        index, latex = _dict(call).get("index"), _dict(call).get("latex")
        if latex is not None and len(_str(latex)) > LATEX_LIMIT:
            _wrong(f"has LaTeX of {len(latex)} characters for a function, more than {LATEX_LIMIT}")
        return FunctionCall(
            check_identifier(_get(call, "function"), "the name of a function"),
            self._list_at(call, "args"),
            None if index is None else _whole(index, MAX_VALUES),
            latex,
        )


def _wrong(complaint: str) -> NoReturn:
    raise EquationError(f"the cell's data {complaint}")


def _of(kind: type[Kind], what: str, value: object) -> Kind:
    if not isinstance(value, kind):
        _wrong(f"has {shown(value)} where {what} is expected")
    return value


_str, _bool = partial(_of, str, "a string"), partial(_of, bool, "true or false")
_dict: Callable[[object], dict[str, Any]] = partial(_of, dict, "a mapping")


def _get(item: object, key: str) -> Any:
    if key not in _dict(item):
        _wrong(f"has no {key!r} where it is needed: {shown(item)}")
    return _dict(item)[key]


def _items(item: object, key: str, most: int) -> Iterator[Any]:
    found = _get(item, key)
    if not isinstance(found, list | tuple):
        _wrong(f"has {shown(found)} for {key!r}, where a list is expected")
    if len(found) > most:
        _wrong(f"has {len(found)} {key}, more than {most}")
    return iter(found)


def _mapping(item: object, key: str, most: int = MAX_STATES) -> dict[str, Any]:
    found = _get(item, key)
    if not isinstance(found, Mapping) or not all(isinstance(k, str) for k in found):
        _wrong(f"has {shown(found)} for {key!r}, where a mapping by name is expected")
    if len(found) > most:
        _wrong(f"has {len(found)} {key}, more than {most}")
    return dict(found)


def _text(item: object, key: str) -> str:
    return _str(_get(item, key))


def _choice(item: object, key: str, allowed: tuple[str, ...]) -> str:
    found = _text(item, key)
    if found not in allowed:
        _wrong(f"has {key} {shown(found)}, where {' or '.join(allowed)} is expected")
    return found


def _number(value: object) -> float:
    number = finite(value)
    if number is None:
        _wrong(f"has {shown(value)} where a finite number is expected")
    return number


def _whole(value: object, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        _wrong(f"has {shown(value)} where a whole number from {least} to {most} is expected")
    return value


def _size(size: object) -> Size:
    if not isinstance(size, list | tuple) or len(size) > 2 or not all(_is_part(p) for p in size):
        _wrong(f"has the size {shown(size)}, but a size must be a list of at most two capital letters or 1")
    return tuple(size)


def _is_part(part: object) -> bool:
    if isinstance(part, str):
        return all(p == "1" or LETTER.fullmatch(p) for p in part.split("+"))
    return type(part) is int and part == 1


def _vector_size(item: object) -> Size:
    size = _size(_get(item, "size"))
    if len(size) != 1 or "+" in str(size[0]):
        _wrong(f"has the size {shown(list(size))} for an input or state, which must be one capital letter or 1")
    return size


def _value_name(name: object) -> str:
    for part in _str(name).removesuffix(".net").split("."):
        check_identifier(part, "the name of a value")
    return _str(name)


def _labels(value: object) -> list[str]:
    if not isinstance(value, list | tuple) or len(value) > MAX_VALUES:
        _wrong(f"has the labels {shown(value)} for a linear, where a list of names is expected")
    return [check_name(label, "a label") for label in value]


ATTRS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "input": {"name": _str},
    "old": {"name": _str},
    "weight": {"name": check_weight_name, "learn": _bool},
    "constant": {"value": _number},
    "count": {"of": _str},
    "linear": {"linear": lambda name: check_name(name, "the name of a linear"), "labels": _labels, "bias": _bool},
    "position": {"axis": lambda axis: _whole(axis, 1)},
}
MAY_HAVE: dict[str, dict[str, Callable[[Any], Any]]] = {
    "weight": {"blocks": lambda count: _whole(count, 2**31, least=1)},
    "transpose": {"blocks": lambda count: _whole(count, 2**31, least=1)},
    "constant": {"name": lambda name: check_identifier(name, "an option")},
}


def _attrs(op: str, attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a value, checked: exactly those of its operation."""
    if op not in OPS and op not in ATTRS:
        _wrong(f"uses the unknown operation {shown(op)}")
    needed, allowed = ATTRS.get(op, {}), MAY_HAVE.get(op, {})
    if not set(needed) <= set(attrs) <= {*needed, *allowed}:
        _wrong(f"gives {op!r} the attributes {shown(sorted(attrs))}, but it takes {sorted(needed)}")
    return {key: ({**needed, **allowed})[key](value) for key, value in attrs.items()}


def _option(option: object) -> Any:
    if isinstance(option, dict):
        return Written(_text(option, "text"))
    if option is None or isinstance(option, bool | int | str):
        return option
    return _number(option)
