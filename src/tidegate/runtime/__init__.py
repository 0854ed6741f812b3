"""The only path from torch's tensors to native kernels: support checks, bound calls and their cache.

The names exported here are for packages that need kernels without tensors: the command line, and checkpointing, which
cuts sequences where sums of gradients are cut.
"""

from tidegate.native.cpu import described, host
from tidegate.native.run import cache
from tidegate.native.run.explain import explain
from tidegate.native.run.row_order import BLOCK_STEPS
from tidegate.native.run.self_test import trial
from tidegate.native.run.threads import library

__all__ = ["BLOCK_STEPS", "cache", "described", "explain", "host", "library", "trial"]
