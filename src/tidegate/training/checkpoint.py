"""Checkpoints of a training run: one safetensors file, the plain data in its metadata, and a hash of the whole.

Written whole or not at all. Nothing in it is code. docs/decisions/0017-checkpoints.md says why it is laid out so.
"""

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from tidegate.errors import ArgumentError, ModelFileError
from tidegate.files import from_json, reading, to_json, write_atomic
from tidegate.files.model_folder import UNSEALED, check_size, read_tensors, seal, unseal

FORMAT = 1
_TENSOR = "$tensor"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a nested dictionary of tensors and plain data to a file. An error leaves the file as it was.

    Raises ArgumentError for anything else in it, and OSError, which names the file.
    """
    write_atomic(path, pack(state))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote; None where there is no such file. Raises ModelFileError where it is damaged."""
    found = read_tensors(path)
    if found is None:
        return None
    with reading(path):
        return unpack(found[0])


def pack(state: dict[str, Any]) -> bytes:
    """A nested dictionary of tensors and plain data as bytes. Raises ArgumentError for anything else in it."""
    tensors: dict[str, Tensor] = {}
    record = {"sha256": UNSEALED, "format": FORMAT, "state": _without_tensors(state, "state", tensors)}
    data = safetensors.torch.save(tensors, {"checkpoint": to_json(record, exact=True)})
    check_size(data)
    return seal(data)


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given. Raises ModelFileError, LookupError or ValueError where the bytes are damaged."""
    length = int.from_bytes(data[:8], "little")
    record = from_json(from_json(data[8 : 8 + length])["__metadata__"]["checkpoint"])
    if record["format"] != FORMAT:
        raise ModelFileError(
            f"a checkpoint of format {record['format']!r}, and this Tidegate reads {FORMAT}: update tidegate"
        )
    unseal(data, record, needed=True)
    state: dict[str, Any] = _with_tensors(record["state"], safetensors.torch.load(data))
    return state


def _without_tensors(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """The value with the name of each tensor in its place; the tensors are added to `tensors`."""
    match value:
        case Tensor():
            tensors[place] = value.detach().cpu().clone().contiguous()
            return {_TENSOR: place}
        case dict() if all(isinstance(name, str) and not name.startswith("$") for name in value):
            return {name: _without_tensors(part, f"{place}/{name}", tensors) for name, part in value.items()}
        case list() | tuple():
            return [_without_tensors(part, f"{place}/{number}", tensors) for number, part in enumerate(value)]
        case None | str() | int() | float():
            return value
    raise ArgumentError(
        f"A checkpoint holds tensors, numbers, texts, None, and lists and dictionaries of these with texts as keys, "
        f"got {value!r:.80} at {place}: convert it in state_dict()."
    )


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {name: _with_tensors(part, tensors) for name, part in value.items()}
    return [_with_tensors(part, tensors) for part in value] if isinstance(value, list) else value
