"""Forward gradient rules: exact real-time recurrent learning, and cheaper approximations."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from tidegate.calculus import direct_jacobians
from tidegate.calculus.jacobian import Diagonal
from tidegate.equations import Cell
from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate
from tidegate.errors import ArgumentError
from tidegate.gradients.influence.capture import Tracker
from tidegate.gradients.influence.dense import DenseInfluence
from tidegate.gradients.influence.diagonal import DiagonalInfluence
from tidegate.gradients.influence.kronecker import KroneckerInfluence
from tidegate.gradients.influence.parameter_groups import ParameterGroup, Structure, structure
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.rank_one import RankOneInfluence
from tidegate.gradients.influence.sparsity import on_diagonal, within
from tidegate.gradients.rules import ByName, Segment, check_whole
from tidegate.nn.flatten import FlattenedLayer


@dataclass(frozen=True)
class Support:
    """Whether a rule supports a cell, and if not, why."""

    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, kw_only=True)
class Forward(ByName, ABC):
    """A rule whose memory does not grow with the sequence.

    There is an update after every `every` steps, with the influence carried on; None: one update, at the end of the
    sequence. With fixed weights both sum to the same gradient.
    """

    every: int | None = None
    word: ClassVar[str]

    def __post_init__(self) -> None:
        if self.every is not None:
            check_whole(self, "every", instead=", the steps between updates, or None for one update at the end")

    def segments(self, length: int) -> tuple[Segment, ...]:
        """One segment for each update."""
        width = self.every or max(length, 1)
        return tuple(Segment(k, k, min(k + width, length)) for k in range(0, length, width))

    def supports(self, cell: Cell | Graph | nn.Module) -> Support:
        """Whether the rule supports a cell, its graph, or a layer."""
        whole = FlattenedLayer(cell) if isinstance(cell, nn.Module) else cell
        graph = whole if isinstance(whole, Graph) else whole.graph
        clipped = next((v for v in graph.values if v.op == "clip_gradient"), None)
        if clipped is not None:
            return Support("its equations clip gradients within a step, which only backward rules support; use BPTT()")
        return self._supports(structure(graph))

    def _supports(self, found: Structure) -> Support:
        return Support()

    def trackers(self, layout: ParameterLayout) -> Sequence[Tracker]:
        """The rule's trackers. Raises ArgumentError if the rule does not support the equations."""
        graph = layout.structure.graph
        support = self.supports(graph)
        if not support:
            raise ArgumentError(f"{type(self).__name__} does not support {graph.name!r}: {support.reason}.")
        return self._trackers(layout.structure, layout)

    def cheaper(self, graph: Graph) -> "tuple[Forward, ...]":
        """Rules that need less memory for most equations."""
        return tuple(rule for rule in (SnAp(), UORO()) if rule.supports(graph))

    @abstractmethod
    def _trackers(self, found: Structure, layout: ParameterLayout) -> Sequence[Tracker]: ...

    def __str__(self) -> str:
        numbers = [str(n) for n in (*self._numbers(), self.every) if n is not None]
        return ":".join([self.word, *([",".join(numbers)] if numbers else [])])

    def _numbers(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class RTRL(Forward):
    """Exact real-time recurrent learning, for every cell (Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270).

    For an element-wise recurrence, the influence is one number per weight and state; otherwise a full matrix of states
    by weights. Stacked layers are one net: the influence of lower layers' weights on the states above is included.
    """

    word: ClassVar[str] = "rtrl"

    def _trackers(self, found: Structure, layout: ParameterLayout) -> Sequence[Tracker]:
        alone = [g for g in found.groups if g.stays_in_its_unit(found.jacobians.states)]
        together = [g for g in found.groups if g not in alone]
        local = [DiagonalInfluence(f"trace.{k}", g, layout) for k, g in enumerate(alone)]
        return [*local, *_dense(together, layout)]


def _dense(groups: Sequence[ParameterGroup], layout: ParameterLayout) -> list[Tracker]:
    """One matrix for each set of influenced states."""
    by_reach: dict[frozenset[str], list[ParameterGroup]] = {}
    for group in groups:
        by_reach.setdefault(frozenset(group.reach), []).append(group)
    return [DenseInfluence(f"influence.{k}", some, some[0].reach, layout) for k, some in enumerate(by_reach.values())]


@dataclass(frozen=True, kw_only=True)
class SnAp(Forward):
    """The sparse n-step approximation (Menick et al. 2021, arXiv:2006.07232): influences that take more than `n`
    steps are dropped. With n large enough it is `RTRL()`."""

    n: int = 1
    word: ClassVar[str] = "snap"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "n")

    def _numbers(self) -> tuple[int, ...]:
        return (self.n,)

    def _trackers(self, found: Structure, layout: ParameterLayout) -> Sequence[Tracker]:
        trackers: list[Tracker] = []
        full: list[ParameterGroup] = []
        for k, group in enumerate(found.groups):
            pattern = within(layout, group, self.n)
            if on_diagonal(pattern):
                trackers.append(DiagonalInfluence(f"trace.{k}", group, layout))
            elif all(bool(p.all()) for p in pattern.values()):
                full.append(group)
            else:
                allowed = torch.cat([pattern[s] for s in group.reach])
                trackers.append(DenseInfluence(f"masked.{k}", [group], group.reach, layout, allowed))
        return [*trackers, *_dense(full, layout)]


