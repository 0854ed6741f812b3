"""Formulas: every cell's rows are sound LaTeX, say what the graph says, and keep their meaning when read back."""

import math
import re
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from latex2mathml.converter import convert

from catalogue import ALL
from tidegate.equations import (
    Graph,
    Input,
    StateVariable,
    Value,
    cell,
    function,
    layer_norm,
    linear,
    matrix,
    mean,
    named,
    sigmoid,
    tanh,
    weight,
    where,
)
from tidegate.equations.formats.latex import latex, legend, number, symbol, upright
from tidegate.equations.values import Rate, constant, pointwise


def rows(graph: Graph) -> list[tuple[str, str]]:
    pairs = [tuple(row.split(" &= ", 1)) for row in latex(graph).split(" \\\\\n")]
    return [(left, right) for left, right in pairs]


def assert_balanced(tex: str) -> None:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert tex.count(r"\left") == tex.count(r"\right")
    assert re.findall(r"\\begin\{(\w+)\}", tex) == re.findall(r"\\end\{(\w+)\}", tex)[::-1]


@pytest.mark.parametrize("name", ALL)
def test_rows_of_every_cell_are_sound(name: str) -> None:
    graph = ALL[name].graph
    lefts = [left for left, _ in rows(graph)]
    assert len(set(lefts)) == len(lefts)
    for left, right in rows(graph):
        assert_balanced(left)
        assert_balanced(right)
        for side in (left, right):
            assert "<math" in convert(side)
            assert r"\mathrm{}" not in side
    for state in graph.states:
        plain = symbol(state.name, dict(graph.symbols))
        timed = plain[:-1] + ",t}" if "_{" in plain else plain + "_{t}"
        assert timed in lefts, f"no row for the new state {state.name}"


def bare(tex: str) -> str:
    return re.sub(r"\\mathrm|[{}]", "", tex)


@pytest.mark.parametrize("name", ALL)
def test_every_linear_and_every_named_value_is_there(name: str) -> None:
    graph = ALL[name].graph
    text = bare(latex(graph))
    for value in graph.values:
        if value.op == "linear":
            below = bare(symbol("q_" + value.attrs["linear"]))[1:]
            assert "W" + below in text or "U" + below in text
    for value in graph.values:
        if value.name and not value.is_leaf and "." not in value.name:
            plain = bare(symbol(value.name, dict(graph.symbols)))
            assert any(plain in bare(left) for left, _ in rows(graph)), value.name


def test_the_lstm_is_the_textbooks() -> None:
    gates = [
        (f"{k}_{{t}}", rf"{f}\left(W_{{{k}}}\, x_{{t}} + U_{{{k}}}\, h_{{t-1}} + b_{{{k}}}\right)")
        for k, f in (("i", r"\sigma"), ("f", r"\sigma"), ("g", r"\tanh"), ("o", r"\sigma"))
    ]

    @cell(states="h c", source="Gers, Schmidhuber & Cummins 2000")
    def lstm(x, h, c, *, forget_bias=1.0):
        i = sigmoid(linear("i", x, h))  # input gate
        f = sigmoid(linear("f", x, h, bias=forget_bias))  # forget gate
        g = tanh(linear("g", x, h))
        o = sigmoid(linear("o", x, h))
        c = f * c + i * g
        h = o * tanh(c)  # output
        return h, c

    assert rows(lstm.graph) == [
        *gates,
        ("c_{t}", r"f_{t} \odot c_{t-1} + i_{t} \odot g_{t}"),
        ("h_{t}", r"o_{t} \odot \tanh\left(c_{t}\right)"),
    ]
    assert legend(lstm.graph) == [("i_{t}", "input gate"), ("f_{t}", "forget gate"), ("h_{t}", "output")]


def test_prologue_first_options_by_name_and_versions_above() -> None:
    @cell(states="s", source="none", symbols={"gain": r"\kappa"})
    def made_up(x, s, *, epsilon=0.1, gain=2.0):
        a = tanh(linear("a", x, s))
        M = matrix("M")
        A = M - M.T
        for _ in range(2):
            s = s + epsilon * (A @ s) - gain * a
        return s

    assert rows(made_up.graph) == [
        ("A", r"M - M^{\top}"),
        ("a_{t}", r"\tanh\left(W_{a}\, x_{t} + U_{a}\, s_{t-1} + b_{a}\right)"),
        ("s_{t}^{(1)}", r"s_{t-1} + \epsilon\, A\, s_{t-1} - \kappa\, a_{t}"),
        ("s_{t}", r"s_{t}^{(1)} + \epsilon\, A\, s_{t}^{(1)} - \kappa\, a_{t}"),
    ]


