"""What callers give, checked once and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tidegate.equations.graph import Graph, Rate, walk
from tidegate.errors import ArgumentError
from tidegate.reference import bound


def bind_sizes(graph: Graph, input_size: int, hidden_size: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Every size letter of the cell in numbers. Raises ArgumentError for letters missing, unknown or at odds."""
    for letter, number in {"input_size": input_size, "hidden_size": hidden_size, **sizes}.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ArgumentError(f"{letter} is a whole number of 1 or more, and {number!r} came")
    letters = graph.letters
    unknown = [k for k in sizes if k not in letters or k in "IH"]
    if unknown:
        raise ArgumentError(
            f"cell {graph.name!r} has no size {unknown[0]!r} to bind; besides I and H it has "
            f"{', '.join(x for x in letters if x not in 'IH') or 'none'}"
        )
    first = graph.inputs[0].size[0]
    bound_sizes = {"I": input_size, "H": hidden_size, **sizes}
    missing = [x for x in letters if x not in bound_sizes]
    if missing:
        raise ArgumentError(f"cell {graph.name!r} needs the size {missing[0]}: give it, as in {missing[0]}=8")
    wanted = bound((first,), bound_sizes)[0]
    if wanted != input_size:
        raise ArgumentError(
            f"cell {graph.name!r} reads its input unit by unit ({graph.inputs[0].name}:{first}), so input_size must be "
            f"{wanted}, and {input_size} came: put a linear layer before it"
        )
    _check_groups(graph, bound_sizes)
    return {letter: bound_sizes[letter] for letter in dict.fromkeys((*letters, "H"))}


def _check_groups(graph: Graph, sizes: Mapping[str, int]) -> None:
    for value in walk(graph.roots):
        if value.op in ("spread", "total"):
            many, few = sorted((bound(value.size, sizes)[0], bound(value.args[0].size, sizes)[0]), reverse=True)
            if many % few:
                raise ArgumentError(
                    f"cell {graph.name!r} shares {few} values among {many} units, and {few} does not divide {many}: "
                    "choose sizes that do"
                )


