"""Which gates keep a state and which let the new in, of every cell and of some that are written to be hard to read."""

from typing import Any

import pytest

from catalogue import ALL
from tidegate.calculus import recurrent_matrices, updates
from tidegate.equations import cell, linear, relu, sigmoid, spread, tanh, weight, where

# state: keep, enter; a turned gate has a minus
GATES: dict[str, dict[str, tuple[str, str]]] = {
    "shipped elman": {},
    "shipped elman_relu": {},
    "shipped lstm_1997": {"c": ("", "i")},
    "shipped lstm": {"c": ("f", "i")},
    "shipped lstm_peephole": {"c": ("f", "i")},
    "shipped lstm_coupled": {"c": ("f", "-f")},
    "shipped lstm_projection": {"c": ("f", "i")},
    "shipped gru": {"h": ("z", "-z")},
    "shipped gru_reset_after": {"h": ("z", "-z")},
    "hard lstm_blocks_1997": {"c": ("", "i")},
    "hard lstm_blocks_2000": {"c": ("f", "i")},
    "shipped lstm_layer_norm": {"c": ("f", "i")},
    "shipped lstm_no_forget_gate": {"c": ("", "i")},
    "shipped lstm_no_input_gate": {"c": ("f", "")},
    "shipped mgu": {"h": ("-f", "f")},
    "shipped sru": {"c": ("f", "-f")},
    "shipped min_gru": {"h": ("-z", "z")},
    "hard lstm_phased": {"h": ("", "o"), "c": ("f", "i")},
    "hard gru_d": {"h": ("-z", "z")},
    "hard qrnn": {"c": ("f", "-f")},
    "hard recurrent_highway": {"s": ("-t -t -t -t -t", "t t t t t")},
    "hard fast_grnn": {"h": ("z", "")},
}


def shown(gates: Any) -> str:
    return " ".join("-" * g.turned + g.name.partition("~")[0] for g in gates)


@pytest.mark.parametrize("name", GATES)
def test_gates_of_every_cell(name: str) -> None:
    found = {u.state: (shown(u.keep), shown(u.enter)) for u in updates(ALL[name].graph)}
    assert {state: gates for state, gates in found.items() if gates != ("", "")} == GATES[name]


def test_gates_are_found_whatever_they_are_called() -> None:
    @cell(states="c h", output="y", source="a test")
    def puzzling(x, c, h):
        f = sigmoid(linear("f", x, h))  # not the forget gate
        b = weight("b")
        q = sigmoid(linear("q", x, bias=None) + b)
        old, y = c, tanh(c)
        kept = (1.0 - spread(sigmoid(linear("k", x, size="G")), to="H")) * -(old * 2.0)
        c = where(y > 0.0, f * y - kept, q)
        h = relu(f * h)
        return y, c, h

    (of_c,) = (u for u in updates(puzzling.graph) if u.keep or u.enter)
    assert of_c.state == "c"
    (keep,) = of_c.keep
    assert (keep.turned, [w.attrs["name"] for w in keep.biases]) == (True, ["k.bias"])
    assert [[w.attrs["name"] for w in g.biases] for g in of_c.enter] == [["f.bias"], ["b"]]


def test_matrices_on_states() -> None:
    found = {name: recurrent_matrices(c.graph) for name, c in ALL.items()}
    assert found["shipped elman"] == ["h.h"]
    assert found["shipped gru"] == ["r.h", "z.h", "n.h"]
    assert found["shipped gru_reset_after"] == ["r.h", "z.h", "m.h"]
    assert found["shipped lstm_projection"] == ["i.h", "f.h", "g.h", "o.h", "p.m"]
    assert found["hard qrnn"] == []  # a delay line holds inputs
    assert found["hard gru_d"] == ["r.h", "z.h", "n.h"]  # x is filled from a remembered input
    assert found["hard antisymmetric"] == []  # what multiplies h is computed from the weight M
    assert found["hard elstm"] == ["o.c"]
