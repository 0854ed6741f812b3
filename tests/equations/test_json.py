"""Cells as data: the same after the round trip, and nothing but an EquationError from data that is damaged."""

# ruff: noqa: E501 - a slip and the whole of what is said of it stand on one line

import copy
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogue import HARD
from tidegate.cells import CELLS, get
from tidegate.equations import Cell, cell, layer_norm, linear, named, ramp, sigmoid, tanh, uniform, weight
from tidegate.errors import EquationError

ALL = {**HARD, **CELLS}


def through_text(made: Cell) -> Cell:
    return Cell.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))


@pytest.mark.parametrize("made", ALL.values(), ids=[f"{v.name}-{k}" for k, v in enumerate(ALL.values())])
def test_round_trip(made):
    again = through_text(made)
    assert again.to_json() == made.to_json()
    assert again.print() == made.print()
    assert again.latex() == made.latex()
    assert repr(again) == repr(made)


def test_data_is_a_copy():
    data = get("lstm").to_json()
    before = get("lstm").print()
    for value in data["values"]:
        value.get("attrs", {}).clear()
        value["args"].clear()
    assert get("lstm").print() == before


START = ramp(1, 2)


@cell(states="h", source="a test")
def rich(x, h, *, scale=0.5, act=tanh, start=START, depth=2, gated=True, way="plain", other=None):
    """What it is for."""
    a, b = layer_norm("n", *[linear(f"a{k}", x, h) for k in range(depth)])
    s = act(a) * scale  # scaled
    s = s * b + weight("w", init=start) * weight("v", init=uniform(-scale, scale))
    h = named("gate", sigmoid(s)) * h
    return h


def test_options_on_a_read_cell():
    again = through_text(rich)
    assert again.options["act"] == "tanh"
    assert again.options["start"] == "ramp(1, 2)"
    other = again(scale=0.25)
    assert other.options["scale"] == 0.25
    assert other.print() == rich(scale=0.25).print()
    assert again.options["scale"] == 0.5
    assert through_text(other).print() == other.print()
    assert again(scale=0.5, depth=2).print() == again.print()
    assert again.graph.doc == "What it is for."


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"depth": 1},
            "cell 'rich' was loaded from a file, where option 'depth' is part of the equations: change it where "
            "the cell is defined in Python",
        ),
        (
            {"scales": 1.0},
            "cell 'rich' has no option 'scales'; its options are: scale, act, start, depth, gated, way, other",
        ),
        ({"scale": math.inf}, "option 'scale' of cell 'rich' must be a finite number, got inf"),
    ],
)
def test_options_refused_on_a_read_cell(options, text):
    with pytest.raises(EquationError) as caught:
        through_text(rich)(**options)
    assert str(caught.value) == text


def test_names_that_python_allows_survive():
    @cell(states="h", source="a test", symbols={"half": r"\frac{1}{2}", "i.net": "n"})
    def odd(x, h, *, half=1.0, type=2):
        forward = tanh(linear("a", x, h)) * half
        h = forward * float(type)
        return h

    assert through_text(odd).print() == odd.print()


# ------------------------------------------------------------------------------------------------------------ hostile


def find(data, **wanted) -> int:
    return next(k for k, v in enumerate(data["values"]) if all(v.get(a) == b for a, b in wanted.items()))


def damaged(change) -> str:
    data = copy.deepcopy(get("lstm").to_json())
    with pytest.raises(EquationError) as caught:
        Cell.from_json(change(data) or data)
    return str(caught.value)


def put(*path_and_value):
    *path, key, value = path_and_value

    def change(data):
        place = data
        for step in path:
            place = place[find(data, **step) if isinstance(step, dict) else step]
        place[key] = value

    return change


TANH, CONSTANT, LINEAR = {"op": "tanh"}, {"op": "constant"}, {"op": "linear"}
BIAS = {"op": "weight", "name": "i.bias"}


def a_bias_of_two_letters(data):
    """A weight that no linear reads, so that nothing else is wrong."""
    values, name = data["values"], find(data, **BIAS)
    values[name]["size"] = ["I+H"]
    first = values[find(data, **LINEAR)]
    first["args"].remove(name)
    first["attrs"]["bias"] = False


