"""The State: immutable, a pytree, its rows, its bytes."""

import contextlib
import copy
import json
import pickle
import struct
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor
from torch.utils import _pytree as pytree

import tidegate as tg
from catalogue import HARD
from layer_cases import make_layer
from tidegate.errors import ArgumentError
from tidegate.nn import State


def a_state(rows: int = 4) -> State:
    return State([[{"h": torch.randn(rows, 5), "c": torch.randn(rows, 5)}] for _ in range(2)])


def same(a: State, b: State) -> bool:
    first, second = pytree.tree_flatten(a), pytree.tree_flatten(b)
    return first[1] == second[1] and all(torch.equal(x, y) for x, y in zip(first[0], second[0], strict=True))


def test_reads_as_torch_stacks() -> None:
    state = a_state()
    assert state["h"].shape == (2, 4, 5)
    assert torch.equal(state["c"][1], state.layers[1][0]["c"])
    assert (state.names, state.batch_size) == (("h", "c"), 4)
    assert repr(state) == "State(2 layers x 1 directions: h [4, 5], c [4, 5])"


def test_layers_first_then_directions() -> None:
    parts = [[{"h": torch.full((1, 1), 10.0 * layer + d)} for d in range(2)] for layer in range(3)]
    assert State(parts)["h"].flatten().tolist() == [0, 1, 10, 11, 20, 21]


def test_differing_sizes_are_read_from_the_layers() -> None:
    layer = make_layer(HARD["qrnn"], 3, 5, num_layers=2)
    state = layer.initial_state(4)
    assert state["c"].shape == (2, 4, 5)
    with pytest.raises(ArgumentError) as caught:
        state["u0"]
    assert str(caught.value) == (
        "state 'u0' has different sizes in the layers (3, 5), so it is not one tensor: "
        "read state.layers[layer][direction]['u0']"
    )
    assert state.layers[1][0]["u0"].shape == (4, 5)


def test_unpacks_as_torch_stacks() -> None:
    y, (h, c) = make_layer(tg.cells.get("lstm"), 3, 5, num_layers=2)(torch.randn(6, 4, 3).double())
    assert h.shape == c.shape == (2, 4, 5)
    assert torch.equal(h[1], y[-1])
    state = a_state()
    assert all(torch.equal(a, state[n]) for n, a in zip(state.names, state, strict=True))
    assert "h" in state
    assert "d" not in state


def test_unpacking_sizes_that_differ_says_how_to_read_them() -> None:
    layer = make_layer(HARD["qrnn"], 3, 5, num_layers=2)
    with pytest.raises(ArgumentError, match=r"read state\.layers\[layer\]\[direction\]\['u0'\]"):
        tuple(layer.initial_state(4))


@pytest.mark.parametrize("name", ["shape", "h"])
def test_an_unknown_attribute(name: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(a_state(), name)
    assert str(caught.value) == f"a State has no attribute {name!r}: read its tensors as state['h']"


def test_an_unknown_name() -> None:
    with pytest.raises(KeyError) as caught:
        a_state()["d"]
    assert caught.value.args[0] == "there is no state 'd'; there are h, c"


def test_never_changes() -> None:
    named = {"h": torch.zeros(2, 5)}
    state = State([[named]])
    named["c"] = torch.zeros(2, 5)
    assert state.names == ("h",)
    with pytest.raises(FrozenInstanceError):
        state.layers = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        state.layers[0][0]["h"] = torch.ones(2, 5)  # type: ignore[index]
    with pytest.raises(TypeError):
        state["h"] = torch.ones(2, 5)  # type: ignore[index]
    assert isinstance(state.layers, tuple)
    assert isinstance(state.layers[0], tuple)


def test_detach_cuts_the_gradient() -> None:
    layer = make_layer(tg.cells.get("lstm"), 3, 5)
    _, state = layer(torch.randn(2, 4, 3, dtype=torch.float64))
    assert state["c"].requires_grad
    cut = state.detach()
    assert not cut["c"].requires_grad
    assert torch.equal(cut["c"], state["c"])


def test_to_another_type_and_device() -> None:
    state = a_state().to(torch.float64).to("meta")
    assert (state["h"].dtype, state["h"].device.type) == (torch.float64, "meta")


@pytest.mark.parametrize("index", [[2, 0], torch.tensor([2, 0]), torch.tensor([True, False, True, False]), slice(1, 3)])
def test_rows(index: Any) -> None:
    state = a_state()
    for name in "hc":
        assert torch.equal(state.rows(index)[name], state[name][:, index])
    assert torch.equal(state.rows(2)["h"], state["h"][:, 2:3])
    assert torch.equal(state.rows(-1)["h"], state["h"][:, 3:])


def test_cat_puts_rows_together() -> None:
    state = a_state()
    assert same(State.cat([state.rows([0]), state.rows([1, 2, 3])]), state)


def test_errors_of_cat() -> None:
    with pytest.raises(ArgumentError) as caught:
        State.cat([])
    assert str(caught.value) == "State.cat takes at least one state, got none"
    other = State([[{"h": torch.zeros(1, 5)}]])
    for pair in ([a_state(), other], [State([[{"h": torch.zeros(1, 5), "d": torch.zeros(1, 5)}]]), other]):
        with pytest.raises(ArgumentError) as caught:
            State.cat(pair)
        assert str(caught.value) == (
            "State.cat takes states of one layer, got states that differ in layers, directions or names: "
            f"{pair[0]!r}, State(1 layers x 1 directions: h [1, 5])"
        )


def test_is_a_pytree() -> None:
    state = a_state()
    leaves, spec = pytree.tree_flatten(state)
    assert [id(v) for v in leaves] == [id(d[n]) for ds in state.layers for d in ds for n in ("h", "c")]
    doubled = pytree.tree_map(lambda v: 2 * v, {"a": [state]})["a"][0]
    assert isinstance(doubled, State)
    assert torch.equal(doubled["c"], 2 * state["c"])
    assert same(pytree.tree_unflatten(leaves, spec), state)
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(a_state())[0]]
    assert paths[:2] == ["['0.0.h']", "['0.0.c']"]


