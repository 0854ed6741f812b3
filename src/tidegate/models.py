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
from tidegate.errors import ArgumentError, EquationError, ModelFileError
from tidegate.files import read_model, write_model
from tidegate.files.model_folder import ModelFolder
from tidegate.nn import GRU, LSTM, RNN, Recurrent, Stack

Spec = dict[str, Any]
Tensors = dict[str, Tensor]
RECURRENT = ("num_layers", "bidirectional", "merge", "dropout", "batch_first", "learn_initial_state")
STACK = ("residual", "highway", "dropout")
DROPIN = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
MAX_SIZE = 1 << 20


@dataclass(frozen=True)
class Kind:
    """How one kind of model becomes a spec with tensors, and is made from them again."""

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
    """A layer on the meta device, not larger than its tensors."""
    cell = Cell.from_json(spec["cell"])
    _check_sizes({"input_size": spec["input_size"], "hidden_size": spec["hidden_size"], **spec["sizes"]})
    options = {k: spec["options"][k] for k in RECURRENT}
    _check_layers(options["num_layers"], tensors)
    return Recurrent(cell, spec["input_size"], spec["hidden_size"], device="meta", **options, **spec["sizes"])


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
            raise ModelFileError(f"the model has layers[{k}], and there is no tensor whose name begins with {own!r}")
        layers.append(EMPTY[part["kind"]](part["spec"], inside))
    return Stack(*layers, **{k: spec["options"][k] for k in STACK})


EMPTY: dict[str, Callable[[Spec, Tensors], Recurrent | Stack]] = {"recurrent": _empty_recurrent, "stack": _empty_stack}


def _dropin_spec(module: nn.RNNBase) -> tuple[Spec, Tensors]:
    spec = {k: getattr(module, k) for k in DROPIN}
    spec |= {"proj_size": module.proj_size} if isinstance(module, LSTM) else {}
    spec |= {"nonlinearity": module.nonlinearity} if isinstance(module, RNN) else {}
    tensors = dict(module.state_dict())
    _check_own(tensors, {name for names in module._all_weights for name in names})
    return spec, tensors


def _check_own(tensors: Tensors, own: set[str]) -> None:
    """Raise ArgumentError where the state_dict is not that of a layer as it was made."""
    other = sorted(own ^ tensors.keys())
    if other:
        what = "came beside" if other[0] in tensors else "is missing from"
        raise ArgumentError(
            f"a layer is saved with its own weights and nothing else, and {other[0]!r} {what} them: make pruned and "
            "parametrised weights plain again (torch.nn.utils.prune.remove, "
            "torch.nn.utils.parametrize.remove_parametrizations), and keep other tensors elsewhere"
        )


def _dropin(kind: Any, spec: Spec, tensors: Tensors) -> Any:
    _check_sizes({k: spec[k] for k in ("input_size", "hidden_size")})
    _check_layers(spec["num_layers"], tensors)
    arguments = {k: v for k, v in spec.items() if k in (*DROPIN, "proj_size", "nonlinearity")}
    return _filled(kind(**arguments, device="meta"), tensors)


def _check_sizes(sizes: dict[str, Any]) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_SIZE:
            raise ModelFileError(
                f"the model's {name} is {size!r}, and a whole number from 1 to {MAX_SIZE} was expected"
            )


def _check_layers(layers: Any, tensors: Tensors) -> None:
    """Each layer has weights, so that their number bounds what is built before names and shapes are compared."""
    if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= len(tensors):
        raise ModelFileError(
            f"the model's num_layers is {layers!r}, and a whole number from 1 to {len(tensors)}, the number of its "
            "tensors, was expected"
        )


def _filled(module: nn.Module, tensors: Tensors) -> Any:
    """A module made on the meta device, which allocates nothing, with the tensors put in once they are seen to fit."""
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if wanted != found:
        wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))[0]
        raise ModelFileError(
            f"the weights do not fit the model: {wrong!r} is {found.get(wrong, 'missing')}, and "
            f"{wanted.get(wrong, 'nothing')} was expected"
        )
    types = {t.dtype for t in tensors.values()}
    if len(types) > 1 or not all(t.is_floating_point for t in types):
        raise ModelFileError(
            f"the weights are of {', '.join(sorted(map(str, types)))}, and one floating-point type was expected"
        )
    module.load_state_dict(tensors, assign=True)
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
        f"a {type(model).__name__} cannot be saved: tidegate.save takes layers (Recurrent, Stack, LSTM, GRU, RNN) and "
        "estimators (Forecaster, OnlineLearner); keep a module of your own with its state_dict"
    )


def save(model: Any, folder: str | PathLike[str]) -> None:
    """Save a layer or estimator into a folder, its cell's equations included; an earlier model there is replaced whole.

    Raises ArgumentError for what is none of these, EquationError where an option of the cell is a nameless function.
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
        raise ModelFileError(f"{folder} holds a model of kind {name!r}, and this Tidegate knows {', '.join(KINDS)}")
    kind = KINDS[name]
    try:
        return kind.from_spec(kind.load_type(), found.manifest["spec"], _tensors(Path(folder), found))
    except EquationError as error:
        raise ModelFileError(f"{folder} holds equations that are not sound: {error}") from error
    except ModelFileError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{folder} is damaged: its specification is incomplete or at odds: {error}") from error


def _tensors(folder: Path, found: ModelFolder) -> Tensors:
    try:
        return safetensors.torch.load(found.weights)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelFileError(f"{folder} is damaged: its weights cannot be read: {error}") from error


def describe(folder: str | PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without loading it: kind, version, specification, and each tensor's type and shape."""
    found = read_model(Path(folder))
    tensors = {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in found.tensors.items()}
    return {**{k: v for k, v in found.manifest.items() if k != "weights"}, "tensors": tensors}