ONE_WEIGHT = find(get("lstm").to_json(), name="i.x")
HOSTILE = [
    (lambda d: [1], "a cell's data must have format 1, got list: another version wrote it"),
    (put("format", 2), "a cell's data must have format 1, got 2: another version wrote it"),
    (put("format", True), "a cell's data must have format 1, got True: another version wrote it"),
    (put("values", {}), "the cell's data has {} for 'values', where a list is expected"),
    (put("values", [0] * 10**6), "the cell's data has 1000000 values, more than 4096"),
    (put("states", [{}] * 65), "the cell's data has 65 states, more than 64"),
    (put("values", [3]), "the cell's data has 3 where a mapping is expected"),
    (
        put("values", TANH, "args", [10**6]),
        "the cell's data refers to value 1000000, but only 32 come before it, counted from 0",
    ),
    (
        put("values", TANH, "args", [-1]),
        "the cell's data refers to value -1, but only 32 come before it, counted from 0",
    ),
    (
        put("values", TANH, "args", [32]),
        "the cell's data refers to value 32, but only 32 come before it, counted from 0",
    ),
    (
        put("values", TANH, "args", [True]),
        "the cell's data refers to value True, but only 32 come before it, counted from 0",
    ),
    (
        put("values", TANH, "args", [1.0]),
        "the cell's data refers to value 1.0, but only 32 come before it, counted from 0",
    ),
    (put("values", TANH, "args", 1), "the cell's data has 1 for 'args', where a list is expected"),
    (put("values", TANH, "args", [0] * 10**5), "the cell's data has 100000 args, more than 4096"),
    (put("values", TANH, "args", []), "the cell's data has no 'rate' where it is needed: "),
    (put("values", TANH, "args", [0, 0]), "cell 'lstm' gives 'tanh' 2 operands, but it takes 1"),
    (put("values", TANH, "op", "system"), "the cell's data uses the unknown operation 'system'"),
    (put("values", TANH, "op", "outer"), "cell 'lstm' gives 'outer' 1 operands, but it takes 2"),
    (put("values", TANH, "op", "dense"), "cell 'lstm' uses 'dense', which belongs to derivatives only"),
    (
        put("values", TANH, "op", "identity"),
        "cell 'lstm' uses identity() in its step, but it is for init= and bias= only",
    ),
    (put("values", TANH, "op", 3), "the cell's data has 3 where a string is expected"),
    (
        put("values", TANH, "size", "H"),
        "the cell's data has the size 'H', but a size must be a list of at most two capital letters or 1",
    ),
    (
        put("values", TANH, "size", ["h"]),
        "the cell's data has the size ['h'], but a size must be a list of at most two capital letters or 1",
    ),
    (
        put("values", TANH, "size", [True]),
        "the cell's data has the size [True], but a size must be a list of at most two capital letters or 1",
    ),
    (
        put("values", TANH, "size", [[["H"]]]),
        "the cell's data has the size [[['H']]], but a size must be a list of at most two capital letters or 1",
    ),
    (put("values", TANH, "size", ["I"]), "cell 'lstm' has a 'tanh' of I, but it must be H"),
    (
        put("values", TANH, "attrs", {"shell": 1}),
        "the cell's data gives 'tanh' the attributes ['shell'], but it takes []",
    ),
    (
        put("values", TANH, "name", "<script>"),
        "the name of a value must be a Python name of at most 64 characters, got '<script>'",
    ),
    (
        put("values", TANH, "name", "a.b c"),
        "the name of a value must be a Python name of at most 64 characters, got 'b c'",
    ),
    (put("values", TANH, "name", "f"), "cell 'lstm' has two values called 'f'"),
    (put("values", TANH, "name", ["a"]), "the cell's data has ['a'] where a string is expected"),
    (
        put("values", TANH, "version", math.inf),
        "the cell's data has inf where a whole number from 0 to 4096 is expected",
    ),
    (put("values", TANH, "legend", {}), "the cell's data has {} where a string is expected"),
    (put("values", TANH, "call", 3), "the cell's data has 3 where a mapping is expected"),
    (
        put("values", TANH, "call", {"function": "f(", "args": []}),
        "the name of a function must be a Python name of at most 64 characters, got 'f('",
    ),
    (
        put("values", TANH, "call", {"function": "f", "args": [], "index": 0.5}),
        "the cell's data has 0.5 where a whole number from 0 to 4096 is expected",
    ),
    (
        put("values", TANH, "call", {"function": "f", "args": [], "latex": "x" * 201}),
        "the cell's data has LaTeX of 201 characters for a function, more than 200",
    ),
    (
        put("values", CONSTANT, "attrs", {"value": math.nan}),
        "the cell's data has nan where a finite number is expected",
    ),
    (
        put("values", CONSTANT, "attrs", {"value": 10**400}),
        "the cell's data has 1" + "0" * 76 + "... where a finite number is expected",
    ),
    (put("values", CONSTANT, "attrs", {"value": "1"}), "the cell's data has '1' where a finite number is expected"),
    (
        put("values", CONSTANT, "attrs", {"value": 1.0, "name": "hidden"}),
        "the cell's data has a constant 'hidden' that is not an option with that value",
    ),
    (put("values", CONSTANT, "rate", "state"), "the cell's data has rate 'state', where weights is expected"),
    (
        put("values", {"op": "input"}, "rate", "weights"),
        "the cell's data has rate 'weights', where sequence or input is expected",
    ),
    (
        put("values", {"op": "input"}, "rate", "sequence"),
        "the cell's data uses 'x', which its header does not declare with that size and rate",
    ),
    (
        put("values", {"op": "input"}, "attrs", {"name": "y"}),
        "the cell's data uses 'y', which its header does not declare with that size and rate",
    ),
    (
        put("values", {"op": "weight"}, "attrs", {"name": "i.x", "learn": 1}),
        "the cell's data has 1 where true or false is expected",
    ),
    (
        put("values", {"op": "weight"}, "attrs", {"name": "i.x", "learn": True, "blocks": 0}),
        "the cell's data has 0 where a whole number from 1 to 2147483648 is expected",
    ),
    (
        put("values", {"op": "weight"}, "attrs", {"name": "a.b.c", "learn": True}),
        "the name of a weight may have one dot, as in 'i.bias', got 'a.b.c'",
    ),
    (
        put("values", {"op": "weight"}, "attrs", {"name": "forward", "learn": True}),
        "the name of a weight cannot be 'forward', which is an attribute of torch.nn.Module: choose another",
    ),
    (
        put("values", LINEAR, "attrs", {"linear": "i", "labels": "xh", "bias": True}),
        "the cell's data has the labels 'xh' for a linear, where a list of names is expected",
    ),
    (
        put("values", LINEAR, "attrs", {"linear": "i", "labels": ["x"], "bias": True}),
        "cell 'lstm' has a 'linear' of H, but it must be any",
    ),
    (
        put("values", LINEAR, "attrs", {"linear": "i", "labels": ["x", "h"], "bias": 1}),
        "the cell's data has 1 where true or false is expected",
    ),
    (
        put("name", "a b"),
        "the name of a cell must begin with a letter or underscore, followed by at most 63 letters, digits or underscores, got 'a b'",
    ),
    (put("source", None), "the cell's data has None where a string is expected"),
    (put("options", {"a b": 1.0}), "an option must be a Python name of at most 64 characters, got 'a b'"),
    (put("options", {"forget_bias": math.inf}), "the cell's data has inf where a finite number is expected"),
    (put("options", {"forget_bias": [1]}), "the cell's data has [1] where a finite number is expected"),
    (put("options", {}), "the cell's data has a constant 'forget_bias' that is not an option with that value"),
    (put("symbols", {"h": 3}), "the cell's data has 3 where a string is expected"),
    (put("states", 0, "start", math.inf), "the cell's data has inf where a finite number is expected"),
    (put("states", 0, "bookkeeping", 0), "the cell's data has 0 where true or false is expected"),
    (
        put("states", 0, "size", ["H", "H"]),
        "the cell's data has the size ['H', 'H'] for an input or state, which must be one capital letter or 1",
    ),
    (
        put("states", 0, "name", "c"),
        "the cell's data must name at least one state and one input of each step, each once",
    ),
    (put("states", []), "the cell's data must name at least one state and one input of each step, each once"),
    (put("inputs", []), "the cell's data must name at least one state and one input of each step, each once"),
    (put("new", {"h": 1}), "the cell's data gives new values for ['h'], but the states are ['h', 'c']"),
    (put("output", "value", 99), "the cell's data refers to value 99, but only 48 come before it, counted from 0"),
    (put("output", {}), "the cell's data has no 'value' where it is needed: {}"),
    (put("weights", "i.x", "value", 0), "the cell's data calls value 0 weight 'i.x', but it is not that weight"),
    (put("weights", []), "the cell's data has [] for 'weights', where a mapping by name is expected"),
    (
        put("weights", {}),
        "cell 'lstm' uses 'i.x' of another cell: declare it anew inside this cell's function",
    ),
    (
        put("values", CONSTANT, "args", [0]),
        "cell 'lstm' gives 'constant' operands, but it takes none",
    ),
    (put("values", CONSTANT, "size", ["H"]), "cell 'lstm' has a 'constant' of H, but it must be 1"),
    (put("values", BIAS, "size", ["H", "H"]), "cell 'lstm' has a 'linear' of H, but it must be any"),
    (
        a_bias_of_two_letters,
        "cell 'lstm' has a 'weight' of I+H, a size that only a concatenation may have",
    ),
    (put("values", LINEAR, "size", []), "cell 'lstm' has a 'linear' of any, but it must be 1"),
    (
        put("values", {"op": "orthogonal"}, "args", [ONE_WEIGHT]),
        "cell 'lstm' initialises weight 'i.h' with 'orthogonal' of something other than numbers",
    ),
    (
        lambda d: d["weights"]["i.bias"].update(init=d["weights"]["i.h"]["init"]),
        "cell 'lstm' initialises the vector 'i.bias' with 'orthogonal', which is for matrices",
    ),
    (
        lambda d: d["weights"]["f.bias"].update(init=d["weights"]["i.h"]["value"]),
        "cell 'lstm' initialises weight 'f.bias' of size H with a value of H x H",
    ),
]


