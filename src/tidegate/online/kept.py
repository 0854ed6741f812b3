"""A learner as bytes, in a model's folder, and in a folder of snapshots."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import safetensors.torch

from tidegate.errors import ArgumentError, ModelFileError
from tidegate.files import disk, from_json, read_model, reading, to_json, write_atomic
from tidegate.files.atomic import locked, remove_unfinished
from tidegate.files.model_folder import UNSEALED, check_size, read_tensors, seal, unseal
from tidegate.online.core import Core
from tidegate.online.spec import Spec, Tensors, from_spec

SNAPSHOT = re.compile(r"snapshot-\d{12}\.safetensors")
SNAPSHOTS_KEPT = 2


def pack(spec: Spec, tensors: Tensors) -> bytes:
    """Bytes of safetensors, with the data and a hash of the whole as metadata."""
    learner = to_json({"sha256": UNSEALED, **spec}, exact=True)
    data = safetensors.torch.save(tensors, {"learner": learner})
    check_size(data)
    return seal(data)


def unpack(data: bytes) -> Core:
    """The learner of such bytes. Raises ArgumentError where they are not a snapshot."""
    try:
        with reading(f"the snapshot of {len(data)} bytes"):
            length = int.from_bytes(data[:8], "little")
            spec = from_json(from_json(data[8 : 8 + length])["__metadata__"]["learner"])
            unseal(data, spec)  # version 0.1.0 wrote no hash
            return from_spec(spec, safetensors.torch.load(data))
    except ModelFileError as error:
        raise ArgumentError(f"{error}; give what OnlineLearner.snapshot gave") from error


def read(folder: Path, kind: str) -> Core:
    """The learner of a model's folder. Raises ModelFileError where there is none."""
    found = read_model(folder)
    if found.manifest["kind"] != kind:
        raise ModelFileError(f"{folder} holds a model of kind {found.manifest['kind']!r}: load it with tidegate.load")
    with reading(folder):
        return from_spec(found.manifest["spec"], safetensors.torch.load(found.weights))


def add(folder: Path, step: int, data: bytes) -> None:
    """Write a snapshot, whole or not at all; remove all but the last two, and files left by killed writers."""
    with locked(folder):
        write_atomic(folder / f"snapshot-{step:012}.safetensors", data)
        remove_unfinished(folder, SNAPSHOT.pattern)
        for old in _snapshots(folder)[:-SNAPSHOTS_KEPT]:
            with contextlib.suppress(OSError):
                disk.remove(old)


def newest(folder: Path) -> Core:
    """The learner of the newest snapshot that can be read. Raises ModelFileError where there is none."""
    with contextlib.suppress(OSError):
        for path in reversed(_snapshots(folder)):
            with contextlib.suppress(ArgumentError, ModelFileError):
                found = read_tensors(path)
                if found is not None:
                    return unpack(found[0])
    raise ModelFileError(
        f"{folder!s:.500} holds no snapshot that can be read: give the folder of OnlineLearner(snapshots=)"
    )


def _snapshots(folder: Path) -> list[Path]:
    """The paths of all snapshots, the oldest first."""
    return sorted(path for path in folder.glob("snapshot-*") if SNAPSHOT.fullmatch(path.name))
