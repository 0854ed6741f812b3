"""What values are called, how often they change, and which comment belongs to them."""

from tidegate.equations import (
    Cell,
    Rate,
    cell,
    exp,
    function,
    linear,
    log,
    mean,
    named,
    position,
    relu,
    sigmoid,
    tanh,
    uniform,
    weight,
)


def names(made: Cell) -> list[str]:
    return list(made.graph.named)


def legends(made: Cell) -> dict[str, str | None]:
    return {name: value.legend for name, value in made.graph.named.items() if not name.endswith(".net")}


def test_variables_name_values_and_their_nets():
    @cell(states="h", source="a test")
    def plain(x, h):
        i = sigmoid(linear("i", x))
        g = tanh(linear("g", x, h) * 2.0)
        scaled = linear("s", x) * i
        h = g * scaled + -i
        return h

    assert names(plain) == ["i.net", "i", "g.net", "g", "scaled", "h"]
    assert plain.graph.named["g.net"].op == "mul"


def test_the_first_of_two_variables_names_the_value():
    @cell(states="h", source="a test")
    def aliased(x, h):
        a = b = tanh(linear("a", x, h))
        c = a
        h = b * c
        return h

    assert names(aliased) == ["a.net", "a", "h"]


def test_a_name_bound_again_has_versions_and_the_last_is_plain():
    @cell(states="h", source="a test")
    def again(x, h):
        s = linear("a", x)
        s = tanh(s)
        s = s * s
        for _ in range(2):
            h = h * s
        return h

    assert names(again) == ["s~1", "s~2", "s", "h~1", "h"]


def test_the_value_that_becomes_the_state_has_its_name_whatever_the_variable():
    @cell(states="h c", source="a test")
    def renamed(x, h, c):
        h = tanh(linear("a", x, h))
        new_c = h * c
        h = h + 1.0
        return h, new_c

    assert names(renamed) == ["h~1", "c", "h"]
    assert renamed.graph.new["c"].name == "c"


def test_what_stands_in_the_return_is_named_by_its_state():
    @cell(states="h", output="y", source="a test")
    def unnamed(x, h):
        return sigmoid(linear("y", h)), tanh(linear("h", x))

    assert names(unnamed) == ["y.net", "y", "h.net", "h"]


def test_the_last_assignment_before_return_counts():
    @cell(states="h", output="y", source="a test")
    def late(x, h):
        h = tanh(linear("h", x, h))
        kept = h * h
        return kept + 1.0, h

    assert "kept" in names(late)


def test_what_was_computed_in_vain_leaves_no_version():
    @cell(states="h", source="a test")
    def wasteful(x, h):
        g = exp(h)
        g = tanh(linear("g", x, h))
        h = g * 2.0
        g = log(h)
        return h

    assert names(wasteful) == ["g.net", "g", "h"]


def test_given_names_stay_with_what_is_given():
    """An input, a weight or an option prints by its name; what a variable of that name holds later has a version."""

    @cell(states="h", source="a test")
    def shadow(x, h, *, scale=0.5):
        w = weight("w") * 2.0
        x = relu(x)
        scale = exp(scale)
        h = tanh(linear("h", h, x=x)) * w * scale
        return h

    assert names(shadow)[:3] == ["w~1", "x~1", "scale~1"]
    assert "x~1: I input = relu(x)" in shadow.print()
    assert "w~1: H weights = w * 2" in shadow.print()


def test_named_overrides_the_variable():
    @cell(states="h", source="a test")
    def by_hand(x, h):
        a = named("candidate", tanh(linear("a", x, h)))
        b = named("twice", named("once", a * 2.0))
        h = b + a
        return h

    assert names(by_hand) == ["candidate.net", "candidate", "twice", "h"]


def gate(name, *vectors):
    net = linear(name, *vectors)
    return sigmoid(net)  # inside the helper


def test_only_the_cells_own_variables_name_values():
    """A helper's variables do not, nor does what a comprehension makes until it is unpacked."""

    @cell(states="h", source="a test")
    def helped(x, h):
        i = gate("i", x, h)  # input gate
        f, o = [gate(k, x) for k in "fo"]  # two gates
        loose = [tanh(v) for v in (i, f)]
        h = loose[0] * loose[1] * o  # state
        return h

    assert names(helped) == ["i.net", "i", "f.net", "f", "o.net", "o", "h"]
    assert legends(helped) == {"i": "input gate", "f": "two gates", "o": "two gates", "h": "state"}


@function
def squash(v):
    return v / (1.0 + abs(v))


def test_functions_are_shown_as_calls_and_carry_the_legend_of_the_line():
    @cell(states="h", source="a test")
    def shown(x, h):
        h = squash(linear("h", x, h))  # squashed
        return h

    assert legends(shown) == {"h": "squashed"}
    assert "h: H state = squash(h.x @ x + h.h @ h[t-1] + h.bias)    # squashed" in shown.print()


