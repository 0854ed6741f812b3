"""Checkpointed BPTT: a sequence is run again in parts during the backward pass, as one autograd function."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.utils import _pytree as pytree

from tidegate.errors import ArgumentError
from tidegate.gradients.checkpoint import Move, laid_out, schedule
from tidegate.nn import State
from tidegate.runtime import BLOCK_STEPS
from tidegate.runtime.gradient_accumulator import GradientAccumulator

Run = Callable[[int, int, State | None], tuple[Tensor, State]]
Advance = Callable[[int, int, State | None], State]
Score = Callable[[Tensor, int, int], tuple[Tensor, Tensor]]
Gradients = list[Tensor | None]


def recomputed(
    checkpoint: int | str, length: int, run: Run, score: Score, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The sum of the losses of a sequence, ready for `backward()`, and the number of terms in it.

    `run` and `score` are those of `sweep`; they are called again for the same steps during `backward()`, with the same
    random numbers, and must give the same results. Only `parameters` receive gradients; they may be any tensors that
    require one. There are no second derivatives, and the parameters must not change before.
    """
    if not parameters or any(not p.is_cpu for p in parameters):
        kinds = ", ".join(sorted({str(p.device) for p in parameters})) or "none"
        raise ArgumentError(
            "Checkpointing needs parameters that require gradients on the CPU, whose random numbers it can draw again, "
            f"got parameters on: {kinds}. Use a module on the CPU that requires gradients, or BPTT() without a "
            "checkpoint."
        )
    steps = _RerunSteps(run, score)
    layout = laid_out(checkpoint, -(-length // BLOCK_STEPS), *_measured(checkpoint, length, steps, parameters))
    borders = [k * BLOCK_STEPS for k in range(layout.blocks)] + [length]
    passes = _Passes(steps, borders, schedule(layout.blocks, layout.states), list(parameters))
    total: Tensor = _Checkpointed.apply(passes, *parameters)
    return total, passes.terms()


class _Checkpointed(Function):
    @staticmethod
    def forward(ctx: Any, passes: "_Passes", *parameters: Tensor) -> Tensor:
        ctx.passes = passes
        ctx.save_for_backward(*parameters)
        return passes.forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # torch raises here if one was changed in place
        return None, *ctx.passes.backward(gradient)


@dataclass
class _RerunSteps:
    """Runs of the net over some steps, repeated with the same random numbers."""

    run: Run
    score: Score
    drawn: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, start: int, stop: int, state: State | None) -> tuple[Tensor, Tensor, State]:
        """The sum of the losses of these steps, the number of terms, and the new state."""
        self._draw_again(start)
        outputs, new = self.run(start, stop, state)
        return *self.score(outputs, start, stop), new

    def advance(self, start: int, stop: int, state: State | None) -> State:
        """The new state only."""
        self._draw_again(start)
        return self.run(start, stop, state)[1]

    def _draw_again(self, start: int) -> None:
        if start in self.drawn:
            torch.set_rng_state(self.drawn[start])
            return
        now = torch.get_rng_state()
        last = next(reversed(self.drawn.values()), now)
        self.drawn[start] = last if torch.equal(last, now) else now  # shared if nothing is drawn


@dataclass
class _Turned:
    """A block that was run to be differentiated: its state at the beginning, the sum of its losses, its end."""

    begin: list[Tensor]
    total: Tensor
    count: Tensor
    end: list[Tensor]

    def gradients(
        self, of_total: Tensor, of_end: Gradients, parameters: Sequence[Tensor]
    ) -> tuple[Gradients, Gradients]:
        """The gradients of the initial state, and of the parameters; None for zero."""
        pairs = zip([self.total, *self.end], [of_total, *of_end], strict=True)
        flowing = [(t, d) for t, d in pairs if t.requires_grad and d is not None]
        if not flowing:
            return [None] * len(self.begin), [None] * len(parameters)
        results, given = zip(*flowing, strict=True)
        found = torch.autograd.grad(results, [*self.begin, *parameters], given, allow_unused=True)
        return list(found[: len(self.begin)]), list(found[len(self.begin) :])


class _Passes:
    """The forward pass up to the last block, and the backward pass from there."""

    def __init__(self, steps: _RerunSteps, borders: list[int], moves: Iterator[Move], parameters: list[Tensor]) -> None:
        self.steps, self.borders, self.moves, self.parameters = steps, borders, moves, parameters
        self.stored: dict[int, State | None] = {0: None}
        self.carried = GradientAccumulator(parameters)
        self.losses: list[tuple[Tensor, Tensor]] = []
        self.turned: _Turned | None = None
        self.of_end: Gradients = []
        self.found: Gradients = [None] * len(parameters)

    def forward(self) -> Tensor:
        """The sum of all losses; keeps the last block for `backward`."""
        self._to_next_turn(self._count)
        assert self.turned is not None
        self.losses.append((self.turned.total.detach(), self.turned.count))
        return sum(total for total, _ in self.losses)  # type: ignore[return-value]

    def terms(self) -> Tensor:
        """The number of terms in that sum."""
        return sum(count for _, count in self.losses)  # type: ignore[return-value]

    def backward(self, gradient: Tensor) -> Gradients:
        """The gradients of the parameters."""
        if self.turned is None:
            raise ArgumentError(
                "A checkpointed loss can be differentiated only once, since its activations are freed: sweep the "
                "sequence again, or use BPTT() without a checkpoint."
            )
        with torch.random.fork_rng(devices=[]):
            self._differentiate(gradient)
            while self._to_next_turn(self.steps.advance):
                self._differentiate(gradient)
        gathered = self.carried.gradients()
        return [_added(part, gathered.get(id(p))) for part, p in zip(self.found, self.parameters, strict=True)]

    def _to_next_turn(self, run: Advance) -> bool:
        """Run up to and including the next block to be differentiated. False if there is none."""
        for move in self.moves:
            state = self.stored[move.begin]
            for block in range(move.begin, move.end):
                state = run(*self._borders(block), state)
            if move.turn:
                self.turned = self._turn(move.end, state)
                return True
            self.stored[move.end] = state
        return False

    def _borders(self, block: int) -> tuple[int, int]:
        return self.borders[block], self.borders[block + 1]

    def _count(self, start: int, stop: int, state: State | None) -> State:
        total, count, new = self.steps(start, stop, state)
        self.losses.append((total, count))
        return new

    def _turn(self, block: int, state: State | None) -> _Turned:
        self.stored.pop(block, None)
        begin = None if state is None else state.map(lambda t: t.detach().requires_grad_())
        with torch.enable_grad(), self.carried.active():
            total, count, end = self.steps(*self._borders(block), begin)
        return _Turned([] if begin is None else pytree.tree_leaves(begin), total, count, pytree.tree_leaves(end))

    def _differentiate(self, gradient: Tensor) -> None:
        turned, self.turned = self.turned, None  # frees these activations before the next block's
        assert turned is not None
        of_end: Gradients = self.of_end or [None] * len(turned.end)
        self.of_end, found = turned.gradients(gradient, of_end, self.parameters)
        self.found = [_added(before, part) for before, part in zip(self.found, found, strict=True)]


def _added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _measured(checkpoint: int | str, length: int, steps: _RerunSteps, parameters: Sequence[Tensor]) -> tuple[int, int]:
    """The bytes of a state, and of a block's activations; zeros without a budget."""
    if isinstance(checkpoint, int):
        return 0, 0
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = max(kept.get(place, 0), min(tensor.nbytes, tensor.untyped_storage().nbytes()))
        return tensor

    stop = min(BLOCK_STEPS, length)
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        outputs, state = steps.run(0, stop, None)
        total, _ = steps.score(outputs, 0, stop)
    del total, outputs  # alive until here, so that no address was reused and skipped
    of_state = sum(t.nbytes for t in pytree.tree_leaves(state))
    return of_state, sum(kept.values()) + 2 * of_state
