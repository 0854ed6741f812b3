"""The cases, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.busy import beside_busy_processes
from benchmarks.checkpoints import few_states
from benchmarks.contests import Setting, of_torch, over_batches, over_hidden_sizes, own_cells
from benchmarks.gradients import forward_in_time
from benchmarks.ourselves import for_each_flop, growing, with_lengths
from benchmarks.rows import Row
from benchmarks.start import first_calls
from benchmarks.steps import one_step, overhead


@dataclass(frozen=True)
class Case:
    """What is measured: a sentence for the page, the peers that take part unless others are asked for, and the rows.

    `twice` cases are measured once more with glibc's malloc told to keep memory.
    """

    about: str
    measure: Callable[[str, Setting], Iterator[Row]]
    peers: tuple[str, ...] = ()
    twice: bool = False


_MODULES = "forward pass and training step (forward, backward, gradients of inputs, states and weights)"
_OWN = ("eager", "compile", "torchrecurrent")

CASES: Mapping[str, Case] = {
    "lstm": Case(f"`tidegate.LSTM`, {_MODULES}.", of_torch, ("torch", "onnxruntime"), twice=True),
    "gru": Case(f"`tidegate.GRU`, {_MODULES}.", of_torch, ("torch", "onnxruntime"), twice=True),
    "rnn": Case(f"`tidegate.RNN`, {_MODULES}.", of_torch, ("torch", "onnxruntime"), twice=True),
    "cells": Case("Cells that torch does not have, in `tidegate.Recurrent`.", own_cells, _OWN),
    "flops": Case(
        "Gated cells compared with our own LSTM, whose time is scaled to the same number of operations.", for_each_flop
    ),
    "hidden": Case("The LSTM at growing hidden sizes.", over_hidden_sizes, ("torch", "eager")),
    "batch": Case("The LSTM at growing batches.", over_batches, ("torch", "eager")),
    "lengths": Case(
        "An LSTM whose rows end at half of T on average, compared with the same rows padded.", with_lengths
    ),
    "growth": Case("An LSTM over long sequences, compared with 1,000 steps scaled to the same length.", growing),
    "checkpoint": Case(
        "Training over 1,000 steps with 50 stored states, compared with storing all activations.", few_states
    ),
    "step": Case("One step at a time: `stepper` and `layer.step`.", one_step, ("onnxruntime", "torch")),
    "overhead": Case("A network with next to nothing to compute: what remains is the cost of the call.", overhead),
    "busy": Case("The LSTM next to 0, 1, 2 and 4 busy processes.", beside_busy_processes, ("torch",)),
    "online-gradients": Case(
        "Gradients carried forward in time: calls of `gradient` compared with the layer's forward pass, RTRL compared "
        "with libraries that differentiate a plain step, and `online`, one step with its gradient. Operations are "
        "those of the rule's recursion; the limit is that of products, or of reading and writing the influence at each "
        "step.",
        forward_in_time,
        ("torch.func", "jax", "braintrace"),
    ),
    "compile": Case("The first training step of a cell, in a new process.", first_calls),
}
