"""The folder of a model: what is written, in which order, and what a reader refuses."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tidegate.errors import ArgumentError, ModelFileError
from tidegate.files import model_folder, read_model, write_model
from tidegate.files.model_folder import read_manifest

ONE, TWO = (save({"w": torch.full((2, 3), float(k)), "b": torch.zeros(2, dtype=torch.float64)}) for k in (1, 2))
SPEC = {"cell": {"name": "é"}, "sizes": {}}


def name_of(weights: bytes) -> str:
    return f"weights-{hashlib.sha256(weights).hexdigest()}.safetensors"


def names_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def write(folder: Path, weights: bytes = ONE, spec: dict[str, Any] | None = None) -> Path:
    write_model(folder, "recurrent", "0.1.0", spec or SPEC, weights)
    return folder


def change(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "model.json").read_text("utf-8"))
    (folder / "model.json").write_text(json.dumps({**manifest, **values}), "utf-8")


def refused(folder: Path, message: str, read: Any = read_model) -> None:
    with pytest.raises(ModelFileError) as caught:
        read(folder)
    assert str(caught.value) == message


def test_goes_in_and_comes_out(tmp_path: Path) -> None:
    found = read_model(write(tmp_path / "new" / "model"))
    assert found.manifest == {
        "format": 2, "kind": "recurrent", "tidegate": "0.1.0", "weights": name_of(ONE), "spec": SPEC,
    }  # fmt: skip
    assert found.weights == ONE
    assert found.tensors == {"w": ("F32", (2, 3)), "b": ("F64", (2,))}


def test_a_second_model_replaces_the_first_whole(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "weights-of-mine.safetensors").write_text("mine")
    (tmp_path / f".{name_of(TWO)}.0123abcd").write_text("left by a crash")
    (tmp_path / ".model.json.0123abcd").write_text("left by a crash")
    write(tmp_path, TWO)
    assert names_in(tmp_path) == {"model.json", name_of(TWO), "notes.txt", "weights-of-mine.safetensors"}
    assert read_model(tmp_path).weights == TWO


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path)
    assert names_in(tmp_path) == {"model.json", name_of(ONE)}


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_crash_leaves_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """After none, one or both of the two writes."""
    write(tmp_path)
    calls: list[Path] = []
    real = model_folder.write_atomic

    def crash(path: Path, data: bytes) -> None:
        if len(calls) == written:
            raise KeyboardInterrupt
        real(path, data)
        calls.append(path)

    monkeypatch.setattr(model_folder, "write_atomic", crash)
    if written == 2:
        monkeypatch.setattr(Path, "iterdir", lambda self: crash(self, b""))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, TWO)
    assert [p.name for p in calls] == [name_of(TWO), "model.json"][:written]
    monkeypatch.undo()
    assert read_model(tmp_path).weights == (TWO if written == 2 else ONE)
    write(tmp_path, TWO)
    assert names_in(tmp_path) == {"model.json", name_of(TWO)}


def test_weights_that_cannot_be_removed_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def refuse(self: Path) -> None:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "unlink", refuse)
    write(tmp_path, TWO)
    assert read_model(tmp_path).weights == TWO
    assert names_in(tmp_path) == {"model.json", name_of(ONE), name_of(TWO)}


def test_a_reader_whose_weights_were_replaced_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its two reads another process saves: it gets the new model, not an error."""
    write(tmp_path)
    real = model_folder.read_manifest
    reads: list[dict[str, Any]] = []

    def read_and_be_overtaken(folder: Path) -> dict[str, Any]:
        reads.append(real(folder))
        if len(reads) == 1:
            write(tmp_path, TWO)
        return reads[-1]

    monkeypatch.setattr(model_folder, "read_manifest", read_and_be_overtaken)
    assert read_model(tmp_path).weights == TWO
    assert len(reads) == 2


def test_a_reader_whose_weights_vanish_while_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    real = model_folder.open_regular

    def overtaken(path: Path) -> Any:
        if path.name == name_of(ONE):
            write(tmp_path, TWO)
        return real(path)

    monkeypatch.setattr(model_folder, "open_regular", overtaken)
    assert read_model(tmp_path).weights == TWO


