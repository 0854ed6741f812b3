"""Cells written from their papers in plain torch, one step each, to hold the language and the products against.

`ORACLES[name](weights, inputs, states, **options)` gives `(output, new states)`; all tensors are `[batch, size]` and
the weights carry the names that the equation language gives them. Nothing here knows of the language. Every function of
this folder that begins with the parameters `w, inputs, states` is an oracle by its name.
"""

import inspect
from types import ModuleType

from . import blocks, clocks, deep, dynamical, lstm, memory, minimal, simple, transforms
from .common import Oracle, affine, logistic, unroll
from .memory import slstm_unstabilised


def _oracles(module: ModuleType) -> dict[str, Oracle]:
    functions = inspect.getmembers(module, inspect.isfunction)
    return {name: f for name, f in functions if list(inspect.signature(f).parameters)[:3] == ["w", "inputs", "states"]}


ORACLES: dict[str, Oracle] = {}
for _family in (simple, lstm, minimal, blocks, memory, clocks, dynamical, deep, transforms):
    ORACLES |= _oracles(_family)

__all__ = ["ORACLES", "Oracle", "affine", "logistic", "slstm_unstabilised", "unroll"]
