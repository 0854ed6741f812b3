"""Headers, options and what a cell returns: every refusal in its whole text, at the line of the cell or of the slip."""

# ruff: noqa: E501 - a slip and the whole of what is said of it stand on one line

import functools

import numpy as np
import pytest
import torch

from slips import complaint
from tidegate.cells import get
from tidegate.cells.transforms import zoneout
from tidegate.equations import Cell, cell, concat, eye, linear, mean, named, sigmoid, tanh, weight
from tidegate.equations.names import RESERVED
from tidegate.errors import EquationError


def step(x, h):
    return tanh(linear("a", x, h))


def two(x, h, c):
    c = sigmoid(linear("i", x, h)) * c
    h = tanh(c)
    return h, c


def of_states(text: str, token: str) -> str:
    return f"cell 'step': states={text!r}: {token!r} must be NAME[:SIZE][*OPTION][=START]"


def of_inputs(text: str, token: str) -> str:
    return f"cell 'step': inputs={text!r}: {token!r} must be NAME[:SIZE][@sequence]"


def bad_size(came: str) -> str:
    return (
        f"cell 'step': a size must be a capital letter or 1, got {came!r}: a layer binds letters to numbers, as in "
        "Recurrent(cell, 8, 64, S=32), and each gate has a linear(...) of its own"
    )


NO_MATRICES = (
    "inputs and states are vectors; for several vectors declare a state array, as in states='h c*4', for sums of "
    "products write total(a * b), and for a matrix of weights matrix(name, rows, cols)"
)


def bad_start(token: str) -> str:
    return f"cell 'step': state {token!r} must start at a finite number, such as -1e9"


def bad_name(what: str, came: str) -> str:
    return (
        f"cell 'step': {what} must begin with a letter or underscore, followed by at most 63 letters, digits or "
        f"underscores, got {came!r}"
    )


def no_parameter(state: str) -> str:
    return (
        f"cell 'step': state {state!r} of the header is not a parameter of the function, which takes x, h: add it there "
        "(the state before the step), or remove it from states="
    )


def no_state(text: str) -> str:
    return f"cell 'step': states={text!r} names no state: a recurrent cell carries at least one, as in states='h'"


def other_inputs(names: str) -> str:
    return (
        f"cell 'step': the function takes the inputs ['x'], but the header declares {names}: "
        "write inputs='x' with their sizes"
    )


def length(text: str, token: str) -> str:
    return f"cell 'step': {token!r} in states={text!r} must be a whole number from 1 to 64, or an option that is one"


STATES = {
    "": no_state(""),
    " | ": no_state(" | "),
    "h h": "cell 'step': state 'h' appears twice in states='h h': rename one of them",
    "h c": no_parameter("c"),
    "h | m": no_parameter("m"),
    "h:": of_states("h:", "h:"),
    "h=": of_states("h=", "h="),
    "h-c": of_states("h-c", "h-c"),
    "h*-1": of_states("h*-1", "h*-1"),
    "h@sequence": of_states("h@sequence", "h@sequence"),
    "h | m | n": of_states("h | m | n", "|"),
    "h:HH": bad_size("HH"),
    "h:h": bad_size("h"),
    "h:2": bad_size("2"),
    "h:H,K": f"cell 'step': size 'H,K' is that of a matrix: {NO_MATRICES}",
    "h:HxH": f"cell 'step': size 'HxH' is that of a matrix: {NO_MATRICES}",
    "h:H*H": f"cell 'step': '*H' in states='h:H*H' makes a matrix: {NO_MATRICES}",
    "h=inf": bad_start("h=inf"),
    "h=nan": bad_start("h=nan"),
    "h=1e400": bad_start("h=1e400"),
    "h=-1e39": "cell 'step' starts state 'h' at -1e+39, which is beyond float32 (3.40282e+38)",
    "h=none": bad_start("h=none"),
    "3h": bad_name("the name of a state", "3h"),
    "ħ": bad_name("the name of a state", "ħ"),
    "half": "cell 'step': the name of a state cannot be 'half', which is an attribute of torch.nn.Module: choose another",
    "h*0": length("h*0", "*0"),
    "h*65": length("h*65", "*65"),
    "h*1000000000000": length("h*1000000000000", "*1000000000000"),
    "h*n": length("h*n", "*n"),
    "x h": "cell 'step': a cell must read an input at each step, as in def step(x, h), and one marked @sequence comes "
    "only once: for a system without inputs declare inputs='x:1', use x in a linear(...), and give it a constant",
    "h:1": "cell 'step': state 'h' has size 1, but its new value H: declare its size in the header, as in states='h:P', or "
    "return a value of that size",
}
INPUTS = {
    "": other_inputs("[]"),
    "y": other_inputs("['y']"),
    "x y:1": other_inputs("['x', 'y']"),
    "x x:1": other_inputs("['x', 'x']"),
    "x y": "cell 'step': input 'y' has no size, which only the first may omit: write y:1",
    "x@step": of_inputs("x@step", "x@step"),
    "x*2": of_inputs("x*2", "x*2"),
    "x=3": of_inputs("x=3", "x=3"),
    "x:i": bad_size("i"),
    "x:I,J": f"cell 'step': size 'I,J' is that of a matrix: {NO_MATRICES}",
    "x@sequence": STATES["x h"],
}


