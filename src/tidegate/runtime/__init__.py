"""The only way from torch's tensors to native kernels: what can run, bound calls and their cache.

What is imported here is for other packages that ask about kernels without torch's tensors: the command line, and
checkpointing, which cuts sequences where sums of gradients are cut.
"""

from tidegate.native.cpu import described, host
from tidegate.native.run import cache
from tidegate.native.run.explain import explain
from tidegate.native.run.row_order import BLOCK_STEPS
from tidegate.native.run.self_test import trial
from tidegate.native.run.threads import library

__all__ = ["BLOCK_STEPS", "cache", "described", "explain", "host", "library", "trial"]
