"""Validation of arguments: each is checked once and converted to one form."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, walk, whole
from tidegate.errors import ArgumentError
from tidegate.reference import bound
from tidegate.reference.unroll import valid_steps
from tidegate.runtime.kernel_inputs import check_indices, check_multiplied_only, has_values


def check_count(name: str, number: Any, least: int = 1) -> int:
    """Convert a Python or numpy integer to int. Raises ArgumentError for anything else."""
    found = whole(number)
    if found is None or found < least:
        raise ArgumentError(f"{name} must be a whole number of {least} or more, got {number!r}")
    return found


def check_flag(name: str, flag: Any) -> bool:
    """Convert a Python or numpy boolean, or 0 or 1, to bool. Raises ArgumentError for anything else."""
    if not isinstance(flag, bool | np.bool_) and whole(flag) not in (0, 1):
        raise ArgumentError(f"{name} must be True or False, got {flag!r}")
    return bool(flag)


def check_flags(name: str, flags: Any) -> None:
    """Raise ArgumentError unless a tensor or array holds booleans, or 0 and 1."""
    if str(flags.dtype) not in ("bool", "torch.bool"):
        others = flags[(flags != 0) & (flags != 1)]
        if len(others):
            raise ArgumentError(f"{name} must hold booleans, or 0 and 1, got {others[0].item()!r}")


def check_options(known: Iterable[str], given: Iterable[str]) -> None:
    """Raise ArgumentError for an option of `Recurrent` that is unknown and no size letter."""
    options = list(known)
    for name in given:
        if len(name) > 1 or not name.isupper():
            near = get_close_matches(name, options, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(options)}; torch's are those of tg.LSTM"
            raise ArgumentError(f"Recurrent has no option {name!r}: {hint}")


def bind_sizes(graph: Graph, input_size: int, hidden_size: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bind every size letter of the cell. Raises ArgumentError for missing, unknown or inconsistent sizes."""
    letters = graph.letters
    unknown = [k for k in sizes if k not in letters or k in "IH"]
    if unknown:
        raise ArgumentError(
            f"cell {graph.name!r} has no size {unknown[0]!r}; besides I and H it has "
            f"{', '.join(x for x in letters if x not in 'IH') or 'none'}"
        )
    first = graph.inputs[0].size[0]
    bound_sizes = {"I": input_size, "H": hidden_size, **{k: check_count(k, n) for k, n in sizes.items()}}
    missing = [x for x in letters if x not in bound_sizes]
    if missing:
        raise ArgumentError(f"cell {graph.name!r} needs the size {missing[0]}: pass it as in {missing[0]}=8")
    wanted = bound((first,), bound_sizes)[0]
    if wanted != input_size:
        raise ArgumentError(
            f"cell {graph.name!r} reads its input unit by unit ({graph.inputs[0].name}:{first}), so input_size must be "
            f"{wanted}, got {input_size}: put a linear layer before it"
        )
    _check_groups(graph, bound_sizes)
    return {letter: bound_sizes[letter] for letter in dict.fromkeys((*letters, "H"))}


def _check_groups(graph: Graph, sizes: Mapping[str, int]) -> None:
    for value in walk(graph.roots):
        if value.op in ("spread", "total"):
            many, few = sorted((bound(value.size, sizes)[0], bound(value.args[0].size, sizes)[0]), reverse=True)
            if many % few:
                raise ArgumentError(
                    f"cell {graph.name!r} shares {few} values among {many} units, but {many} is not a multiple of "
                    f"{few}: choose other sizes"
                )


def check_dropout(dropout: Any, layers: int) -> float:
    """Check the dropout between layers. Raises ArgumentError unless it is a probability and has an effect."""
    if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0.0 <= float(dropout) < 1.0:
        raise ArgumentError(f"dropout must be a probability in [0, 1), got {dropout!r}")
    if dropout and layers == 1:
        raise ArgumentError(f"dropout={dropout} acts between layers, but num_layers=1: omit it or add layers")
    return float(dropout)