class Batch:
    """A call's inputs in time-major form, with what is needed to give the output back as the input came."""

    def __init__(self, graph: Graph, x: Any, lengths: Any, reset: Any, batch_first: bool, sizes: Mapping[str, int]):
        self.packed: PackedSequence | None = None
        self.batch_first = batch_first
        named = dict(x) if isinstance(x, Mapping) else {graph.inputs[0].name: x}
        first = graph.inputs[0].name
        if isinstance(named.get(first), PackedSequence):
            self.packed = named[first]
            named[first], lengths = _unpacked(self.packed, lengths)
            self.batch_first = False
        _check_names(graph, named)
        main = named[first]
        self.one_hot = isinstance(main, Tensor) and not main.is_floating_point() and not main.is_complex()
        if self.one_hot:
            _check_indices(graph, main, sizes)
        self.unbatched = isinstance(main, Tensor) and main.dim() == (1 if self.one_hot else 2)
        self.inputs = {i.name: self._input(i.name, i.rate, named[i.name]) for i in graph.inputs}
        self.steps, self.rows = self.inputs[first].shape[:2]
        self._check_shapes(graph, sizes)
        self.lengths = self._lengths(lengths)
        self.reset = self._reset(reset)

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        return next(iter(self.inputs.values())).device

    def _input(self, name: str, rate: Rate, x: Any) -> Tensor:
        if not isinstance(x, Tensor):
            raise ArgumentError(f"input {name!r} is a tensor, and a {type(x).__name__} came: use torch.as_tensor(...)")
        time = 0 if rate == Rate.SEQUENCE else 1
        if self.unbatched:
            return x.unsqueeze(time)
        if self.batch_first and time and x.dim() > 1:
            return x.transpose(0, 1)
        return x

    def _check_shapes(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        for i in graph.inputs:
            x, size = self.inputs[i.name], bound(i.size, sizes)
            lead: tuple[int, ...] = (self.rows,) if i.rate == Rate.SEQUENCE else (self.steps, self.rows)
            if self.one_hot and i is graph.inputs[0]:
                size = ()
            if tuple(x.shape) != (*lead, *size):
                raise ArgumentError(
                    f"input {i.name!r} must be {_form(i.rate, self.batch_first)} = {self._shown((*lead, *size))}, "
                    f"and {self._shown(tuple(x.shape))} came"
                )

    def _shown(self, shape: tuple[int, ...]) -> list[int]:
        if self.batch_first and not self.unbatched and len(shape) > 2:
            return [shape[1], shape[0], *shape[2:]]
        return list(shape)

    def _lengths(self, lengths: Any) -> Tensor | None:
        if lengths is None:
            return None
        found = torch.as_tensor(lengths, device=self.device)
        found = found.reshape(1) if self.unbatched and found.dim() == 0 else found
        if found.shape != (self.rows,) or found.is_floating_point() or found.dtype == torch.bool:
            raise ArgumentError(
                f"lengths are {self.rows} whole numbers, one a row, and {list(found.shape)} of {found.dtype} came"
            )
        if self.rows and (int(found.min()) < 0 or int(found.max()) > self.steps):
            raise ArgumentError(
                f"lengths lie between 0 and the {self.steps} steps of the input, and "
                f"{int(found.min())} to {int(found.max())} came"
            )
        return found.long()

    def _reset(self, reset: Any) -> Tensor | None:
        if reset is None:
            return None
        found = torch.as_tensor(reset, device=self.device)
        if self.unbatched and found.dim() == 1:
            found = found.unsqueeze(1)
        elif self.batch_first and found.dim() == 2:
            found = found.t()
        if tuple(found.shape) != (self.steps, self.rows):
            wanted = [self.rows, self.steps] if self.batch_first else [self.steps, self.rows]
            raise ArgumentError(
                f"reset must be {'[B, T]' if self.batch_first else '[T, B]'} = {wanted}, one flag a step and row, "
                f"and {list(torch.as_tensor(reset).shape)} came"
            )
        return found.bool()

    def restore(self, y: Tensor) -> Any:
        """The output `[T, B, size]` in the form in which the input came."""
        if self.packed is not None:
            return _packed_like(self.packed, y)
        if self.unbatched:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.batch_first else y


def _form(rate: Rate, batch_first: bool) -> str:
    if rate == Rate.SEQUENCE:
        return "[B, size]"
    return "[B, T, size]" if batch_first else "[T, B, size]"


def _check_names(graph: Graph, named: Mapping[str, Any]) -> None:
    wanted = [i.name for i in graph.inputs]
    if sorted(named) != sorted(wanted):
        raise ArgumentError(
            f"cell {graph.name!r} takes the inputs {', '.join(wanted)}, and {', '.join(map(str, named)) or 'none'} came: "
            f"give them as {{{', '.join(f'{n!r}: tensor' for n in wanted)}}}"
        )


def _check_indices(graph: Graph, x: Tensor, sizes: Mapping[str, int]) -> None:
    first = graph.inputs[0]
    size = bound(first.size, sizes)[0]
    value = graph.input_values[first.name]
    users = [v for v in graph.values if any(a is value for a in v.args)]
    if any(v.op not in ("linear", "product") for v in users):
        raise ArgumentError(
            f"cell {graph.name!r} does more with {first.name!r} than multiply it, so it cannot be an index of a one-hot: "
            "give it as numbers, as in torch.nn.functional.one_hot(x, size).float()"
        )
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= size):
        raise ArgumentError(
            f"an index of a one-hot of size {size} lies between 0 and {size - 1}, and {int(x.min())} to {int(x.max())} came"
        )


def _unpacked(packed: PackedSequence, lengths: Any) -> tuple[Tensor, Tensor]:
    if lengths is not None:
        raise ArgumentError("a PackedSequence has its own lengths: leave lengths= away")
    return pad_packed_sequence(packed)


def _packed_like(packed: PackedSequence, y: Tensor) -> PackedSequence:
    """The valid steps of `y` in the order of another packed sequence."""
    ordered = y if packed.sorted_indices is None else y.index_select(1, packed.sorted_indices)
    rows = [ordered[t, :n] for t, n in enumerate(packed.batch_sizes.tolist())]
    return PackedSequence(torch.cat(rows), packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