@pytest.mark.parametrize("text", STATES)
def test_states(text):
    assert complaint(step, states=text) == STATES[text]


@pytest.mark.parametrize("text", INPUTS)
def test_inputs(text):
    assert complaint(step, inputs=text) == INPUTS[text]


def test_the_first_input_is_the_one_from_below():
    def told(who, x, h):
        return tanh(linear("h", who, x, h))

    assert complaint(told, inputs="who:1@sequence x:I") == (
        "cell 'told': the first input must come at each step, from the layer below, but 'who' comes once per sequence: "
        "write it after the others in inputs='who:1@sequence x:I'"
    )
    assert complaint(told, inputs="who:1 x:I") == (
        "cell 'told': size I is that of the first input, but 'who' is 1 and 'x' is I: write 'x' first in "
        "inputs='who:1 x:I', or give it another letter"
    )
    assert cell(states="h", inputs="x:I who:1@sequence", source="a test")(told).graph.letters == ("H", "I")


@pytest.mark.parametrize("word", ["states", "inputs", "output", "source"])
def test_header_of_other_types(word):
    text = complaint(step, **{word: ["h"]})
    assert text == f"cell 'step': {word}= must be a string, got ['h']: write {word}='...'"


@pytest.mark.parametrize("symbols", [3, "h", {"h": 3}, {3: "h"}])
def test_symbols_of_other_types(symbols):
    text = complaint(step, symbols=symbols)
    assert text == rf"cell 'step': symbols= must map names to LaTeX, as in {{'log_f': r'\log f'}}, got {symbols!r}"


def test_output():
    assert (
        complaint(step, output="3y")
        == "cell 'step': the function must return its new states one by one, got <tanh: H, state>: end it with return "
        "3y, h"
    )

    def dotted(x, h):
        h = step(x, h)
        return h + 1, h

    assert complaint(dotted, output="3y") == bad_name("the name of an output", "3y").replace("'step'", "'dotted'")
    assert complaint(dotted, output="x") == "cell 'dotted': output='x' is the name of an input: choose another"


def test_output_must_be_a_vector_of_the_step():
    def fixed(x, h):
        y = weight("w") * 2  # here
        return y, step(x, h)

    def square(x, h):
        return eye(), step(x, h)  # here

    text = "must give an output that is a vector and depends on inputs or states"
    assert complaint(fixed, output="y") == f"cell 'fixed' {text}"
    assert complaint(square, output="y") == f"cell 'square' {text}"


def returning(what):
    def gives(x, h, c):
        h, c = two(x, h, c)
        return what(h, c)

    return complaint(gives, states="h c")


IN_ORDER = "return the new states in the order of the header, h, c"


