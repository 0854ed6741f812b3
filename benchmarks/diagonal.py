"""Eligibility traces by braintrace: SnAp-1 of a tanh layer, and its D-RTRL, which is RFLO's recursion there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.problem import Problem
from benchmarks.rows import RFLO, SNAP

try:
    import brainstate
    import braintrace
    import jax
except ModuleNotFoundError:
    braintrace = None

LACKS = None if braintrace else "braintrace"


class ByBraintrace:
    """A sequence alone, all its steps in one program that was compiled before the clock starts.

    `what` says which traces. The gradients are those of a sum over outputs, of weights only and from states of zero.
    """

    def __init__(self, problem: Problem, what: str) -> None:
        self._problem = problem
        T, _, inputs = problem.x.shape
        output_gradients = problem.output_gradients["y"]
        x, s = (jax.numpy.asarray(t[:, 0].numpy()) for t in (problem.x, output_gradients))
        net = braintrace.nn.ValinaRNNCell(inputs, output_gradients.shape[2], activation="tanh")
        algorithms: Mapping[str, Any] = {SNAP: (braintrace.SnAp, {"n": 1}), RFLO: (braintrace.D_RTRL, {})}
        algorithm, options = algorithms[what]
        learner = braintrace.compile(net, algorithm, x[0], **options)
        (weights,) = net.states(brainstate.ParamState).values()
        stacked = torch.cat([problem.weights["h.x"], problem.weights["h.h"]], 1).T
        found = {"weight": stacked, "bias": problem.weights["h.bias"]}
        weights.value = {name: jax.numpy.asarray(t.detach().numpy()) for name, t in found.items()}

        def score(x: Any, dy: Any) -> Any:
            return T * jax.numpy.sum(learner(x) * dy)  # of the scores of steps the mean is taken

        def gradients(x: Any, output_gradients: Any) -> Any:
            brainstate.nn.init_all_states(net)
            return learner.etrace_grad(x, output_gradients, step_fn=score)

        run = brainstate.transform.jit(gradients)
        self._go = lambda: jax.block_until_ready(run(x, s))

    def training(self) -> Any:
        """The gradients as the library has them."""
        return self._go()

    def named(self, raw: Any) -> dict[str, Tensor]:
        """They by the names of the layer's parameters."""
        (found,) = raw.values()
        weight, bias = (torch.tensor(jax.device_get(found[name])) for name in ("weight", "bias"))
        x, h = weight.T.split([self._problem.x.shape[2], bias.shape[0]], 1)
        return {"l0.h.x": x, "l0.h.h": h, "l0.h.bias": bias}
