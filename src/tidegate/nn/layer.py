"""`Recurrent`: any cell as a layer, stacked and in both directions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from tidegate.cells import get
from tidegate.equations import Cell, Graph, Rate
from tidegate.equations.values import shown
from tidegate.errors import ArgumentError
from tidegate.nn.arguments import Batch, bind_sizes, check_count, check_dropout, check_flag, check_options, check_types
from tidegate.nn.init import Init, read_init
from tidegate.nn.stacked import Direction, Merge, Stacked
from tidegate.nn.state import State, check_is_state, check_state
from tidegate.nn.stepper import Stepper
from tidegate.nn.torch_modules.torchscript import NoTorchScript
from tidegate.nn.trace import Trace, trace
from tidegate.nn.weights import CellWeights, CellWeightSource, Starts
from tidegate.reference import bound
from tidegate.runtime.call_cache import CallCache, LayerCall
from tidegate.runtime.support import eager
from tidegate.runtime.unroll import Unroll

MERGES = ("concat", "sum", "mean")
Found = TypeVar("Found")
RunCell = Callable[
    [Graph, Mapping[str, int], Mapping[str, Tensor], dict[str, Tensor], dict[str, Tensor]], tuple[Found, Tensor]
]


class Recurrent(NoTorchScript):
    """A recurrent layer of any cell.

    `cell` is a Cell or the name of one; sizes other than I and H are passed by their letters, as in `Recurrent(scrn, 8,
    128, S=40)`. `num_layers` layers are stacked, each reading the one below; `bidirectional` adds a second set of
    weights that reads backwards, and `merge` joins the two (`concat`, `sum` or `mean`); `dropout` acts between layers,
    in training. `learn_initial_state` makes initial states parameters (except bookkeeping states). `init` overrides the
    initial weights that the cell declares: an option of `tidegate.init`, its name, or a tuple of these. Weights are
    parameters under the names of the cell's equations: `l0.i.x`, and `l0_reverse.i.x` backwards.

    Raises ArgumentError for missing, unknown or inconsistent sizes, and for options without effect.
    """

    def __init__(
        self,
        cell: Cell | str,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dropout: float = 0.0,
        batch_first: bool = False,
        learn_initial_state: bool = False,
        init: Init | str | tuple[Init | str, ...] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **sizes: int,
    ) -> None:
        super().__init__()
        self.cell = get(cell) if isinstance(cell, str) else _cell(cell)
        check_options(OPTIONS, sizes)
        self.input_size = check_count("input_size", input_size)
        self.hidden_size = check_count("hidden_size", hidden_size)
        self.num_layers, self.merge = check_count("num_layers", num_layers), merge
        self.dropout = check_dropout(dropout, self.num_layers)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self.batch_first = check_flag("batch_first", batch_first)
        self._check_options(check_flag("learn_initial_state", learn_initial_state))
        self.init = read_init(init, self.graph)
        self.calls = CallCache()
        width, self._unrolls = self.input_size, []
        for k in range(self.num_layers):
            bound_sizes = bind_sizes(self.graph, width, self.hidden_size, sizes)
            self._check_stackable(k, bound_sizes)
            self._unrolls.append(Unroll(self.graph, bound_sizes))
            for suffix in self._suffixes:
                weights = CellWeights(self.graph, bound_sizes, self.init, device=device, dtype=dtype)
                self.add_module(f"l{k}{suffix}", weights)
                if learn_initial_state:
                    self.add_module(f"start_l{k}{suffix}", Starts(self.graph, bound_sizes, device=device, dtype=dtype))
            self.output_size = bound(self.graph.output_size, bound_sizes)[0] * self._widening
            width = self.output_size
        alone = not (bidirectional or batch_first or learn_initial_state)
        self._plain = alone and all(s.average.plain for s in self._unrolls)

    @property
    def graph(self) -> Graph:
        """The cell's equations."""
        return self.cell.graph

    @property
    def unrolls(self) -> list[Unroll]:
        """Each layer's cell over time, the first layer's first."""
        return self._unrolls

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the first layer, by letter."""
        return self._unrolls[0].sizes

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def _widening(self) -> int:
        return 2 if self.bidirectional and self.merge == "concat" else 1

    def _check_options(self, learn_initial_state: bool) -> None:
        if self.merge not in MERGES:
            raise ArgumentError(f"merge must be 'concat', 'sum' or 'mean', got {self.merge!r}")
        if self.merge != "concat" and not self.bidirectional:
            raise ArgumentError(
                f"merge={self.merge!r} joins two directions, but the layer has one: set bidirectional=True"
            )
        if learn_initial_state and all(s.bookkeeping for s in self.graph.states):
            raise ArgumentError(
                f"cell {self.cell.name!r} has only bookkeeping states, whose initial values cannot be learned"
            )
        if not self.graph.weights:
            raise ArgumentError(
                f"cell {self.cell.name!r} has no weights, which give a layer its dtype and device: add one, "
                "as in weight('scale', init=1.0, learn=False)"
            )

    def _check_stackable(self, layer: int, sizes: Mapping[str, int]) -> None:
        for extra in self.graph.inputs[1:]:
            if layer and "I" in extra.size and sizes["I"] != self.input_size:
                raise ArgumentError(
                    f"input {extra.name!r} of cell {self.cell.name!r} has the size I, which is {self.input_size} in "
                    f"the first layer and {sizes['I']} above: build single layers and stack them with Stack"
                )

    def reset_parameters(self) -> None:
        """Redraw every weight, by `init` or as the cell declares it; learned initial states become the declared
        ones."""
        for module in self.children():
            if isinstance(module, CellWeights | Starts):
                module.reset_parameters()

    def forward(
        self, x: Any, state: State | None = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Any, State]:
        """Run over a batch of sequences.

        `x` is `[T, B, I]` (`[B, T, I]` with batch_first, `[T, I]` for one sequence alone), or integers `[T, B]` as
        indices of one-hots, or a PackedSequence, or a mapping of these by input name. `state` continues an
        earlier call. `lengths` (list, array or tensor, one integer per row, 0 allowed) ends each row early: its
        output is 0 from there on, its state the one at its end, and the backward direction starts there. `reset`
        `[T, B]` resets a row to the layer's initial state at the flagged steps.

        Returns the output, in the form of `x` with size `output_size`, and the State at each row's end.
        """
        if lengths is None and reset is None and type(x) is Tensor and x.dim() == 3 and eager():
            found = self._cached(x, state)
            if found is not None:
                return found
        return self._run(Batch(self.graph, x, lengths, reset, self.batch_first, self.sizes), state)

    def _run(self, batch: Batch, state: State | None) -> tuple[Any, State]:
        layers = self.directions()
        check_types(batch, _first(layers))
        dropout = self.dropout if self.training else 0.0
        begin = self._begin(_own_start(layers, batch.rows), state, batch.hint)
        y, ends = Stacked(self.graph, layers, self.merge, dropout, self.training)(batch, begin.layers)
        return batch.restore(y), State(ends)

    def directions(self) -> list[list[Direction]]:
        """The layers with their current weights; each is read once, since parametrisations compute it on access."""
        return [[self._direction(k, suffix) for suffix in self._suffixes] for k in range(self.num_layers)]

    def _direction(self, k: int, suffix: str) -> Direction:
        module = self._modules[f"l{k}{suffix}"]
        assert isinstance(module, CellWeights)
        weights = module.tensors()
        start = self._start(k, suffix, like=next(iter(weights.values())))
        return Direction(self._unrolls[k], weights, start)

    def _start(self, k: int, suffix: str, like: Tensor) -> dict[str, Tensor]:
        """The initial states `[1, size]` by name: zeros, declared or learned values."""
        learned, sizes = self._modules.get(f"start_l{k}{suffix}"), self._unrolls[k].state_sizes
        starts = {}
        for s in self.graph.states:
            own = None if learned is None or s.bookkeeping else getattr(learned, s.name).unsqueeze(0)
            starts[s.name] = like.new_full((1, sizes[s.name]), s.start) if own is None else own
        return starts

    def initial_state(self, batch: int = 1) -> State:
        """The layer's initial state for `batch` rows."""
        return _own_start(self.directions(), check_count("batch", batch, least=0))

    def _begin(self, own: State, state: State | None, hint: Callable[[int], str] | None = None) -> State:
        if state is None:
            return own
        check_is_state(state)
        if self.bidirectional:
            raise ArgumentError(
                "a bidirectional layer cannot continue from a state: its backward direction starts at the end of "
                "the sequence. Pass the whole sequence, or use one direction"
            )
        check_state(state, own, hint)
        return state

    def step(self, x_t: Any, state: State | None = None) -> tuple[Tensor, State]:
        """One step: `x_t` is `[B, I]` (or `[B]` integers, or a mapping by input name). Returns `[B, size]`, State.

        Raises ArgumentError for a bidirectional layer, whose backward direction needs the later steps.
        """
        self._refuse_both_directions("step")
        if type(x_t) is Tensor and x_t.dim() == 2 and eager():
            found = self._cached(x_t.unsqueeze(0), state)
            if found is not None:
                return found[0].squeeze(0), found[1]
        return self._step(x_t, state)

    def _cached(self, x: Tensor, state: State | None) -> tuple[Tensor, State] | None:
        """Use the cached call of a known signature, if nothing is drawn or read besides x, weights and state."""
        drawing = self.training and (self.dropout or self.graph.masks)
        if not self._plain or drawing or not (state is None or type(state) is State):
            return None
        call = self.calls.get("forward", x, lambda: self._compiled(x))
        if call is None:
            return None
        initial: Any = [None] * self.num_layers if state is None else [d[0] for d in state.layers if len(d) == 1]
        found = call(x, initial)
        return None if found is None else (found[0], State([[end] for end in found[1]]))

    def _compiled(self, x: Tensor) -> LayerCall | None:
        unrolls = [u.average for u in self._unrolls]
        sources = [CellWeightSource(self, f"l{k}", u.weights, x.dtype) for k, u in enumerate(unrolls)]
        return LayerCall.compile(sources, unrolls, x)

    def _step(self, x_t: Any, state: State | None) -> tuple[Tensor, State]:
        moving = {i.name for i in self.graph.inputs if i.rate == Rate.INPUT}
        named = dict(x_t) if isinstance(x_t, Mapping) else {self.graph.inputs[0].name: x_t}
        timed = {n: x.unsqueeze(0) if n in moving and isinstance(x, Tensor) else x for n, x in named.items()}
        x = named.get(self.graph.inputs[0].name)
        if isinstance(x, Tensor) and x.dim() < (2 if x.is_floating_point() else 1):
            raise ArgumentError(f"step takes x_t of shape [B, {self.input_size}], or integers [B], got {list(x.shape)}")
        y, state = self._run(Batch(self.graph, timed, None, None, False, self.sizes), state)
        return y.squeeze(0), state

    def stepper(self, batch: int = 1, state: State | None = None) -> Stepper:
        """A fast stepper for streaming, with a snapshot of the current weights; see `Stepper`."""
        self._refuse_both_directions("stepper")
        layers = self.directions()
        begin = self._begin(_own_start(layers, check_count("batch", batch, least=0)), state)
        weights = [forward.weights for (forward,) in layers]
        graph = self._unrolls[0].average.graph
        return Stepper(graph, [s.sizes for s in self._unrolls], weights, begin, _own_start(layers, 1))

    def trace(self, x: Any, state: State | None = None) -> Trace:
        """Every named value of the equations (gates, pre-activations, states) at each step, `[T, B, size]`,
        without autograd."""
        self._refuse_both_directions("trace")
        return Trace(self._traced(x, state)[1])

    def _traced(self, x: Any, state: State | None) -> tuple[Any, list[dict[str, Tensor]]]:
        """The output in the form of `x`, and the values of each layer."""
        batch = Batch(self.graph, x, None, None, self.batch_first, self.sizes)
        if batch.packed is not None:
            raise ArgumentError(
                "trace takes sequences of equal length, got a PackedSequence: trace its sequences one by one"
            )
        with torch.no_grad():
            y, traced = self.one_by_one(batch, state, trace)
        return batch.restore(y), traced

    def one_by_one(self, batch: Batch, state: State | None, run: RunCell[Found]) -> tuple[Tensor, list[Found]]:
        """Run the layers from first to last by another function: the output `[T, B, size]`, and what `run` finds."""
        layers, first = self.directions(), self.graph.inputs[0].name
        check_types(batch, _first(layers))
        begins, inputs = self._begin(_own_start(layers, batch.rows), state, batch.hint), dict(batch.inputs)
        results = []
        for (forward,), (begin,) in zip(layers, begins.layers, strict=True):
            sizes, weights = forward.unroll.sizes, forward.weights
            found, y = run(forward.unroll.average.graph, sizes, weights, dict(inputs), dict(begin))
            results.append(found)
            inputs[first] = y
        return inputs[first], results

    def _refuse_both_directions(self, what: str) -> None:
        if self.bidirectional:
            raise ArgumentError(
                f"a bidirectional layer has no {what}: its backward direction needs the end of the sequence first. "
                "Use one direction"
            )

    def extra_repr(self) -> str:
        """The cell, its sizes and the options that differ from the defaults."""
        shown = f"{self.cell!r}, {self.input_size}, {self.hidden_size}"
        options: dict[str, Any] = {"num_layers": 1, "bidirectional": False, "merge": "concat", "dropout": 0.0}
        options |= {"batch_first": False, "init": ()}
        changed = [f"{k}={getattr(self, k)!r}" for k, usual in options.items() if getattr(self, k) != usual]
        return ", ".join([shown, *changed])


OPTIONS = [n for n, p in inspect.signature(Recurrent).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _first(layers: list[list[Direction]]) -> Tensor:
    """A weight of the first layer, whose dtype the inputs must have."""
    return next(iter(layers[0][0].weights.values()))


def _own_start(layers: list[list[Direction]], rows: int) -> State:
    return State([[{n: t.expand(rows, t.shape[-1]) for n, t in d.start.items()} for d in ds] for ds in layers])


def _cell(cell: object) -> Cell:
    if not isinstance(cell, Cell):
        raise ArgumentError(
            f"a layer takes a Cell or the name of one, got {shown(cell)}: decorate a function with @cell to make one"
        )
    return cell