def test_goes_through_torch_func() -> None:
    layer = make_layer(tg.cells.get("lstm"), 3, 5)
    x = torch.randn(4, 3, dtype=torch.float64)

    def loss(state: State) -> Tensor:
        return layer.step(x, state)[0].square().sum()

    state = State([[{n: torch.randn(4, 5, dtype=torch.float64) for n in "hc"}]])
    gradient = torch.func.grad(loss)(state)
    assert isinstance(gradient, State)
    moved = State([[{n: v + 1e-6 * gradient.layers[0][0][n] for n, v in state.layers[0][0].items()}]])
    expected = 1e-6 * sum(v.square().sum() for v in gradient.layers[0][0].values())
    assert (loss(moved) - loss(state)).item() == pytest.approx(expected.item(), rel=1e-4)


def test_copies_and_pickles() -> None:
    state = a_state()
    for twin in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):  # noqa: S301 - our own bytes
        assert same(twin, state)
        assert twin["h"].data_ptr() != state["h"].data_ptr()


# Bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bytes_give_the_same_state(dtype: torch.dtype) -> None:
    state = State([[{"h": torch.randn(3, 5), "c": torch.randn(3, 4)} for _ in range(2)] for _ in range(12)]).to(dtype)
    again = State.from_bytes(state.to_bytes())
    assert same(again, state)
    assert again.names == ("h", "c")


def test_bytes_of_states_that_share_memory_or_have_a_gradient() -> None:
    layer = tg.Recurrent(HARD["qrnn"](delay=3), 3, 5, learn_initial_state=True)
    for state in (layer(torch.randn(6, 4, 3))[1], layer.initial_state(4)):
        assert same(State.from_bytes(state.to_bytes()), state.detach())


def test_bytes_of_no_rows() -> None:
    assert same(State.from_bytes(a_state(0).to_bytes()), a_state(0))


def hostile(order: str, **tensors: Tensor) -> bytes:
    return save({k.replace("_", "."): v.clone() for k, v in tensors.items()}, {"order": order})


ONE = torch.zeros(2, 3)
HOSTILE = {
    "empty": (b"", "Error while deserializing: header too small"),
    "out of order": (hostile("1.0.h", **{"1_0_h": ONE}), "'1.0.h' is out of its order"),
    "a gigantic layer": (
        hostile("999999999.0.h", **{"999999999_0_h": ONE}),
        "'999999999.0.h' of [2, 3] is no part of a state",
    ),
    "a third direction": (hostile("0.2.h", **{"0_2_h": ONE}), "'0.2.h' of [2, 3] is no part of a state"),
    "a gap in directions": (hostile("0.1.h", **{"0_1_h": ONE}), "'0.1.h' is out of its order"),
    "no name": (hostile("0.0.", **{"0_0_": ONE}), "'0.0.' of [2, 3] is no part of a state"),
    "not two axes": (hostile("0.0.h", **{"0_0_h": ONE[0]}), "'0.0.h' of [3] is no part of a state"),
    "two batches": (
        hostile("0.0.h 0.0.c", **{"0_0_h": ONE, "0_0_c": ONE[:1]}),
        "'0.0.c' of [1, 3] is no part of a state",
    ),
    "one too many": (hostile("0.0.h", **{"0_0_h": ONE, "0_0_c": ONE}), "'0.0.c' has no place in its order"),
    "nothing in it": (hostile(""), "there is no tensor in them"),
    "named and missing": (hostile("0.0.h 0.0.c", **{"0_0_h": ONE}), "'0.0.c'"),
    "named twice": (hostile("0.0.h 0.0.h", **{"0_0_h": ONE}), "'0.0.h'"),
    "no order": (save({"0.0.h": ONE}), "'__metadata__'"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_bytes_that_are_no_state(what: str) -> None:
    data, reason = HOSTILE[what]
    with pytest.raises(ArgumentError) as caught:
        State.from_bytes(data)
    assert str(caught.value) == f"data must be bytes written by State.to_bytes, got {len(data)} bytes: {reason}"


def test_any_changed_bit_of_a_state_is_refused() -> None:
    good = a_state(1).to_bytes()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ArgumentError):
            State.from_bytes(bytes(changed))


@settings(max_examples=150)
@given(st.data())
def test_no_bytes_do_harm(data: st.DataObject) -> None:
    """Changed, cut and random bytes give a State or an ArgumentError."""
    good = bytearray(a_state(1).to_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(good)) | st.integers(0, len(good)))
    mutated = data.draw(st.sampled_from([bytes(good[:cut]), data.draw(st.binary(max_size=64))]))
    with contextlib.suppress(ArgumentError):
        assert State.from_bytes(mutated).names


def test_a_header_that_is_deep_or_long() -> None:
    for text in ("[" * 100_000, json.dumps({"__metadata__": {"order": "0.0.h"}})):
        with pytest.raises(ArgumentError, match=r"must be bytes written by State\.to_bytes"):
            State.from_bytes(struct.pack("<Q", len(text)) + text.encode())
