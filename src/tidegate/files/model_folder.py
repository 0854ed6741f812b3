"""A model's folder: `model.json`, written last, names one `weights-<sha256>.safetensors`, and nothing else is read.

A reader checks the format's version, the hash and the tensors' names, types and shapes before it allocates anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ModelFileError
from tidegate.files.atomic import locked, write_atomic

FORMAT = 1
MANIFEST = "model.json"
WEIGHTS = re.compile(r"weights-[0-9a-f]{64}\.safetensors")
STALE = re.compile(rf"{WEIGHTS.pattern}|\.({WEIGHTS.pattern}|model\.json)\.[0-9a-f]{{8}}")  # or left by a crash
MAX_MANIFEST, MAX_HEADER = 64 << 20, 16 << 20


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds: the manifest, and the weights' bytes with the header that describes them."""

    manifest: dict[str, Any]
    weights: bytes
    tensors: dict[str, tuple[str, tuple[int, ...]]]  # name -> safetensors dtype, shape


def write_model(folder: Path, kind: str, version: str, spec: dict[str, Any], weights: bytes) -> None:
    """Write a model: the weights under their hash, then the manifest, then remove weights that it no longer names."""
    name = f"weights-{hashlib.sha256(weights).hexdigest()}.safetensors"
    manifest = {"format": FORMAT, "kind": kind, "tidegate": version, "weights": name, "spec": spec}
    text = json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False)
    with locked(folder):
        write_atomic(folder / name, weights)
        write_atomic(folder / MANIFEST, text.encode())
        for old in folder.iterdir():
            if STALE.fullmatch(old.name) and old.name != name:
                with contextlib.suppress(OSError):
                    old.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone. Raises ModelFileError where it is missing, damaged or from a newer version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelFileError(f"{folder} holds no model: there is no {MANIFEST} in it")
    if path.stat().st_size > MAX_MANIFEST:
        raise ModelFileError(f"{path} has {path.stat().st_size} bytes, and {MAX_MANIFEST} is the most")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged, it is no JSON: {error}") from error
    _check_manifest(path, manifest)
    return dict(manifest)


def _check_manifest(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int or manifest["format"] < 1:
        raise ModelFileError(f"{path} is no model of Tidegate: it has no format number")
    if manifest["format"] > FORMAT:
        raise ModelFileError(
            f"{path} has format {manifest['format']}, and this Tidegate reads up to {FORMAT}: update tidegate "
            f"(the model was saved by {manifest.get('tidegate', 'an unknown version')})"
        )
    if not isinstance(manifest.get("kind"), str) or not isinstance(manifest.get("spec"), dict):
        raise ModelFileError(f"{path} is damaged: 'kind' or 'spec' is missing")
    if not isinstance(manifest.get("weights"), str) or not WEIGHTS.fullmatch(manifest["weights"]):
        raise ModelFileError(f"{path} is damaged: 'weights' must name a file weights-<sha256>.safetensors")


def read_model(folder: Path) -> ModelFolder:
    """The whole folder, checked. Raises ModelFileError."""
    manifest = read_manifest(folder)
    while (weights := _bytes(path := folder / manifest["weights"])) is None:
        earlier, manifest = manifest, read_manifest(folder)
        if manifest == earlier and not path.is_file():  # else another process has just saved a model here
            raise ModelFileError(f"{folder} is incomplete: {path.name}, which its {MANIFEST} names, is missing")
    if hashlib.sha256(weights).hexdigest() != path.stem.removeprefix("weights-"):
        raise ModelFileError(f"{path} is damaged: its content does not have the hash in its name")
    return ModelFolder(manifest, weights, _header(path, weights))


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except FileNotFoundError:
        return None


def _header(path: Path, weights: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    length = int.from_bytes(weights[:8], "little")
    if len(weights) < 8 or not 2 <= length <= min(MAX_HEADER, len(weights) - 8):
        raise ModelFileError(f"{path} is damaged: it has no header of safetensors")
    try:
        header = json.loads(weights[8 : 8 + length])
        header.pop("__metadata__", None)
        return {name: (str(t["dtype"]), tuple(map(int, t["shape"]))) for name, t in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: its header cannot be read: {error!r}") from error
