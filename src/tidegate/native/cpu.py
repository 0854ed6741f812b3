"""Which target this machine gets: the widest instruction set that kernels are written for and that it has."""

import os
from functools import lru_cache

from tidegate.errors import NativeError
from tidegate.native._llvm import host_features, host_name
from tidegate.native.target import TARGETS, Target

CHOICE = "TIDEGATE_TARGET"  # the environment's word for one of the targets


def host() -> Target:
    """The widest target that this machine has, or the one that TIDEGATE_TARGET names."""
    return _choose(os.environ.get(CHOICE, ""), host_features())


def described() -> str:
    """The processor's name and those of its features that targets need, in LLVM's words."""
    needed = dict.fromkeys(need for target in reversed(TARGETS.values()) for need in target.needs)
    return " ".join([host_name(), *(need for need in needed if need in host_features())])


@lru_cache(maxsize=8)
def _choose(wanted: str, features: frozenset[str]) -> Target:
    here = {name: target for name, target in TARGETS.items() if not target.missing(features)}
    if not here:
        widths = "; ".join(f"{name} lacks {', '.join(t.missing(features))}" for name, t in TARGETS.items())
        raise NativeError(
            f"Native kernels need a processor with {' or '.join(TARGETS)}, and this one has neither: {widths}. "
            "Layers compute by the reference path."
        )
    if not wanted:
        return next(iter(here.values()))
    if wanted not in TARGETS:
        raise NativeError(f"{CHOICE}={wanted!r} is no target: this machine has {' and '.join(here)}.")
    if wanted not in here:
        lacking = ", ".join(TARGETS[wanted].missing(features))
        raise NativeError(
            f"{CHOICE}={wanted!r} asks for what this machine lacks ({lacking}): it has {' and '.join(here)}."
        )
    return here[wanted]
