"""`RulePlan`: a rule applied to equations with bound sizes, planned once and used by every call."""

from collections.abc import Callable, Mapping
from functools import cache, cached_property, lru_cache

from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.ops import spread
from tidegate.equations.values import Rate, Value
from tidegate.gradients.cost import COPIES, Cost, kept
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.parameter_groups import structure
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.step_evaluator import giving, reader
from tidegate.reference import Program, bound
from tidegate.runtime.masks import Masks
from tidegate.runtime.unroll import Unroll as Run

Tensors = dict[str, Tensor]
ELEMENTS_AT_ONCE = 1 << 22  # values that trackers read, in the steps that are read together
Sizes = tuple[tuple[str, int], ...]


class RulePlan:
    """The trackers of a rule, and the runs of the cell that compute its states and what trackers read.

    `whole` steps include the new states and the output.
    """

    def __init__(self, graph: Graph, sizes: Sizes, rule: Forward, whole: bool, weights: Mapping[str, Tensor]) -> None:
        self.graph, self.sizes = graph, dict(sizes)
        self.structure = structure(graph)
        self.names = [s.name for s in graph.states]
        self.widths = [bound(s.size, self.sizes)[0] for s in graph.states]
        self.state_of_output = next((name for name, v in graph.new.items() if v is graph.output), None)
        self.following = following(graph, sizes)
        self.masks = Masks(graph, self.sizes)
        self.parameters = Program(self.structure.parameters)
        leaves = [str(v.attrs["name"]) for v in self.structure.parameters if v.op == "weight"]
        plain = len(leaves) == len(self.structure.parameters)
        self.learned = leaves if plain else None  # the parameters' names, where none of them is made of weights
        self.moving = {i.name for i in graph.inputs if i.rate == Rate.INPUT}
        self.layout = ParameterLayout(self.structure, self.sizes, weights)
        self.places, _ = self.layout.places(self.names)
        self.trackers = list(rule.trackers(self.layout))
        wanted = [v for t in self.trackers for v in t.values]
        self.costs = cache(self._costs)
        self.reader = reader(graph, sizes, (*wanted, *(graph.roots if whole else ())))

    def _costs(self, rows: int) -> list[Cost]:
        """The memory and operations of each tracker."""
        return [tracker.cost(rows) for tracker in self.trackers]

    def at_once(self, rows: int) -> int:
        """The steps that are read together."""
        return max(1, ELEMENTS_AT_ONCE // max(1, rows * self.reader.numbers))

    def most(self, steps: int, rows: int) -> int:
        """The peak number of elements during a run: the influence, and what is read of steps."""
        return COPIES * kept(self.costs(rows)) + min(steps, self.at_once(rows)) * rows * self.reader.numbers

    @cached_property
    def reads_old(self) -> bool:
        """Whether the output reads old states directly."""
        if self.state_of_output is not None:
            return False
        old = set(self.graph.old.values())
        return any(v in old or not old.isdisjoint(v.args) for v in (self.graph.output, *self.outputs.order))

    @cached_property
    def outputs(self) -> Program:
        """The computation of the output from states, inputs and weights, if it is not a state."""
        graph = self.graph
        given = [*graph.weights.values(), *graph.input_values.values(), *graph.old.values()]
        return Program([graph.output], given=[*given, *(v for v in graph.new.values() if not v.is_leaf)])

    def apart(self, states: Tensor) -> Tensors:
        """Split units into states by name."""
        if len(self.names) == 1:
            return {self.names[0]: states}  # splitting would cost a copy in the backward pass
        return dict(zip(self.names, states.split(self.widths, -1), strict=True))

    @cached_property
    def both(self) -> Run | None:
        """A run that outputs all new states, then what trackers read; None if they read no vectors."""
        vectors = self.reader.vectors
        return Run(giving(self.graph, [*_states(self.graph), *vectors]), self.sizes) if vectors else None


def plan(
    graph: Graph, sizes: Sizes, rule: Forward, whole: bool, weights: Callable[[], Mapping[str, Tensor]]
) -> RulePlan:
    """The plan of a rule; it inspects the values of weights that are never learned."""
    if all(w.attrs["learn"] for w in graph.weights.values()):
        return _plan(graph, sizes, rule, whole)
    return RulePlan(graph, sizes, rule, whole, {name: w.detach() for name, w in weights().items()})


@lru_cache(maxsize=256)
def _plan(graph: Graph, sizes: Sizes, rule: Forward, whole: bool) -> RulePlan:
    return RulePlan(graph, sizes, rule, whole, {})


@lru_cache(maxsize=256)
def following(graph: Graph, sizes: Sizes) -> Run:
    """A run of the graph with all new states as its output, side by side."""
    return Run(giving(graph, _states(graph)), dict(sizes))


def _states(graph: Graph) -> list[Value]:
    return [spread(graph.new[s.name], s.size) for s in graph.states]