def test_what_is_returned():
    swapped = "cell 'gives': expected the new value of state 'h', got 'c': " + IN_ORDER
    assert returning(lambda h, c: (c, h)) == swapped
    assert returning(lambda h, c: (h, h)) == "cell 'gives': expected the new value of state 'c', got 'h': " + IN_ORDER
    one_by_one = "cell 'gives': the function must return its new states one by one, got {}: end it with return h, c"
    named = "; for an output that is no state, name it in the header, as in output='y'"
    assert returning(lambda h, c: (h, c, c)) == one_by_one.format("3 values") + named
    assert returning(lambda h, c: h) == one_by_one.format("<h: H, state>")
    assert returning(lambda h, c: None) == one_by_one.format("None")
    assert returning(lambda h, c: (h, None)) == one_by_one.format("(<h: H, state>, None)")
    nested = "(<h: H, state>, (<h: H, state>, <c: H, state>))"
    assert returning(lambda h, c: (h, (h, c))) == one_by_one.format(nested)
    assert returning(lambda h, c: [h, c]) == one_by_one.format("[<h: H, state>, <c: H, state>]")
    assert returning(lambda h, c: {"h": h}) == one_by_one.format("{'h': <h: H, state>}")
    assert (
        returning(lambda h, c: (h, "c"))
        == "cell 'gives': 'c' of type str cannot be used in an equation: values are numbers, inputs, states, weights "
        "and what is computed from them"
    )


def test_new_state_of_another_size():
    def narrow(x, h, c):
        h, c = two(x, h, c)
        return h, x

    assert (
        complaint(narrow, states="h c")
        == "cell 'narrow': state 'c' has size H, but its new value I: declare its size in the header, as in states='h:P', "
        "or return a value of that size"
    )


def test_state_arrays_come_back_as_lists():
    def delay(x, h, u):
        h = tanh(linear("a", x, h, *u))
        return h, x

    def short(x, h, u):
        h = tanh(linear("a", x, h, *u))
        return h, [x]

    start = "state 'u' is an array: return a list of 2 values for it, got "
    assert complaint(delay, states="h | u:I*2") == f"cell 'delay': {start}<x: I, input>"
    assert complaint(short, states="h | u:I*2") == f"cell 'short': {start}[<x: I, input>]"


def test_scalar_and_number_may_become_a_vector_state():
    @cell(states="h c first=1", source="allowed")
    def broadcast(x, h, c, first):
        h = tanh(linear("a", x, h)) * first
        c = mean(c) + mean(h)
        return h, c, 0.0

    assert broadcast.graph.new["first"].op == "constant"
    assert broadcast.graph.new["c"].size == (1,)


def unread(what: str) -> str:
    return f"cell 'blind' never reads {what}"


def test_what_is_never_read():
    def blind(x, h):
        weight("w")
        linear("b", x)
        return tanh(linear("a", x, h))

    assert complaint(blind) == "cell 'blind' never uses the weights 'w', 'b.x', 'b.bias': use them, or remove them"

    def blind(x, h):
        return tanh(linear("a", x))

    assert complaint(blind) == unread("the states 'h': use them, or remove them from states=")

    def blind(x, y, h):
        return tanh(linear("a", x, h))

    assert complaint(blind, inputs="x y:1") == unread("the inputs 'y': use them, or remove them from the function")


def test_parameters():
    def stars(x, *h):
        return x

    def double_stars(x, h, **more):
        return h

    def default(x, h, forget_bias=1.0):
        return h

    one_by_one = "a cell must list its inputs, states and options one by one, got"
    assert complaint(stars) == f"cell 'stars': {one_by_one} *h"
    assert complaint(double_stars) == f"cell 'double_stars': {one_by_one} **more"
    assert (
        complaint(default)
        == "cell 'default': parameter 'forget_bias' has a default, which only options may have: write options after "
        "a star, as in def default(x, h, *, forget_bias=...)"
    )


def test_inputs_must_be_declared_where_there_are_several():
    def pair(x, y, h):
        return tanh(linear("a", x, y, h))

    assert (
        complaint(pair) == "cell 'pair': the function takes the inputs ['x', 'y'], but the header declares []: "
        "write inputs='x y:1' with their sizes"
    )


def test_names_of_cells():
    def forward(x, h):
        return step(x, h)

    assert (
        complaint(forward)
        == "cell 'forward': the name of a cell cannot be 'forward', which is an attribute of torch.nn.Module: "
        "choose another"
    )


