"""Checkpoint files: what goes in comes out, bit for bit; what is damaged is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tidegate.errors import ArgumentError, ModelFileError
from tidegate.training.checkpoint import load_checkpoint, save_checkpoint
from training_cases import bits

STATE: dict[str, Any] = {
    "numbers": {"a": 1, "b": 0.1, "c": None, "d": "text", "e": True, "deep": [[], {}, [1, {"x": torch.ones(2)}]]},
    "tensors": {
        "float": torch.tensor([[0.1, float("nan")], [float("-inf"), -0.0]]),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "none": torch.zeros(0, 3),
        "turned": torch.arange(6).view(2, 3).T,
        "flag": torch.tensor([True, False]),
    },
}
STATE["tensors"]["shared"] = STATE["tensors"]["float"][0]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "deep" / "file", STATE)
    found = load_checkpoint(tmp_path / "deep" / "file")
    assert found is not None
    half = found["tensors"].pop("half")
    assert torch.equal(half, STATE["tensors"]["half"])
    expected = {**STATE, "tensors": {name: t for name, t in STATE["tensors"].items() if name != "half"}}
    assert bits(found) == bits(expected)


def test_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_checkpoint(path, STATE)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(ModelFileError, match=r"file is damaged"):
            load_checkpoint(path)
    path.write_bytes(data[:-1])
    with pytest.raises(ModelFileError, match=r"file is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "place"),
    [(object(), "state/a/0"), ({1: 2}, "state/a/0"), ({"$tensor": "x"}, "state/a/0"), (b"x", "state/a/0")],
)
def test_what_a_checkpoint_cannot_hold(value: object, place: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"at {place}: convert it in state_dict"):
        save_checkpoint(tmp_path / "file", {"a": [value]})
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.training.checkpoint.FORMAT", 2)
    save_checkpoint(tmp_path / "file", {})
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="a checkpoint of format 2, and this Tidegate reads 1: update tidegate"):
        load_checkpoint(tmp_path / "file")