@dataclass(frozen=True, kw_only=True)
class Signed(Forward):
    """A rule that is unbiased, but noisy: `seed` seeds its random signs."""

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "seed", least=0)


@dataclass(frozen=True, kw_only=True)
class UORO(Signed):
    """Unbiased online recurrent optimisation (Tallec & Ollivier 2017, arXiv:1702.05043), for every cell: unbiased,
    but noisy. `seed` seeds its random signs."""

    word: ClassVar[str] = "uoro"

    def _trackers(self, found: Structure, layout: ParameterLayout) -> Sequence[Tracker]:
        return [RankOneInfluence(found.groups, found.states, layout, self.seed)] if found.groups else []


@dataclass(frozen=True, kw_only=True)
class KFRTRL(Signed):
    """Kronecker-factored real-time recurrent learning (Mujika et al. 2018, arXiv:1805.10842), for cells all of whose
    learned weights multiply the same vectors. `seed` seeds its random signs."""

    word: ClassVar[str] = "kfrtrl"

    def _supports(self, found: Structure) -> Support:
        vector = next((g for g in found.groups if g.is_vector), None)
        if vector is not None:
            return Support(f"{vector.name} is read unit by unit, but the rule factors matrices; use RTRL() or SnAp()")
        kinds = {(tuple(v for _, v in g.factors), g.bias is not None) for g in found.groups}
        if len(kinds) > 1:
            names = " and ".join(sorted(g.name for g in found.groups)[:2])
            return Support(
                f"its linears read different vectors, such as {names}, but the rule needs a common one for all "
                "weights; use RTRL() or UORO()"
            )
        if any("blocks" in m.attrs for g in found.groups for m, _ in g.factors):
            return Support("its matrices have blocks that read different units; use RTRL() or UORO()")
        return Support()

    def _trackers(self, found: Structure, layout: ParameterLayout) -> Sequence[Tracker]:
        return [KroneckerInfluence(found.groups, found.states, layout, self.seed)] if found.groups else []


@dataclass(frozen=True)
class EProp(Forward):
    """E-prop (Bellec et al. 2020, doi:10.1038/s41467-020-17236-y), for single layers whose weights act on their own
    unit first: influence from unit to unit through a matrix is dropped."""

    word: ClassVar[str] = "eprop"

    def _supports(self, found: Structure) -> Support:
        far = [g for g in found.groups if any(not isinstance(j, Diagonal) for j in g.jacobians.values())]
        if far:
            return Support(
                f"the weights of {far[0].name} act on other units than their own within one step (a layer "
                "above, a reduction over units, or a second product); use RTRL() or SnAp()"
            )
        mixed = [key for key, j in direct_jacobians(found.graph).items() if not isinstance(j, Diagonal)]
        if mixed:
            return Support(f"states {mixed[0][1]} and {mixed[0][0]} mix units without a matrix; use RTRL() or SnAp()")
        return Support()

    def _trackers(self, found: Structure, layout: ParameterLayout) -> Sequence[Tracker]:
        return [DiagonalInfluence(f"trace.{k}", g, layout, direct=True) for k, g in enumerate(found.groups)]


@dataclass(frozen=True)
class RFLO(EProp):
    """Random-feedback local online learning (Murray 2019, doi:10.7554/eLife.43299), for leaky units: the influence of
    a weight on its own unit decays as the state does. It uses the gradients of the loss; for random feedback, write
    your own readout."""

    word: ClassVar[str] = "rflo"

    def _supports(self, found: Structure) -> Support:
        plain = super()._supports(found)
        if not plain:
            return plain
        kept = [s.name for s in found.graph.states if not s.bookkeeping]
        leaks = direct_jacobians(found.graph)
        if len(kept) != 1 or any(j.value.rate > Rate.WEIGHTS for j in leaks.values()):
            return Support(
                "it is for one state that leaks at a fixed rate, h' = (1 - a) h + a f(W h + V x); use EProp() or SnAp()"
            )
        return Support()