@pytest.mark.parametrize(("change", "text"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_data(change, text):
    found = damaged(change)
    assert found.startswith(text) if text.endswith(": ") else found == text


@pytest.mark.parametrize("key", sorted(get("lstm").to_json()))
def test_missing_parts(key):
    text = damaged(lambda d: {k: v for k, v in d.items() if k != key})
    version = "a cell's data must have format 1, got None: another version wrote it"
    assert (
        text == version if key == "format" else text.startswith(f"the cell's data has no {key!r} where it is needed: ")
    )


def test_deep_nesting_and_towers():
    deep = current = []
    for _ in range(100_000):
        current.append([])
        current = current[0]
    for place in ("source", "values", "options", "symbols", "states"):
        try:
            damaged(put(place, deep))
        except RecursionError:
            pytest.fail(f"{place} was followed to its depth")
    tower = get("elman").to_json()
    start = find(tower, op="tanh")
    tower["values"] += [{"op": "neg", "args": [start], "size": ["H"]}]
    for _ in range(2000):
        tower["values"].append({"op": "neg", "args": [len(tower["values"]) - 1], "size": ["H"]})
    tower["output"] = {"name": "y", "value": len(tower["values"]) - 1}
    with pytest.raises(EquationError, match="nests more than 100 operations without a name"):
        Cell.from_json(tower)


def test_an_initial_value_cannot_use_a_later_weight_or_itself():
    data = get("lstm").to_json()
    data["weights"]["i.x"]["init"] = data["weights"]["f.x"]["value"]
    with pytest.raises(EquationError) as caught:
        Cell.from_json(data)
    assert str(caught.value) == "cell 'lstm' initialises weight 'i.x' with 'f.x', which must be declared before it"


SCRAP = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["H", "I", "weight", "linear", "x", "h", "state", 1, -1, 10**30, [], {}, [[]], {"text": 3}]),
    st.lists(st.integers(-3, 40), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(data, path=()):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


SEEDS = [get("lstm").to_json(), rich.to_json(), HARD["clockwork"].to_json(), HARD["qrnn"].to_json()]
PLACES = [sorted(places(seed), key=str) for seed in SEEDS]


@settings(max_examples=600)
@given(st.data())
def test_mutated_data(data):
    """One to three changes anywhere: a sound cell comes out, or an EquationError."""
    which = data.draw(st.integers(0, len(SEEDS) - 1))
    mutant = copy.deepcopy(SEEDS[which])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(PLACES[which]))
        change(mutant, path, data.draw(st.sampled_from(["set", "set", "drop", "twin"])), data.draw(SCRAP))
    try:
        made = Cell.from_json(mutant)
    except EquationError:
        return
    assert Cell.from_json(made.to_json()).print() == made.print()


def change(mutant, path, kind, scrap):
    place = mutant
    try:
        for key in path[:-1]:
            place = place[key]
        if kind == "drop":
            del place[path[-1]]
        elif kind == "twin" and isinstance(place, list):
            place.insert(0, copy.deepcopy(place[path[-1]]))
        else:
            place[path[-1]] = scrap
    except (KeyError, IndexError, TypeError):
        return  # an earlier change has taken the place away
