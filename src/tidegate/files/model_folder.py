"""A model's folder: `model.json`, written last, names one `weights-<sha256>.safetensors`, and nothing else is read.

A reader checks the format's version, sizes, hashes and the tensors' names, types and shapes before it allocates
anything. Since format 2 `model.json` has a hash of its own text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from tidegate.errors import ArgumentError, EquationError, ModelFileError
from tidegate.files import disk
from tidegate.files.atomic import locked, open_regular, write_atomic
from tidegate.files.text import from_json, to_json

FORMAT = 2
MANIFEST = "model.json"
WEIGHTS = re.compile(r"weights-[0-9a-f]{64}\.safetensors")
STALE = re.compile(rf"{WEIGHTS.pattern}|\.({WEIGHTS.pattern}|model\.json)\.[0-9a-f]{{8}}")  # or left by a crash
MAX_MANIFEST, MAX_HEADER = 64 << 20, 100_000_000  # bytes; that of a header is the limit of safetensors
UNSEALED = "0" * 64

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name -> safetensors dtype, shape


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds: the manifest, and the weights' bytes with the header that describes them."""

    manifest: dict[str, Any]
    weights: bytes
    tensors: Tensors


def seal(data: bytes) -> bytes:
    """Replace the first `UNSEALED` in the bytes by their SHA-256."""
    return data.replace(UNSEALED.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def unseal(data: bytes, content: dict[str, Any], *, needed: bool = False) -> None:
    """Remove the hash from content parsed from these bytes, once it is verified.

    Raises ModelFileError where it is not that of the bytes, as `seal` left them, or `needed` and absent.
    """
    if needed or "sha256" in content:
        digest = str(content.pop("sha256", None)).encode(errors="replace")
        if hashlib.sha256(data.replace(digest, UNSEALED.encode(), 1)).hexdigest().encode() != digest:
            raise ModelFileError("its content does not have the hash in it")


def check_size(weights: bytes, manifest: bytes = b"") -> None:
    """Raise ArgumentError for a model that could be written but not read again."""
    length = int.from_bytes(weights[:8], "little")
    if length > MAX_HEADER or len(manifest) > MAX_MANIFEST:
        raise ArgumentError(
            f"this model has too many parts for a file: {length} bytes of names and shapes of tensors, "
            f"{len(manifest)} of specification, and the limits are {MAX_HEADER} and {MAX_MANIFEST}. For an online "
            "learner choose a smaller max_keys."
        )


def write_model(folder: Path, kind: str, version: str, spec: dict[str, Any], weights: bytes) -> None:
    """Write a model: the weights under their hash, then the manifest, then remove weights that it no longer names."""
    name = f"weights-{hashlib.sha256(weights).hexdigest()}.safetensors"
    manifest = {"format": FORMAT, "sha256": UNSEALED, "kind": kind, "tidegate": version, "weights": name, "spec": spec}
    text = to_json(manifest, indent=1, exact=True).encode()
    check_size(weights, text)
    with locked(folder):
        new = not (folder / name).exists()
        try:
            write_atomic(folder / name, weights)
            write_atomic(folder / MANIFEST, seal(text))
        except BaseException:
            if new:
                _remove(folder / name)
            raise
        for old in folder.iterdir():
            if STALE.fullmatch(old.name) and old.name != name:
                _remove(old)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        disk.remove(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone. Raises ModelFileError where it is missing, damaged or from a newer version."""
    path = folder / MANIFEST
    data = read_limited(path)
    if data is None:
        raise ModelFileError(f"{folder} holds no model: there is no {MANIFEST} in it")
    try:
        manifest = from_json(data)
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged, it is not JSON: {error}") from error
    _check_manifest(path, manifest)
    with reading(path):
        unseal(data, manifest, needed=manifest["format"] > 1)
    return dict(manifest)


def read_limited(path: Path) -> bytes | None:
    """The bytes of a JSON file of bounded size; None if there is no such file. Raises ModelFileError."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_MANIFEST:
                raise ModelFileError(f"{path} has {size} bytes, more than the limit of {MAX_MANIFEST}")
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except ModelFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError | ValueError) -> ModelFileError:
    """The error of a file that is there and cannot be read."""
    return ModelFileError(f"{str(path)[:500]} cannot be read: {getattr(error, 'strerror', None) or error}")


def _check_manifest(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int or manifest["format"] < 1:
        raise ModelFileError(f"{path} is not a model of Tidegate: it has no format number")
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
    while (found := read_tensors(path := folder / manifest["weights"])) is None:
        earlier, manifest = manifest, read_manifest(folder)
        if manifest == earlier and not path.is_file():  # else another process has just saved a model here
            raise ModelFileError(f"{folder} is incomplete: {path.name}, which its {MANIFEST} names, is missing")
    weights, tensors = found
    if hashlib.sha256(weights).hexdigest() != path.stem.removeprefix("weights-"):
        raise ModelFileError(f"{path} is damaged: its content does not have the hash in its name")
    return ModelFolder(manifest, weights, tensors)


def read_tensors(path: Path) -> tuple[bytes, Tensors] | None:
    """Read a safetensors file whose size agrees with its header; None if there is no such file."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ModelFileError(f"{path} is damaged: it has no safetensors header")
            tensors, end = _header(path, file.read(length))
            if size != 8 + length + end:
                raise ModelFileError(f"{path} is damaged: it has {size} bytes, and its header says {8 + length + end}")
            file.seek(0)
            return file.read(size), tensors
    except (FileNotFoundError, IsADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def reading(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn any error of a damaged model into a ModelFileError that names its place."""
    try:
        yield
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{place} is damaged: its weights cannot be read: {error}") from error
    except EquationError as error:
        raise ModelFileError(f"{place} holds equations that are not sound: {error}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{place} is damaged: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{place} is damaged: its specification is incomplete or at odds: {error}") from error


def _header(path: Path, text: bytes) -> tuple[Tensors, int]:
    """Each tensor's type and shape, and where the last one ends."""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {name: (str(t["dtype"]), tuple(map(int, t["shape"]))) for name, t in header.items()}
        return tensors, max((int(t["data_offsets"][1]) for t in header.values()), default=0)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: its header cannot be read: {error!r}") from error
