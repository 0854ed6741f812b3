"""Saving and loading: `save`, `load`, `describe`. A model is data: JSON and safetensors, its equations included.

There is a closed table of kinds. Loading runs no code from the folder, and checks every name, type and shape before it
allocates anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from tidegate.equations import Cell
from tidegate.equations.values import shown
from tidegate.errors import ArgumentError, ModelFileError, type_of
from tidegate.files import read_model, reading, write_model
from tidegate.nn import GRU, LSTM, RNN, Recurrent, Stack
from tidegate.nn.weights import fill

Spec = dict[str, Any]
Tensors = dict[str, Tensor]
RECURRENT = ("num_layers", "bidirectional", "merge", "dropout", "batch_first", "learn_initial_state")
STACK = ("residual", "highway", "dropout")
DROPIN = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
MAX_SIZE = 1 << 20

Field = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that
_SIZE: Field = (f"a whole number from 1 to {MAX_SIZE}", lambda v: type(v) is int and 1 <= v <= MAX_SIZE)
_FLAG: Field = ("true or false", lambda v: type(v) is bool)
FIELDS: dict[str, Field] = {  # of a spec; what is not named here is a size
    **dict.fromkeys(("bidirectional", "batch_first", "learn_initial_state", "bias", "residual", "highway"), _FLAG),
    "merge": ("'concat', 'sum' or 'mean'", lambda v: v in ("concat", "sum", "mean")),
    "nonlinearity": ("'tanh' or 'relu'", lambda v: v in ("tanh", "relu")),
    "dropout": ("a number from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1),
    "proj_size": (f"a whole number from 0 to {MAX_SIZE}", lambda v: type(v) is int and 0 <= v <= MAX_SIZE),
}


@dataclass(frozen=True)
class Kind:
    """How one kind of model is converted to a spec with tensors, and back."""

    load_type: Callable[[], Any]
    to_spec: Callable[[Any], tuple[Spec, Tensors]]
    from_spec: Callable[[Any, Spec, Tensors], Any]


def _recurrent_spec(layer: Recurrent) -> tuple[Spec, Tensors]:
    options = {k: getattr(layer, k) for k in RECURRENT if k != "learn_initial_state"}
    options["learn_initial_state"] = any(name.startswith("start_l") for name, _ in layer.named_children())
    sizes = {k: v for k, v in layer.sizes.items() if k not in "IH"}
    spec = {"input_size": layer.input_size, "hidden_size": layer.hidden_size, "sizes": sizes, "options": options}
    tensors = dict(layer.state_dict())
    learned = [state.name for state in layer.graph.states if not state.bookkeeping]
    parts = {part: learned if part.startswith("start_l") else layer.graph.weights for part, _ in layer.named_children()}
    _check_own(tensors, {f"{part}.{name}" for part, names in parts.items() for name in names})
    return {"cell": layer.cell.to_json(), **spec}, tensors


def _recurrent(kind: type[Recurrent], spec: Spec, tensors: Tensors) -> Recurrent:
    return _filled(_empty_recurrent(spec, tensors), tensors)


def _empty_recurrent(spec: Spec, tensors: Tensors) -> Recurrent:
    """A layer on the meta device, whose size is bounded by its tensors."""
    cell, options = Cell.from_json(spec["cell"]), {k: spec["options"][k] for k in RECURRENT}
    sizes = {"input_size": spec["input_size"], "hidden_size": spec["hidden_size"], **spec["sizes"]}
    _check_fields(sizes | options, tensors)
    return Recurrent(cell, device="meta", **options, **sizes)


def _stack_spec(stack: Stack) -> tuple[Spec, Tensors]:
    layers, own = [], set[str]()
    for holder, modules in (("layers", stack.layers), ("gates", stack.gates)):
        for k, module in enumerate(modules):
            kind = _kind_of(module)
            spec, tensors = KINDS[kind].to_spec(module)
            own |= {f"{holder}.{k}.{name}" for name in tensors}
            layers += [{"kind": kind, "spec": spec}] if holder == "layers" else []
    tensors = dict(stack.state_dict())
    _check_own(tensors, own)
    return {"layers": layers, "options": {k: getattr(stack, k) for k in STACK}}, tensors


def _stack(kind: type[Stack], spec: Spec, tensors: Tensors) -> Stack:
    return _filled(_empty_stack(spec, tensors), tensors)


def _empty_stack(spec: Spec, tensors: Tensors) -> Stack:
    layers = []
    for k, part in enumerate(spec["layers"]):
        own = f"layers.{k}."
        inside = {name.removeprefix(own): t for name, t in tensors.items() if name.startswith(own)}
        if not inside:
            raise ModelFileError(f"the model has layers[{k}], but no tensor's name begins with {own!r}")
        layers.append(EMPTY[part["kind"]](part["spec"], inside))
    options = {k: spec["options"][k] for k in STACK}
    _check_fields(options, tensors)
    return Stack(*layers, **options)


EMPTY: dict[str, Callable[[Spec, Tensors], Recurrent | Stack]] = {"recurrent": _empty_recurrent, "stack": _empty_stack}


def _dropin_spec(module: nn.RNNBase) -> tuple[Spec, Tensors]:
    tensors = dict(module.state_dict())
    _check_own(tensors, {name for names in module._all_weights for name in names})
    return {k: getattr(module, k) for k in _dropin_fields(type(module))}, tensors


def _dropin_fields(kind: Any) -> tuple[str, ...]:
    return (*DROPIN, *(("proj_size",) if kind is LSTM else ()), *(("nonlinearity",) if kind is RNN else ()))


def _check_own(tensors: Tensors, own: set[str]) -> None:
    """Raise ArgumentError if tensors were added to the layer, or removed from it."""
    other = sorted(own ^ tensors.keys())
    if other:
        what = "is not one of them" if other[0] in tensors else "is missing"
        raise ArgumentError(
            f"a layer is saved with its own weights and nothing else, but {other[0]!r} {what}: make pruned and "
            "parametrised weights plain again (torch.nn.utils.prune.remove, "
            "torch.nn.utils.parametrize.remove_parametrizations), and keep other tensors elsewhere"
        )


def _dropin(kind: Any, spec: Spec, tensors: Tensors) -> Any:
    arguments = {k: spec[k] for k in _dropin_fields(kind)}
    _check_fields(arguments, tensors)
    return _filled(kind(**arguments, device="meta"), tensors)


def _check_fields(values: Spec, tensors: Tensors) -> None:
    """Raise ModelFileError for a value that no model has; nothing is converted.

    Each layer has weights, so that their number bounds what is built before names and shapes are compared.
    """
    for name, value in values.items():
        expected, fits = FIELDS.get(name, _SIZE)
        if not fits(value):
            raise ModelFileError(f"{name} must be {expected}, got {shown(value)}")
    if values.get("num_layers", 0) > len(tensors):
        raise ModelFileError(f"num_layers is {values['num_layers']}, but the model has only {len(tensors)} tensors")


def _filled(module: nn.Module, tensors: Tensors) -> Any:
    """A module made on the meta device with the tensors put in; all of them have one floating-point type."""
    types = {t.dtype for t in tensors.values()}
    if len(types) > 1 or not all(t.is_floating_point for t in types):
        raise ModelFileError(f"the weights must have one floating-point type, got {', '.join(sorted(map(str, types)))}")
    fill(module.to(next(iter(types), None)), tensors)
    return module


def _estimator(module: str, name: str) -> Kind:
    return Kind(
        lambda: getattr(import_module(module), name),
        lambda estimator: estimator.to_spec(),
        lambda kind, spec, tensors: kind.from_spec(spec, tensors),
    )


KINDS: dict[str, Kind] = {
    "recurrent": Kind(lambda: Recurrent, _recurrent_spec, _recurrent),
    "stack": Kind(lambda: Stack, _stack_spec, _stack),
    "torch-lstm": Kind(lambda: LSTM, _dropin_spec, _dropin),
    "torch-gru": Kind(lambda: GRU, _dropin_spec, _dropin),
    "torch-rnn": Kind(lambda: RNN, _dropin_spec, _dropin),
    "forecaster": _estimator("tidegate.tasks.forecast", "Forecaster"),
    "online-learner": _estimator("tidegate.online", "OnlineLearner"),
}


def _kind_of(model: Any) -> str:
    own = getattr(type(model), "kind", None)
    if isinstance(own, str) and own in KINDS:
        return own
    for name in ("recurrent", "stack", "torch-lstm", "torch-gru", "torch-rnn"):
        if type(model) is KINDS[name].load_type():
            return name
    raise ArgumentError(
        f"{type_of(model)} cannot be saved: tidegate.save takes layers (Recurrent, Stack, LSTM, GRU, RNN) and "
        "estimators (Forecaster, OnlineLearner); keep a module of your own with its state_dict"
    )


def save(model: Any, folder: str | PathLike[str]) -> None:
    """Save a layer or estimator into a folder, its cell's equations included; an earlier model there is replaced whole.

    Raises ArgumentError for other objects, EquationError if an option of the cell is a lambda.
    """
    name = _kind_of(model)
    spec, tensors = KINDS[name].to_spec(model)
    weights = safetensors.torch.save({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()})
    write_model(Path(folder), name, version("tidegate"), spec, weights)


def load(folder: str | PathLike[str]) -> Any:
    """The layer or estimator that `save` wrote. Raises ModelFileError where the folder is not what it claims to be."""
    found = read_model(Path(folder))
    name = found.manifest["kind"]
    if name not in KINDS:
        raise ModelFileError(f"{folder} holds a model of kind {name!r}; this Tidegate reads {', '.join(KINDS)}")
    kind = KINDS[name]
    with reading(folder):
        return kind.from_spec(kind.load_type(), found.manifest["spec"], safetensors.torch.load(found.weights))


def describe(folder: str | PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without loading it: kind, version, specification, and each tensor's type and shape."""
    found = read_model(Path(folder))
    tensors = {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in found.tensors.items()}
    return {**{k: v for k, v in found.manifest.items() if k != "weights"}, "tensors": tensors}
