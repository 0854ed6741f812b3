"""The only way from torch's tensors to native kernels: what can run, bound calls and their cache."""

from tidegate.native.run.row_order import BLOCK_STEPS

__all__ = ["BLOCK_STEPS"]
