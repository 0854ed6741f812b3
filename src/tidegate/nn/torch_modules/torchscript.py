"""Errors for torch.jit, which cannot convert layers."""

from typing import Any, NoReturn

from torch import nn

from tidegate.runtime.support import refuse_conversion


class NoTorchScript(nn.Module):
    """A layer that raises if torch.jit traces it on the CPU, or scripts it."""

    def _slow_forward(self, *inputs: Any, **options: Any) -> Any:
        """Called by torch instead of `forward` while it traces."""
        if all(p.is_cpu for p in self.parameters()):
            refuse_conversion()
        return super()._slow_forward(*inputs, **options)  # type: ignore[no-untyped-call]

    def __prepare_scriptable__(self) -> NoReturn:
        """Called by torch before it scripts a module."""
        refuse_conversion()
