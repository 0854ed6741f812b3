"""Layers: any cell over time, stacked, in one or both directions, with lengths and resets; drop-ins for torch's
modules."""

from tidegate.nn import init
from tidegate.nn.clip import clip_norm_, clip_value_
from tidegate.nn.layer import Recurrent
from tidegate.nn.stack import Stack
from tidegate.nn.stack_stepper import StackStepper
from tidegate.nn.state import State
from tidegate.nn.stepper import Stepper
from tidegate.nn.torch_modules.modules import GRU, LSTM, RNN, swap, unswap
from tidegate.nn.trace import Trace

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Recurrent",
    "Stack",
    "StackStepper",
    "State",
    "Stepper",
    "Trace",
    "clip_norm_",
    "clip_value_",
    "init",
    "swap",
    "unswap",
]