def test_a_value_of_weights_named_like_a_weight_gets_a_bar() -> None:
    @cell(states="h", source="none")
    def leaky(x, h):
        a = sigmoid(weight("a"))
        h = a * h + (1 - a) * linear("h", x)
        return h

    assert rows(leaky.graph) == [
        (r"\bar{a}", r"\sigma\left(a\right)"),
        ("h_{t}", r"\bar{a} \odot h_{t-1} + \left(1 - \bar{a}\right) \odot \left(W_{h}\, x_{t} + b_{h}\right)"),
    ]


def test_a_value_named_like_a_state_that_becomes_something_else_gets_a_tilde() -> None:
    @cell(states="h u:I", source="none")
    def delayed(x, h, u):
        late = u
        u = x * 2
        h = tanh(linear("h", h, late=late, u=u))
        return h, x

    assert [left for left, _ in rows(delayed.graph)] == [r"\tilde{u}_{t}", "h_{t}", "u_{t}"]
    assert dict(rows(delayed.graph))["u_{t}"] == "x_{t}"


def test_choices_are_cases_and_unnamed_results_get_their_state() -> None:
    @cell(states="h | last:I", inputs="x m:I", source="none")
    def missing(x, m, h, last):
        seen = where(m > 0.5, x, last)
        h = where(mean(h) > 1, tanh(linear("h", x=seen)), where(mean(h) < -1, 0.0, h))
        return h, where(m > 0.5, x, last)

    text = dict(rows(missing.graph))
    assert text[r"\mathrm{seen}_{t}"] == (
        r"\begin{cases} x_{t} & m_{t} > 0.5 \\ \mathrm{last}_{t-1} & \text{otherwise} \end{cases}"
    )
    assert text["h_{t}"].count(r"\begin{cases}") == 1
    assert text["h_{t}"].count(r"\\") == 2
    assert text[r"\mathrm{last}_{t}"] == text[r"\mathrm{seen}_{t}"]


def test_functions_stay_calls_and_one_call_of_many_results_is_one_row() -> None:
    @function
    def my_shrink(v: Value) -> Value:
        return v / (1 + abs(v))

    @cell(states="h", source="none")
    def normed(x, h):
        a, b = layer_norm("n", linear("a", x, bias=None), linear("b", h, bias=None))
        h = my_shrink(a + named("twice", 2 * b))
        return h

    assert rows(normed.graph) == [
        (
            r"\left(a_{t}, b_{t}\right)",
            r"\operatorname{LN}_{n}\left(W_{a}\, x_{t}, U_{b}\, h_{t-1}\right)",
        ),
        (r"\mathrm{twice}_{t}", r"2\, b_{t}"),
        ("h_{t}", r"\mathrm{my\_shrink}\left(a_{t} + \mathrm{twice}_{t}\right)"),
    ]


@pytest.mark.parametrize(
    ("name", "tex"),
    [
        ("i", "i"),
        ("alpha_1", r"\alpha_{1}"),
        ("h0", "h_{0}"),
        ("c_new", r"c_{\mathrm{new}}"),
        ("log_f", r"\log f"),
        ("dt_z", r"\Delta t_{z}"),
        ("filled", r"\mathrm{filled}"),
        ("_", r"\_"),
        ("x_", "x"),
        ("W_alpha", r"W_{\alpha}"),
    ],
)
def test_names_become_symbols(name: str, tex: str) -> None:
    assert symbol(name) == tex


def test_words_of_a_stranger_are_not_taken_as_latex() -> None:
    tex = upright(r"}\href{javascript:alert(1)}{x}$&#_%~^<>")
    assert_balanced(tex)
    assert r"\href" not in tex
    assert "href" in tex


@pytest.mark.parametrize(
    ("value", "tex"),
    [
        (1.0, "1"),
        (0.05, "0.05"),
        (1e-6, "10^{-6}"),
        (-1e9, "-1000000000"),
        (1.7159, "1.7159"),
        (3e-7, r"3 \cdot 10^{-7}"),
    ],
)
def test_numbers_keep_all_their_digits(value: float, tex: str) -> None:
    assert number(value) == tex


# ------------------------------------------------------------------------------- random expressions, read back
OPERATIONS: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "tanh": math.tanh,
    "abs": abs,
    "maximum": max,
    "pow": lambda a, b: a**b,
    "exp": math.exp,
}
LEAVES = {"x_{t}": 0.7, "h_{t-1}": -1.3, "y_{t}": 1.9}
TOKEN = re.compile(
    r"\s*(\\left\(|\\right\)|\\left\||\\right\||\\(?:frac|tanh|max|odot|cdot|,)"
    r"|[xhy]_\{t(?:-1)?\}|\d+(?:\.\d+)?|e\^\{|\^\{|[{}+,-])"
)


