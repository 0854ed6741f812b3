"""Recurrent neural networks from their equations.

Every name below is imported from its home when it is first used, so that `import tidegate` itself costs next to
nothing and brings in neither torch nor numpy nor llvmlite. Rooms such as `tidegate.nn` come the same way.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate import calculus, cells, conformance, data, equations, errors, gradients, metrics, nn
    from tidegate.equations import Cell, cell
    from tidegate.errors import (
        ArgumentError,
        ConformanceError,
        DataError,
        EquationError,
        MissingExtraError,
        ModelFileError,
        NativeError,
        TidegateError,
        TidegateNotice,
        TrainingError,
    )
    from tidegate.gradients import BPTT, TruncatedBPTT, diagnose
    from tidegate.models import describe, load, save
    from tidegate.nn import GRU, LSTM, RNN, Recurrent, Stack, State, Stepper, init, swap, unswap
    from tidegate.online import OnlineLearner
    from tidegate.tasks.forecast import Forecaster

    __version__: str

__all__ = [
    "BPTT",
    "GRU",
    "LSTM",
    "RNN",
    "ArgumentError",
    "Cell",
    "ConformanceError",
    "DataError",
    "EquationError",
    "Forecaster",
    "MissingExtraError",
    "ModelFileError",
    "NativeError",
    "OnlineLearner",
    "Recurrent",
    "Stack",
    "State",
    "Stepper",
    "TidegateError",
    "TidegateNotice",
    "TrainingError",
    "TruncatedBPTT",
    "__version__",
    "calculus",
    "cell",
    "cells",
    "conformance",
    "data",
    "describe",
    "diagnose",
    "equations",
    "errors",
    "gradients",
    "init",
    "load",
    "metrics",
    "nn",
    "save",
    "swap",
    "unswap",
]

_NAMES_BY_HOME = {
    "tidegate.equations": "Cell cell",
    "tidegate.errors": "ArgumentError ConformanceError DataError EquationError MissingExtraError ModelFileError "
    "NativeError TidegateError TidegateNotice TrainingError",
    "tidegate.gradients": "BPTT TruncatedBPTT diagnose",
    "tidegate.models": "describe load save",
    "tidegate.nn": "GRU LSTM RNN Recurrent Stack State Stepper init swap unswap",
    "tidegate.online": "OnlineLearner",
    "tidegate.tasks.forecast": "Forecaster",
}
_HOMES = {name: home for home, names in _NAMES_BY_HOME.items() for name in names.split()}
_PACKAGES = ("calculus", "cells", "conformance", "data", "equations", "errors", "gradients", "metrics", "nn")

if not TYPE_CHECKING:  # a type checker that saw this would take every misspelt name for a lazy one

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return import_module(f"tidegate.{name}")
        if name == "__version__":
            value = import_module("importlib.metadata").version("tidegate")
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'tidegate' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