class Callable:
    def __call__(self, x, h):
        return step(x, h)

    def __repr__(self):
        return "Callable()"


async def later(x, h):
    return h


def yielding(x, h):
    yield h


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (3, "3"),
        (Callable(), "Callable()"),
        (Callable, "the class Callable"),
        (later, "the function later"),
        (yielding, "the function yielding"),
        (lambda x, h: h, "the function <lambda>"),
        (functools.partial(int, "3"), "functools.partial(<class 'int'>, '3')"),
    ],
)
def test_only_functions_are_cells(given, shown):
    with pytest.raises(EquationError) as caught:
        cell(states="h", source="a slip")(given)
    expected = f"@cell takes a function defined with def, without yield and async, got {shown}"
    assert str(caught.value) == expected


def test_reserved_names_are_those_of_torch_modules():
    import torch

    assert {name for name in dir(torch.nn.Module()) if not name.startswith("_")} == RESERVED


def test_words_outside_a_cell():
    for word, call in (
        ("weight()", lambda: weight("w")),
        ("linear()", lambda: linear("a")),
        ("named()", lambda: named("a", 1)),
    ):
        with pytest.raises(EquationError) as caught:
            call()
        text = "can only be called inside a function decorated with @cell"
        assert str(caught.value) == f"{word} {text}"


def test_a_users_own_exception_is_left_alone():
    def broken(x, h):
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        cell(states="h", source="a slip")(broken)


def test_values_of_another_cell():
    kept = {}

    def first(x, h):
        kept.update(input=x, state=tanh(h), weight=weight("w"))
        return step(x, h) * kept["weight"]

    cell(states="h", source="a slip")(first)

    def theft(x, h):
        return step(x, h) + mean(kept["input"])  # here

    text = "of another cell: declare it anew inside this cell's function"
    assert complaint(theft) == f"cell 'theft' uses 'x' {text}"

    def theft(x, h):
        return step(x, h) + kept["weight"]  # here

    assert complaint(theft) == f"cell 'theft' uses 'w' {text}"


def test_towers_without_names():
    def tower(x, h):
        return step(x, h) + functools.reduce(lambda a, b: a + b, [h] * 102)  # here

    assert (
        complaint(tower)
        == "cell 'tower' nests more than 100 operations without a name: assign intermediate results to variables of "
        "the cell's function, or name them with named(...)"
    )


def test_too_large():
    def many(x, h):
        for _ in range(5000):
            h = h + 1.0
        return h + mean(x)

    assert complaint(many) == "cell 'many' has 10004 values, more than 4096"


# ------------------------------------------------------------------------------------------------------------ options


@cell(states="h", source="a test")
def adjustable(x, h, *, scale=0.5, depth=2, gated=True, act=tanh, way="plain", other=None):
    for k in range(depth):
        h = act(linear(f"a{k}", x, h=h)) * scale
    return h * sigmoid(linear("g", x)) if gated and way == "plain" else h


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"scales": 1.0},
            "cell 'adjustable' has no option 'scales'; its options are: scale, depth, gated, act, way, other",
        ),
        ({"scale": "1"}, "option 'scale' of cell 'adjustable' must be a finite number, got '1'"),
        ({"scale": True}, "option 'scale' of cell 'adjustable' must be a finite number, got True"),
        ({"scale": float("nan")}, "option 'scale' of cell 'adjustable' must be a finite number, got nan"),
        ({"scale": 10**400}, "option 'scale' of cell 'adjustable' must be a finite number, got 1" + "0" * 76 + "..."),
        ({"depth": 2.0}, "option 'depth' of cell 'adjustable' must be a whole number, got 2.0"),
        ({"depth": True}, "option 'depth' of cell 'adjustable' must be a whole number, got True"),
        ({"gated": 1}, "option 'gated' of cell 'adjustable' must be True or False, got 1"),
        (
            {"act": "relu"},
            "option 'act' of cell 'adjustable' must be a function of the language, such as tanh, got 'relu'",
        ),
    ],
)
def test_options(options, text):
    with pytest.raises(EquationError) as caught:
        adjustable(**options)
    assert str(caught.value) == text


