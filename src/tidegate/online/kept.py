"""A learner as bytes, in a model's folder, and in a folder of snapshots."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import safetensors
import safetensors.torch

from tidegate.errors import ArgumentError, ModelFileError
from tidegate.files import read_model, write_atomic
from tidegate.online.core import Core
from tidegate.online.spec import Spec, Tensors, from_spec

SNAPSHOT = re.compile(r"snapshot-\d{12}\.safetensors")
KEPT = 2
WRONG = (
    safetensors.SafetensorError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ValueError,
    RuntimeError,
    RecursionError,
)


def pack(tensors: Tensors, spec: Spec | None = None) -> bytes:
    """Bytes of safetensors, with the data as their metadata."""
    own = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(own, None if spec is None else {"learner": json.dumps(spec, allow_nan=False)})


def unpack(data: bytes) -> Core:
    """The learner of such bytes. Raises ArgumentError where they are none."""
    try:
        length = int.from_bytes(data[:8], "little")
        spec = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["learner"])
        return from_spec(spec, safetensors.torch.load(data))
    except WRONG as error:
        raise ArgumentError(
            f"these {len(data)} bytes are no snapshot as OnlineLearner.snapshot gives it: {error}"
        ) from error


def read(folder: Path, kind: str) -> Core:
    """The learner of a model's folder. Raises ModelFileError where there is none."""
    found = read_model(folder)
    if found.manifest["kind"] != kind:
        raise ModelFileError(f"{folder} holds a model of kind {found.manifest['kind']!r}: load it with tidegate.load")
    try:
        return from_spec(found.manifest["spec"], safetensors.torch.load(found.weights))
    except WRONG as error:
        raise ModelFileError(f"{folder} is damaged: its specification is incomplete or at odds: {error}") from error


def add(folder: Path, step: int, data: bytes) -> None:
    """Write a snapshot, whole or not at all, and drop those before the last two."""
    write_atomic(folder / f"snapshot-{step:012}.safetensors", data)
    for old in _snapshots(folder)[:-KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()


def newest(folder: Path) -> Core:
    """The learner of the newest snapshot that can be read. Raises ModelFileError where there is none."""
    for path in reversed(_snapshots(folder)):
        with contextlib.suppress(ArgumentError, OSError):
            return unpack(path.read_bytes())
    raise ModelFileError(f"{folder} holds no snapshot that can be read: give the folder of OnlineLearner(snapshots=)")


def _snapshots(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(path for path in folder.glob("snapshot-*") if SNAPSHOT.fullmatch(path.name))