class Batch:
    """A call's inputs in time-major form, and how to return the output in the form of the input."""

    def __init__(self, graph: Graph, x: Any, lengths: Any, reset: Any, batch_first: bool, sizes: Mapping[str, int]):
        self.packed: PackedSequence | None = None
        self.batch_first = batch_first
        named = dict(x) if isinstance(x, Mapping) else {graph.inputs[0].name: x}
        self._first = first = graph.inputs[0].name
        if isinstance(named.get(first), PackedSequence):
            self.packed = named[first]
            named[first], lengths = _unpacked(self.packed, lengths)
            self.batch_first = False
        _check_names(graph, named)
        main = named[first]
        self.one_hot = isinstance(main, Tensor) and not main.is_floating_point() and not main.is_complex()
        self.unbatched = isinstance(main, Tensor) and main.dim() == (1 if self.one_hot else 2)
        self._declared = [i for i in graph.inputs if i.name in named]
        self.inputs = {i.name: self._input(i.name, i.rate, named[i.name]) for i in self._declared}
        self._check_shapes(graph, sizes)
        self.lengths = self._lengths(lengths)
        self.reset = self._valid_only(self._reset(reset))
        if self.one_hot:
            self._check_indices(graph, sizes)

    @property
    def device(self) -> torch.device:
        """The device of the inputs."""
        return next(iter(self.inputs.values())).device

    def _input(self, name: str, rate: Rate, x: Any) -> Tensor:
        if not isinstance(x, Tensor):
            several = isinstance(x, list | tuple) and len(x) > 0 and all(isinstance(t, Tensor) for t in x)
            way = "torch.nn.utils.rnn.pad_sequence(x) with lengths=[...]" if several else "torch.as_tensor(x)"
            raise ArgumentError(f"input {name!r} must be a tensor, got {type(x).__name__}: use {way}")
        found = x.long() if self.one_hot and name == self._first else x
        time = 0 if rate == Rate.SEQUENCE else 1
        if self.unbatched:
            return found.unsqueeze(time)
        return found.transpose(0, 1) if self.batch_first and time and x.dim() > 1 else found

    def _check_shapes(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        main = self.inputs[self._first]
        if main.dim() < 2:
            form = _form(Rate.INPUT, self.batch_first, self.one_hot)
            raise ArgumentError(f"input {self._first!r} must be {form}, got {list(main.squeeze(0).shape)}")
        self.steps, self.rows = main.shape[:2]
        for i in self._declared:
            x, size = self.inputs[i.name], bound(i.size, sizes)
            lead: tuple[int, ...] = (self.rows,) if i.rate == Rate.SEQUENCE else (self.steps, self.rows)
            if self.one_hot and i is graph.inputs[0]:
                size = ()
            if tuple(x.shape) != (*lead, *size):
                form = _form(i.rate, self.batch_first, whole=self.one_hot and i is graph.inputs[0])
                raise ArgumentError(
                    f"input {i.name!r} must be {form} = {self._shown((*lead, *size), i.rate)}, "
                    f"got {self._shown(tuple(x.shape), i.rate)}"
                )

    def _shown(self, shape: tuple[int, ...], rate: Rate) -> list[int]:
        if self.batch_first and not self.unbatched and rate == Rate.INPUT and len(shape) > 1:
            return [shape[1], shape[0], *shape[2:]]
        return list(shape)

    def _lengths(self, lengths: Any) -> Tensor | None:
        if lengths is None:
            return None
        try:
            found = torch.as_tensor(lengths, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"lengths must be {self.rows} whole numbers, one per row, got {lengths!r}") from error
        found = found.long() if found.numel() == 0 else found
        found = found.reshape(1) if self.unbatched and found.dim() == 0 else found
        if found.shape != (self.rows,) or found.is_floating_point() or found.dtype == torch.bool:
            raise ArgumentError(
                f"lengths must be {self.rows} whole numbers, one per row, got {list(found.shape)} of {found.dtype}"
            )
        if self.rows and has_values(found) and (int(found.min()) < 0 or int(found.max()) > self.steps):
            raise ArgumentError(
                f"lengths must be between 0 and the {self.steps} steps of the input, got "
                f"{int(found.min())} to {int(found.max())}"
            )
        return found.long().clone()  # a copy: derivatives read it after the caller may have changed it

    def _reset(self, reset: Any) -> Tensor | None:
        if reset is None:
            return None
        try:
            found = torch.as_tensor(reset, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"reset must be one flag per step and row, got {reset!r}") from error
        if self.unbatched and found.dim() == 1:
            found = found.unsqueeze(1)
        elif self.batch_first and found.dim() == 2:
            found = found.t()
        if tuple(found.shape) != (self.steps, self.rows):
            wanted = [self.rows, self.steps] if self.batch_first else [self.steps, self.rows]
            raise ArgumentError(
                f"reset must be {'[B, T]' if self.batch_first else '[T, B]'} = {wanted}, one flag per step and row, "
                f"got {list(torch.as_tensor(reset).shape)}"
            )
        if has_values(found):
            check_flags("reset", found)
        return found.bool().clone()  # a copy, as for lengths

    def hint(self, rows: int) -> str:
        """A hint on what may be wrong with an input, if the state has `rows` rows."""
        if rows != self.steps or rows == self.rows:
            return ""
        if self.unbatched:
            return "; x of two axes is one sequence [T, I]: for one step of a batch call layer.step(x, state)"
        if self.batch_first:
            return "; x is read as [B, T, I]: if it is [T, B, I], make the layer with batch_first=False"
        return "; x is read as [T, B, I]: if it is [B, T, I], make the layer with batch_first=True"

    def _valid_only(self, reset: Tensor | None) -> Tensor | None:
        """Clear resets after a row's end."""
        return reset if reset is None or self.lengths is None else reset & valid_steps(self.steps, self.lengths)

    def _check_indices(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        x = self.inputs[self._first]
        check_multiplied_only(graph)
        if has_values(x):
            check_indices(graph, x if self.lengths is None else x[valid_steps(self.steps, self.lengths)], sizes)

    def restore(self, y: Tensor) -> Any:
        """Return the output `[T, B, size]` in the form of the input."""
        if self.packed is not None:
            return _packed_like(self.packed, y)
        if self.unbatched:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.batch_first else y


def _form(rate: Rate, batch_first: bool, whole: bool) -> str:
    if whole:
        return f"{'[B, T]' if batch_first else '[T, B]'} of whole numbers (indices of one-hots; numbers need .float())"
    if rate == Rate.SEQUENCE:
        return "[B, size]"
    return "[B, T, size]" if batch_first else "[T, B, size]"


def _check_names(graph: Graph, named: Mapping[str, Any]) -> None:
    wanted = [
        i.name for i in graph.inputs if i.name not in graph.masks
    ]  # masks are optional: they are drawn if not given
    if not set(wanted) <= set(named) <= {i.name for i in graph.inputs}:
        raise ArgumentError(
            f"cell {graph.name!r} takes the inputs {', '.join(wanted)}, got "
            f"{', '.join(map(str, named)) or 'none'}: give them as {{{', '.join(f'{n!r}: tensor' for n in wanted)}}}"
        )


def check_types(batch: Batch, like: Tensor) -> None:
    """Raise ArgumentError for an input of another dtype than the weights; autocast casts all floats except float64."""
    device = like.device.type
    mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    for k, (name, x) in enumerate(batch.inputs.items()):
        cast = mixed and x.is_floating_point() and torch.float64 not in (x.dtype, like.dtype)
        if (batch.one_hot and not k) or x.dtype == like.dtype or cast:
            continue
        raise ArgumentError(
            f"input {name!r} is {x.dtype}, but the weights are {like.dtype}: pass x.to({like.dtype}), or convert "
            "the layer with .to(dtype)"
        )


def _unpacked(packed: PackedSequence, lengths: Any) -> tuple[Tensor, Tensor]:
    if lengths is not None:
        raise ArgumentError("a PackedSequence has its own lengths: omit lengths=")
    return pad_packed_sequence(packed)


def _packed_like(packed: PackedSequence, y: Tensor) -> PackedSequence:
    """The valid steps of `y` in the order of another packed sequence."""
    ordered = y if packed.sorted_indices is None else y.index_select(1, packed.sorted_indices)
    rows = [ordered[t, :n] for t, n in enumerate(packed.batch_sizes.tolist())]
    return PackedSequence(torch.cat(rows), packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
