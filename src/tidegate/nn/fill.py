"""Tensors of a file into a module, once they are seen to fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tidegate.errors import ModelFileError


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace the tensors of a module that was made on the meta device, which allocates nothing."""
    check_tensors(tensors, module.state_dict())
    module.load_state_dict(tensors, assign=True)


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise ModelFileError unless names, types and shapes are the same."""
    forms = {name: f"{t.dtype} {tuple(t.shape)}" for name, t in wanted.items()}
    got = {name: f"{t.dtype} {tuple(t.shape)}" for name, t in found.items()}
    for name in sorted(forms.keys() | got.keys()):
        if name not in forms:
            raise ModelFileError(f"tensor {name!r} belongs to no part of the model")
        if forms[name] != got.get(name):
            raise ModelFileError(f"tensor {name!r} must be {forms[name]}, got {got.get(name, 'none')}")
