"""Cells written from their papers in plain torch, one step each, to hold the language and the products against.

`ORACLES[name](weights, inputs, states, **options)` gives `(output, new states)`; all tensors are `[batch, size]` and
the weights carry the names that the equation language gives them. Nothing here knows of the language.
"""

from .blocks import lstm_blocks_1997, lstm_blocks_2000
from .clocks import clockwork, gru_d, lstm_phased
from .common import Oracle, affine, logistic, unroll
from .deep import gated_feedback, recurrent_highway
from .dynamical import antisymmetric, fast_grnn, lem, scrn
from .lstm import (
    lstm,
    lstm_1997,
    lstm_coupled,
    lstm_full_gate_recurrence,
    lstm_layer_norm,
    lstm_peephole,
    lstm_projection,
)
from .memory import elstm, lru, qrnn, slstm, slstm_unstabilised
from .simple import augru, elman, elman_relu, gru, gru_reset_after

_ALL: tuple[Oracle, ...] = (
    elman, elman_relu, gru, gru_reset_after, augru,
    lstm_1997, lstm, lstm_peephole, lstm_coupled, lstm_projection, lstm_layer_norm, lstm_full_gate_recurrence,
    lstm_blocks_1997, lstm_blocks_2000,
    slstm, lru, qrnn, elstm,
    lstm_phased, gru_d, clockwork,
    antisymmetric, fast_grnn, scrn, lem,
    recurrent_highway, gated_feedback,
)  # fmt: skip

ORACLES: dict[str, Oracle] = {oracle.__name__: oracle for oracle in _ALL}

__all__ = ["ORACLES", "Oracle", "affine", "logistic", "slstm_unstabilised", "unroll"]