def test_a_cell_without_options_says_so():
    with pytest.raises(EquationError) as caught:
        get("elman")(forget_bias=1.0)
    assert str(caught.value) == "cell 'elman' has no option 'forget_bias'; its options are: none"


def test_options_change_the_cell_and_leave_the_first_alone():
    before = adjustable.print()
    other = adjustable(depth=1, scale=2, gated=False)
    assert list(other.graph.weights) == ["a0.x", "a0.h", "a0.bias"]
    assert other.options["scale"] == 2.0
    assert isinstance(other.options["scale"], float)
    assert "* scale" in other.print()
    assert adjustable.print() == before


def test_options_without_default_or_not_finite():
    def bare(x, h, *, size):
        return h

    def endless(x, h, *, scale=float("inf")):
        return h

    assert complaint(bare) == "cell 'bare': option 'size' has no default: write size=... in the function's header"
    assert complaint(endless) == "cell 'endless': option 'scale' must be a finite number such as 1e9, got inf"


def test_numbers_of_numpy_become_pythons():
    other = adjustable(scale=np.float64(0.25), depth=np.int64(3))
    assert other.print() == adjustable(scale=0.25, depth=3).print()
    assert other.to_json() == adjustable(scale=0.25, depth=3).to_json()

    two, half = np.int32(2), np.float32(0.5)

    @cell(states="h*n", source="a test")
    def several(x, h, *, n=two, scale=half):
        return [scale * tanh(linear(f"a{k}", x, h[k], blocks={f"h{k}": two})) for k in range(n)]

    assert several.options == {"n": 2, "scale": 0.5}
    assert [type(o) for o in several.options.values()] == [int, float]


def test_several_functions_as_one_option():
    @cell(states="h", source="a test")
    def chosen(x, h, *, acts=(tanh, sigmoid)):
        return acts[0](linear("a", x, h))

    assert chosen.to_json()["options"] == {"acts": {"text": "[tanh, sigmoid]"}}
    assert "options acts=[tanh, sigmoid]" in chosen.print()
    with pytest.raises(EquationError) as caught:
        chosen(acts=[tanh, lambda v: v]).to_json()
    expected = "option 'acts' is a lambda, which has no name to save: define a function with def"
    assert str(caught.value) == f"cell 'chosen': {expected}"


def test_lambda_options_work_and_are_not_saved():
    squared = adjustable(act=lambda v: v * v)
    with pytest.raises(EquationError) as caught:
        squared.to_json()
    expected = "option 'act' is a lambda, which has no name to save: define a function with def"
    assert str(caught.value) == f"cell 'adjustable': {expected}"


def test_concat_as_output_is_fine():
    @cell(states="h", output="y", source="a test")
    def both(x, h):
        h = step(x, h)
        return concat(x, h), h

    assert isinstance(both, Cell)
    assert both.graph.output_size == ("I+H",)


FORM = "write @cell(states='h') above the function"


def test_a_bare_decorator_points_at_its_function() -> None:
    with pytest.raises(EquationError) as raised:
        cell(step)
    place = f"{__file__}:{step.__code__.co_firstlineno}"
    assert str(raised.value) == f"{place}: cell 'step': @cell needs a header: {FORM}"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ((("h",), {}), f"@cell takes its header by keyword, got 'h': {FORM}"),
        (((), {"source": "a paper"}), f"@cell(...) needs states=: {FORM}"),
    ],
)
def test_a_header_that_lacks_something(header, said) -> None:
    with pytest.raises(EquationError) as raised:
        cell(*header[0], **header[1])
    assert str(raised.value) == said


def test_the_source_may_be_left_out():
    made = cell(states="h")(step)
    assert made.source == ""
    assert made.print().splitlines()[:2] == ["cell step", "  inputs x:I"]
    assert Cell.from_json(made.to_json()).print() == made.print()
    assert zoneout(made, 0.1).source == zoneout(get("elman"), 0.1).source.removeprefix(f"{get('elman').source}; ")


def test_a_header_without_source_does_not_hide_a_slip():
    def slip(x, h):
        return torch.tanh(linear("a", x, h))

    with pytest.raises(EquationError, match=r"torch\.tanh cannot be applied to a value of a cell: write tanh\(v\)"):
        cell(states="h")(slip)
