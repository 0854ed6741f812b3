"""Layers: any cell over time, stacked, in both directions, with lengths and resets; and torch's own as drop-ins."""

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
