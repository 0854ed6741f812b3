"""The weights of torch's recurrent modules, read by cached calls in torch's own layout."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.nn.torch_modules.layouts import TENSORS, Terms, TorchLayout, cell_weights
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.support import readable


class TorchWeights:
    """The weights of one layer of a torch module: row blocks of a few tensors, and sums of two biases."""

    def __init__(
        self,
        owner: nn.Module,
        suffix: str,
        layout: TorchLayout,
        names: Sequence[str],
        dtype: torch.dtype,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._parameters, self._layout, self._names, self._dtype = owner._parameters, layout, names, dtype
        self._shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        self.keys = {n: n + suffix for n in TENSORS if n + suffix in owner._parameters or hasattr(owner, n + suffix)}
        self._terms = [tuple(t for t in layout.rows[n] if t[0] in self.keys) for n in names]
        self._blocks = {key: _in_order(self._terms, key) for key in self.keys}
        self._zeros = torch.zeros(max(p.shape[0] for p in owner.parameters()), dtype=dtype)
        self._biases = "bias_ih" in self.keys

    def unchanged(self) -> bool:
        """Always true: they are read by name at each call."""
        return True

    def tensors(self) -> list[Tensor] | None:
        """Torch's own tensors."""
        found: list[Tensor] = []
        dtype, parameters = self._dtype, self._parameters
        for name, key in self.keys.items():
            tensor = parameters.get(key)
            if tensor is None or not readable(tensor, self._shapes[name], dtype):
                return None
            found.append(tensor)
        return found

    def call(self, call: KernelCall) -> KernelCall:
        """A call that takes these tensors and returns their gradients."""
        return _TorchCall(call, self)

    def of_cell(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The cell's weights computed from torch's tensors."""
        found = cell_weights(self._layout, dict(zip(self.keys, tensors, strict=True)))
        return [found[name] for name in self._names]

    def gradients(self, needs: Sequence[bool], of_weight: Callable[[int], Tensor]) -> list[Tensor | None]:
        """The gradients of torch's tensors, assembled from those of the cell's weights."""
        found: list[Tensor | None] = []
        for name, need in zip(self.keys, needs, strict=True):
            found.append(_stacked_rows([of_weight(k) for k in self._blocks[name]], name) if need else None)
        return found

    def addresses(self, named: Mapping[str, Tensor]) -> tuple[list[int], Any]:
        """The weights' addresses, and the tensors that must stay alive while these are used."""
        begins: dict[tuple[str, ...], tuple[int, int]] = {
            (name,): _begin_and_block(t, self._layout, name) for name, t in named.items()
        }
        sums = None
        if self._biases:
            sums = named["bias_ih"] + named["bias_hh"]
            begins["bias_ih", "bias_hh"] = _begin_and_block(sums, self._layout, "bias_ih")
        found = []
        for terms in self._terms:
            if terms:
                begin, block = begins[tuple(name for name, _ in terms)]
                found.append(begin + block * terms[0][1])
            else:
                found.append(self._zeros.data_ptr())
        return found, sums


def _in_order(terms: Sequence[Terms], name: str) -> list[int]:
    """The indices of the cell's weights that are a tensor's row blocks, in order."""
    placed = [(dict(some)[name], k) for k, some in enumerate(terms) if name in dict(some)]
    return [k for _, k in sorted(placed)]


class _TorchCall(KernelCall):
    """A call whose weights are torch's tensors, passed to the kernel without autograd operations between."""

    def __init__(self, call: KernelCall, source: TorchWeights) -> None:
        super().__init__(call.cell, call.shape, call.order, call.fresh, call.backwards, call.lengths, call.reset)
        self._source = source

    @property
    def count(self) -> int:
        return len(self._source.keys)

    def needs_grad(self, needs: Sequence[bool]) -> list[bool]:
        weights = self.cell.inputs.parts[0]
        inner = self.cell.inputs.needs_grad([True] * weights + list(needs[self.count :]), False)
        return [*needs[: self.count], *inner[weights:]]

    def reference(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return super().reference(*self._source.of_cell(tensors[: self.count]), *tensors[self.count :])

    def weights(self, tensors: Sequence[Tensor]) -> tuple[list[int], Any]:
        return self._source.addresses(dict(zip(self._source.keys, tensors, strict=False)))

    def weight_gradients(self, needs: Sequence[bool], of_value: Callable[[int], Tensor]) -> list[Tensor | None]:
        return self._source.gradients(needs, of_value)


def _stacked_rows(parts: list[Tensor], name: str) -> Tensor:
    """Row blocks as one tensor, without a copy if they are adjacent; two biases must not share memory."""
    first, size = parts[0], parts[0].numel()
    if len(parts) == 1:
        return first.clone() if name == "bias_hh" else first
    begins = [p.storage_offset() - k * size for k, p in enumerate(parts)]
    adjacent = all(b == begins[0] for b in begins) and first.is_contiguous() and not name.startswith("bias")
    return (
        first.as_strided((len(parts) * first.shape[0], *first.shape[1:]), first.stride())
        if adjacent
        else torch.cat(parts)
    )


def _begin_and_block(tensor: Tensor, layout: TorchLayout, name: str) -> tuple[int, int]:
    """An address, and the bytes of a row block."""
    return tensor.data_ptr(), tensor.nbytes // (1 if name == "weight_hr" else layout.blocks)
