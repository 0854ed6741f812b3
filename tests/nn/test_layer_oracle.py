"""Layers over whole sequences against each row alone in a plain loop: values and all gradients, float64, 1e-10."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layer_cases import CASES, PRODUCTS, B, Case, T, assert_layer, make_inputs, make_layer, make_state
from tidegate.cells import CELLS

LENGTHS = [4, 0, 6, 1]
RESET = torch.tensor(
    [[1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1]], dtype=torch.bool
)
SETTINGS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "one layer, carried": {"carried": True, "reset": True},
    "stacked, carried, cut": {"num_layers": 2, "carried": True, "lengths": True, "reset": True},
    "both directions": {"bidirectional": True, "num_layers": 2},
    "both directions, cut": {"bidirectional": True, "num_layers": 2, "lengths": True, "reset": True},
    "sum, learned": {"bidirectional": True, "merge": "sum", "learn_initial_state": True, "reset": True},
    "mean, learned, cut": {
        "bidirectional": True, "merge": "mean", "num_layers": 2, "learn_initial_state": True, "lengths": True,
        "reset": True,
    },
}  # fmt: skip


def layers_of(case: Case, setting: dict[str, Any]) -> dict[str, Any]:
    """The layer's options of a setting; what the case cannot be stacked to stays single."""
    options = {k: v for k, v in setting.items() if k not in ("carried", "lengths", "reset")}
    if not case.stackable or (case.cell.graph.inputs[0].size == ("H",) and options.get("merge", "concat") == "concat"):
        options.pop("num_layers", None)
    return options


def test_every_product_has_an_oracle() -> None:
    assert [case.name for case in PRODUCTS] == list(CELLS)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_each_row_alone(case: Case, setting: str) -> None:
    chosen = SETTINGS[setting]
    layer = make_layer(case.cell, **layers_of(case, chosen))
    assert_layer(
        case,
        layer,
        make_inputs(case, layer),
        LENGTHS if "lengths" in chosen else None,
        RESET if "reset" in chosen else None,
        make_state(layer) if "carried" in chosen else None,
    )


@pytest.mark.parametrize(
    ("steps", "rows", "hidden"), [(0, 3, 4), (3, 0, 4), (0, 0, 1), (1, 3, 4), (4, 1, 1), (1, 1, 1)]
)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru", "elman_relu"])
def test_nothing_and_next_to_nothing(name: str, bidirectional: bool, steps: int, rows: int, hidden: int) -> None:
    case = next(c for c in PRODUCTS if c.name == name)
    layer = make_layer(case.cell, 2, hidden, bidirectional=bidirectional, num_layers=2)
    inputs = make_inputs(case, layer, steps, rows)
    if rows:
        assert_layer(case, layer, inputs, [steps] * rows, torch.ones(steps, rows, dtype=torch.bool))
    y, state = layer(inputs, lengths=[steps] * rows, reset=torch.zeros(steps, rows))
    assert y.shape == (steps, rows, layer.output_size)
    assert state["h"].shape == (2 * (1 + bidirectional), rows, hidden)


@pytest.mark.parametrize("rows", [3, 6])
def test_sizes_that_happen_to_be_equal_are_not_confused(rows: int) -> None:
    """T = B = size of an input that comes once: it is neither masked nor turned round."""
    case = next(c for c in CASES if c.name == "told_once")
    layer = make_layer(case.cell, 4, rows, bidirectional=True)
    inputs = make_inputs(case, layer, 4, 4)
    assert inputs["who"].shape[:2] == (4, 4)
    assert_layer(case, layer, inputs, [4, 2, 0, 3])


@settings(max_examples=60)
@given(st.data())
def test_any_shape_lengths_and_resets(data: st.DataObject) -> None:
    steps, rows = data.draw(st.integers(0, 7), label="T"), data.draw(st.integers(1, 5), label="B")
    case = data.draw(st.sampled_from([c for c in CASES if c.stackable and c.cell.graph.inputs[0].size != ("H",)]))
    options = {"num_layers": data.draw(st.integers(1, 2)), "bidirectional": data.draw(st.booleans())}
    if options["bidirectional"]:
        options["merge"] = data.draw(st.sampled_from(["concat", "sum", "mean"]))
    options["learn_initial_state"] = data.draw(st.booleans())
    torch.manual_seed(data.draw(st.integers(0, 1000), label="seed"))
    layer = make_layer(case.cell, data.draw(st.integers(1, 4), label="I"), 12, **options)
    flags = st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=steps, max_size=steps)
    lengths = data.draw(st.none() | st.lists(st.integers(0, steps), min_size=rows, max_size=rows), label="lengths")
    reset = data.draw(st.none() | flags, label="reset")
    state = make_state(layer, rows) if not options["bidirectional"] and data.draw(st.booleans()) else None
    flagged = None if reset is None else torch.tensor(reset, dtype=torch.bool).reshape(steps, rows)
    assert_layer(case, layer, make_inputs(case, layer, steps, rows), lengths, flagged, state)


def test_the_constants_of_this_file_are_not_equal() -> None:
    """A swapped axis cannot pass."""
    assert len({T, B, 3, 12}) == 4
