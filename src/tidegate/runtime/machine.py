"""What native kernels find on this machine, for the command line; torch is not imported here."""

from tidegate.native.cpu import described, host
from tidegate.native.run import cache
from tidegate.native.run.explain import explain
from tidegate.native.run.self_test import trial
from tidegate.native.run.threads import library

__all__ = ["cache", "described", "explain", "host", "library", "trial"]
