"""What layers answer to torch.jit and torch.onnx, which cannot convert them."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn

from tidegate.errors import ArgumentError


def refuse_conversion() -> NoReturn:
    """Raise ArgumentError with what to do instead."""
    raise ArgumentError(
        "torch.jit and torch.onnx cannot convert tidegate layers, since they do not see native kernels: "
        "tg.unswap(model) turns each tg.LSTM, tg.GRU and tg.RNN into torch's own module, which they convert; for other "
        "layers use torch.export.export(model, args)"
    )


def refuse_onnx() -> None:
    """Raise ArgumentError while torch.onnx exports a program."""
    if torch.onnx.is_in_onnx_export():
        refuse_conversion()


class NoTorchScript(nn.Module):
    """A layer that refuses to be traced on the CPU, or scripted."""

    def _slow_forward(self, *inputs: Any, **options: Any) -> Any:
        """What torch calls instead of `forward` while it traces."""
        if all(p.is_cpu for p in self.parameters()):
            refuse_conversion()
        return super()._slow_forward(*inputs, **options)  # type: ignore[no-untyped-call]

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch calls before it scripts a module."""
        refuse_conversion()