@function
def weighted(v, power, switch=True):
    return v**power if switch else v


def test_calls_show_values_and_numbers_but_no_switches():
    @cell(states="h", source="a test")
    def shown(x, h, *, scale=0.5):
        a = weighted(tanh(linear("h", x, h)), 2)
        b = weighted(a, scale, True)
        h = a + b
        return h

    assert "a: H state = weighted(tanh(h.x @ x + h.h @ h[t-1] + h.bias), 2)" in shown.print()
    assert "b: H state = weighted(a, scale)" in shown.print()


def test_legends():
    @cell(states="h", source="a test")
    def commented(x, h):
        a = tanh(linear("a", x)) * float("#1"[1])  # with a "#" in a string
        b = a * 2.0
        c = a * 3.0  # for people
        d = a * 4.0  # type: ignore
        e, f = a * 5.0, a * 6.0  # a pair
        g = a * 7.0  #
        h = h * a * b * c * d * e * f * g
        return h

    assert legends(commented) == {
        "a": 'with a "#" in a string',
        "b": None,
        "c": "for people",
        "d": None,
        "e": "a pair",
        "f": "a pair",
        "g": None,
        "h": None,
    }


SOURCE = """
def from_text(x, h):
    a = tanh(linear("a", x, h))  # never seen
    h = a * a
    return h
"""


def test_cells_without_source_work_and_have_no_legends():
    scope = {"tanh": tanh, "linear": linear}
    exec(compile(SOURCE, "<typed in>", "exec"), scope)  # noqa: S102 - this is the case to try
    made = cell(states="h", source="a test")(scope["from_text"])
    assert names(made) == ["a.net", "a", "h"]
    assert legends(made) == {"a": None, "h": None}
    assert made.graph.named["a"].line == 3


def test_letters_of_other_alphabets_name_values_and_survive_the_file():
    @cell(states="h", source="a test")
    def greek(x, h):
        ĥ = tanh(linear("a", x, h))
        α = sigmoid(linear("b", x, h))
        h = α * ĥ
        return h

    assert set(names(greek)) == {"ĥ.net", "ĥ", "α.net", "α", "h"}
    assert names(Cell.from_json(greek.to_json())) == names(greek)


def test_overlong_variables_name_nothing():
    scope = {"tanh": tanh, "linear": linear}
    text = f"def long(x, h):\n    {'a' * 65} = linear('a', x, h)\n    h = {'a' * 65} * 2.0\n    return h\n"
    exec(text, scope)  # noqa: S102 - this is the case to try
    made = cell(states="h", source="a test")(scope["long"])
    assert names(made) == ["h"]


def test_initial_values_print_in_full_and_take_no_names_from_the_step():
    @cell(states="h", source="a test")
    def started(x, h):
        late = log(uniform(1, 9))
        radius = exp(weight("r", init=late))
        h = tanh(linear("h", x, h, bias=-late)) * radius + weight("m", init=1.0 - radius)
        late = h * weight("b", init=position() * 2.0)
        return late

    text = started.print()
    assert "  r: H, from log(uniform(1, 9))\n" in text
    assert "  h.bias: H, from -log(uniform(1, 9))\n" in text
    assert "  m: H, from 1 - radius\n" in text
    assert "  b: H, from position(0) * 2\n" in text
    assert "late" not in names(started)


def test_every_value_knows_its_line():
    @cell(states="h", source="a test")
    def placed(x, h):
        a = gate("a", x)
        h = a * tanh(h)
        return h

    first = placed.graph.named["h"].line
    assert placed.graph.named["h"].file == __file__
    assert placed.graph.named["a"].line == gate.__code__.co_firstlineno + 2
    assert first is not None
    assert placed.graph.new["h"].args[1].line == first


def test_rates_are_the_highest_of_the_operands():
    @cell(states="h", inputs="x who:1@sequence", source="a test")
    def rated(x, who, h, *, scale=0.5):
        w = exp(weight("log_w")) * scale
        s = tanh(linear("s", who)) * w
        i = sigmoid(linear("i", x)) * s
        h = i * tanh(linear("h", h)) + mean(h)
        return h

    rates = {name: value.rate for name, value in rated.graph.named.items()}
    assert {k: rates[k] for k in "wsih"} == {
        "w": Rate.WEIGHTS,
        "s": Rate.SEQUENCE,
        "i": Rate.INPUT,
        "h": Rate.STATE,
    }


def test_two_equal_values_and_two_equal_weights_stay_two():
    @cell(states="h", source="a test")
    def repeated(x, h):
        a = tanh(linear("a", x, h))
        b = tanh(linear("b", x, h))
        h = a * a + b * (1.0 - a) + (1.0 - a)
        return h

    assert sum(v.op == "sub" for v in repeated.graph.values) == 2
    assert len(repeated.graph.weights) == 6
