"""What layers answer to torch.jit, which cannot convert them."""

from typing import Any, NoReturn

from torch import nn

from tidegate.runtime.support import refuse_conversion


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
