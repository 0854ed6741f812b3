"""Choice of the target: the widest supported instruction set of this processor, or the one in TIDEGATE_TARGET."""

import os
from functools import lru_cache

from tidegate.errors import NativeError
from tidegate.native._llvm import host_features, host_name
from tidegate.native.target import TARGETS, Target

CHOICE = "TIDEGATE_TARGET"  # environment variable that names one of the targets


def host() -> Target:
    """The widest target that this processor supports, or the one that TIDEGATE_TARGET names."""
    return _choose(os.environ.get(CHOICE, ""), host_features())


def described() -> str:
    """LLVM's name of the processor, and those of its features that targets need."""
    needed = dict.fromkeys(need for target in reversed(TARGETS.values()) for need in target.needs)
    return " ".join([host_name(), *(need for need in needed if need in host_features())])


@lru_cache(maxsize=8)
def _choose(wanted: str, features: frozenset[str]) -> Target:
    here = {name: target for name, target in TARGETS.items() if not target.missing(features)}
    if not here:
        widths = "; ".join(f"{name} lacks {', '.join(t.missing(features))}" for name, t in TARGETS.items())
        raise NativeError(
            f"Native kernels need a processor with {' or '.join(TARGETS)}, and this one supports neither: {widths}. "
            "Layers use the reference path."
        )
    if not wanted:
        return next(iter(here.values()))
    if wanted not in TARGETS:
        raise NativeError(f"{CHOICE} must be {' or '.join(here)} on this machine, got {wanted!r}.")
    if wanted not in here:
        lacking = ", ".join(TARGETS[wanted].missing(features))
        raise NativeError(
            f"{CHOICE} must be {' or '.join(here)} on this machine, got {wanted!r}, which needs {lacking}."
        )
    return here[wanted]