class Parser:
    """Reads the LaTeX of sums, products and functions by the rules that people read it by."""

    def __init__(self, tex: str) -> None:
        assert TOKEN.sub("", tex).strip() == ""
        self.tokens = [*TOKEN.findall(tex), "end"]

    def take(self, *expected: str) -> str:
        token = self.tokens.pop(0)
        assert not expected or token in expected, f"{token} where {expected} was expected"
        return token

    def sum(self) -> float:
        total = -self.product(self.take("-") == "-") if self.tokens[0] == "-" else self.product()
        while self.tokens[0] in "+-":
            total = total + self.product() if self.take() == "+" else total - self.product()
        return total

    def product(self, _: bool = False) -> float:
        result = self.power()
        while self.tokens[0] in (r"\odot", r"\cdot", r"\,"):
            self.take()
            result *= self.power()
        return result

    def power(self) -> float:
        base = self.atom()
        if self.tokens[0] == "^{":
            self.take()
            exponent = self.sum()
            self.take("}")
            assert self.tokens[0] != "^{", "a double superscript"
            return float(base**exponent)
        return base

    def atom(self) -> float:
        token = self.take()
        if token in LEAVES:
            return LEAVES[token]
        if token[0].isdigit():
            return float(token)
        if token == r"\frac":
            return self.braced() / self.braced()
        if token == "e^{":
            return math.exp(self.closed("}"))
        if token == r"\left|":
            return abs(self.closed(r"\right|"))
        if token == r"\left(":
            return self.closed(r"\right)")
        if token == r"\tanh":
            self.take(r"\left(")
            return math.tanh(self.closed(r"\right)"))
        assert token == r"\max"
        self.take(r"\left(")
        first = self.closed(",")
        return max(first, self.closed(r"\right)"))

    def closed(self, end: str) -> float:
        value = self.sum()
        self.take(end)
        return value

    def braced(self) -> float:
        self.take("{")
        return self.closed("}")


Tree = tuple[object, ...]
leaves = st.sampled_from([*LEAVES, 2.0, 0.5, -3.0]).map(lambda leaf: (leaf,))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["add", "sub", "mul", "div", "maximum"]), inner, inner),
        st.tuples(st.sampled_from(["neg", "tanh", "abs", "exp"]), inner),
        st.tuples(st.just("pow"), inner, st.sampled_from([(2.0,), (3.0,)])),
    ),
    max_leaves=9,
)


def evaluate(tree: Tree) -> float:
    head, *operands = tree
    if not operands:
        return LEAVES[head] if isinstance(head, str) else float(head)  # type: ignore[arg-type]
    return OPERATIONS[str(head)](*(evaluate(o) for o in operands))  # type: ignore[arg-type]


def build(tree: Tree, given_values: dict[str, Value]) -> Value:
    head, *operands = tree
    if not operands:
        return given_values[head] if isinstance(head, str) else constant(float(head))  # type: ignore[arg-type]
    return pointwise(str(head), *(build(o, given_values) for o in operands))  # type: ignore[arg-type]


@settings(max_examples=1000)
@given(trees)
def test_parentheses_keep_the_meaning_of_random_expressions(tree: Tree) -> None:
    x = Value("input", (), ("H",), Rate.INPUT, name="x")
    y = Value("input", (), ("H",), Rate.INPUT, name="y")
    h = Value("old", (), ("H",), Rate.STATE, name="h")
    try:
        expected = evaluate(tree)
    except (OverflowError, ZeroDivisionError):
        assume(False)
    assume(math.isfinite(expected) and abs(expected) < 1e9)
    # a sum with every leaf, so that the result moves with the state
    root = pointwise("add", h, build(tree, {"x_{t}": x, "y_{t}": y, "h_{t-1}": h}))
    graph = Graph(
        name="random",
        source="",
        doc="",
        options={},
        symbols={},
        inputs=(Input("x", ("H",)), Input("y", ("H",))),
        states=(StateVariable("h", ("H",)),),
        output=root,
        output_name="h",
        new={"h": root},
        weights={},
        inits={},
    )
    ((left, right),) = rows(graph)
    assert left == "h_{t}"
    parser = Parser(right)
    value = parser.sum()
    assert parser.tokens == ["end"]
    assert value == pytest.approx(expected + LEAVES["h_{t-1}"], rel=1e-9, abs=1e-9)