# Errors


def test_no_model(tmp_path: Path) -> None:
    refused(tmp_path, f"{tmp_path} holds no model: there is no model.json in it")
    refused(tmp_path / "absent", f"{tmp_path / 'absent'} holds no model: there is no model.json in it")
    (tmp_path / "model.json").mkdir()
    refused(tmp_path, f"{tmp_path} holds no model: there is no model.json in it")


def test_a_manifest_that_is_no_json(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.json"
    text = path.read_bytes()
    path.write_bytes(text[: len(text) // 2])
    with pytest.raises(ModelFileError, match="is damaged, it is not JSON: "):
        read_model(tmp_path)
    path.write_bytes(b"[1, 2")
    refused(tmp_path, f"{path} is damaged, it is not JSON: Expecting ',' delimiter: line 1 column 6 (char 5)")
    for hostile in (b"\xff\xfe\x00", b"[" * 200_000, b'{"format": ' + b"9" * 10_000 + b"}", b""):
        path.write_bytes(hostile)
        with pytest.raises(ModelFileError, match="is damaged, it is not JSON: "):
            read_model(tmp_path)


def test_a_manifest_without_end(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), (64 << 20) + 1)
    refused(tmp_path, f"{path} has 67108865 bytes, more than the limit of 67108864")


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", "{}", '{"format": "1"}', '{"format": true}', '{"format": 0}', '{"format": -1}']
)
def test_a_manifest_of_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    refused(tmp_path, f"{path} is not a model of Tidegate: it has no format number")


def test_a_newer_format(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.json"
    change(tmp_path, format=3, tidegate="9.1")
    message = f"{path} has format 3, and this Tidegate reads up to 2: update tidegate (the model was saved by {{}})"
    refused(tmp_path, message.format("9.1"))
    path.write_text('{"format": 3}')
    refused(tmp_path, message.format("an unknown version"))


@pytest.mark.parametrize("values", [{"kind": 3}, {"spec": []}, {"kind": None}, {"spec": None}])
def test_parts_that_are_missing(tmp_path: Path, values: dict[str, Any]) -> None:
    change(write(tmp_path), **values)
    refused(tmp_path, f"{tmp_path / 'model.json'} is damaged: 'kind' or 'spec' is missing")


@pytest.mark.parametrize(
    "name",
    [
        None, 3, "", "weights.safetensors", "../weights-" + 64 * "0" + ".safetensors", "/etc/passwd",
        "weights-" + 64 * "0" + ".safetensors/../../x", "weights-" + 64 * "0" + ".safetensors\n",
        "weights-" + 64 * "A" + ".safetensors", "weights-" + 63 * "0" + ".safetensors", "weights-" + 64 * "0" + ".pt",
    ],
)  # fmt: skip
def test_weights_elsewhere(tmp_path: Path, name: Any) -> None:
    change(write(tmp_path), weights=name)
    refused(tmp_path, f"{tmp_path / 'model.json'} is damaged: 'weights' must name a file weights-<sha256>.safetensors")
    refused(
        tmp_path,
        f"{tmp_path / 'model.json'} is damaged: 'weights' must name a file weights-<sha256>.safetensors",
        read_manifest,
    )


def test_weights_that_are_missing_or_changed(tmp_path: Path) -> None:
    path = write(tmp_path) / name_of(ONE)
    changed = f"{path} is damaged: its content does not have the hash in its name"
    for wrong in (ONE[:-1] + b"\1", TWO):
        path.write_bytes(wrong)
        refused(tmp_path, changed)
    path.unlink()
    missing = f"{tmp_path} is incomplete: {path.name}, which its model.json names, is missing"
    refused(tmp_path, missing)
    path.mkdir()
    refused(tmp_path, missing)


@pytest.mark.parametrize("data", [b"", b"1234567", b"\0" * 8, b"\xff" * 16, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_weights_without_a_header(tmp_path: Path, data: bytes) -> None:
    (write(tmp_path) / name_of(data)).write_bytes(data)
    manifest = read_manifest(tmp_path) | {"format": 1, "weights": name_of(data)}
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    refused(tmp_path, f"{tmp_path / name_of(data)} is damaged: it has no safetensors header")


def test_weights_with_a_header_of_something_else(tmp_path: Path) -> None:
    headers = {
        "[]": "TypeError('pop expected at most 1 argument, got 2')",
        '{"w": 3}': "TypeError(\"'int' object is not subscriptable\")",
        '{"w": {"dtype": "F32"}}': "KeyError('shape')",
        '{"w": {"dtype": "F32", "shape": ["a"]}}': "ValueError(\"invalid literal for int() with base 10: 'a'\")",
        '{"w": {"dtype": "F32", "shape": [1e999]}}': "OverflowError('cannot convert float infinity to integer')",
        '{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}': "IndexError('list index out of range')",
    }
    for text, reason in headers.items():
        data = len(text).to_bytes(8, "little") + text.encode()
        write(tmp_path, data)
        refused(tmp_path, f"{tmp_path / name_of(data)} is damaged: its header cannot be read: {reason}")


def test_weights_of_another_size_than_their_header_says_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path) / name_of(ONE)
    os.truncate(path, 6 << 30)  # sparse: reading it would take as much memory
    refused(tmp_path, f"{path} is damaged: it has 6442450944 bytes, and its header says {len(ONE)}")
    path.write_bytes(ONE[:-1])
    refused(tmp_path, f"{path} is damaged: it has {len(ONE) - 1} bytes, and its header says {len(ONE)}")


def test_any_changed_bit_of_a_manifest_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.json"
    before = path.read_bytes()
    for place in range(len(before)):
        changed = bytearray(before)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            read_model(tmp_path)
    for old, new in ((b'"format": 2', b'"format": 1'), (b'"sha256"', b'"sha257"'), (b"\n", b"\r\n"), (b"}", b"} ")):
        path.write_bytes(before.replace(old, new))
        refused(tmp_path, f"{path} is damaged: its content does not have the hash in it")
    path.write_bytes(before)
    assert read_model(tmp_path).weights == ONE


def test_a_manifest_of_format_1_has_no_hash(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    refused(tmp_path, f"{path} is damaged: its content does not have the hash in it")
    path.write_text(json.dumps(manifest | {"format": 1}))
    assert read_model(tmp_path).manifest["spec"] == SPEC


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(f'{{"format": 1, "spec": {text}}}')
    refused(tmp_path, f"{path} is damaged, it is not JSON: {text} is not a finite number")


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path) / "model.json"
    refused(Path("x" * 5000), f"{'x' * 500} cannot be read: File name too long")
    with pytest.raises(ModelFileError, match="cannot be read: embedded null byte"):
        read_model(tmp_path / "\0")
    for other in (tmp_path / name_of(ONE), path):
        other.unlink()
        os.mkfifo(other)
        refused(tmp_path, f"{other} cannot be read: Not a regular file")

    def forbid(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbid)
    refused(tmp_path, f"{path} cannot be read: Permission denied")


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setattr(model_folder, "MAX_HEADER", 10)
    with pytest.raises(ArgumentError) as caught:
        write(tmp_path, TWO)
    length = int.from_bytes(TWO[:8], "little")
    assert str(caught.value) == (
        f"this model has too many parts for a file: {length} bytes of names and shapes of tensors, 301 of "
        "specification, and the limits are 10 and 67108864. For an online learner choose a smaller max_keys."
    )
    monkeypatch.undo()
    assert read_model(tmp_path).weights == ONE


@pytest.mark.parametrize("file", ["weights-", "model.json"])
def test_a_disk_that_is_full_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    real = model_folder.write_atomic

    def full(path: Path, data: bytes) -> None:
        if path.name.startswith(file):
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    write(tmp_path / "old")
    monkeypatch.setattr(model_folder, "write_atomic", full)
    for folder in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(OSError, match="No space left on device"):
            write(folder, TWO)
    assert names_in(tmp_path / "new") == set()
    assert read_model(tmp_path / "old").weights == ONE
    assert names_in(tmp_path / "old") == {"model.json", name_of(ONE)}
