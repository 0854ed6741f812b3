"""Unbiased online recurrent optimisation: the influence approximated by one outer product.

Tallec & Ollivier 2017, arXiv:1702.05043, algorithm 1 and proposition 1, with the variance-reducing factors of their
section 3. Signs come from a counter-based generator, so a restarted run draws the same ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tidegate.calculus import Tangent, independent, jvp, pulled_back
from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value, walk
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence.capture import Tracker
from tidegate.gradients.influence.dense import row
from tidegate.gradients.influence.parameter_groups import ParameterGroup, add
from tidegate.gradients.influence.parameter_layout import Bundle, ParameterLayout
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.nn.operations import operations_of
from tidegate.reference import Program
from tidegate.reference import torch_ops as xp
from tidegate.reference.step_program import StepProgram

Tensors = dict[str, Tensor]
EPSILON = 1e-7
CHUNK_ELEMENTS = 1 << 18  # elements of the steps' contributions to vectors over weights that are computed together


class RankOneInfluence(Tracker):
    """A vector over states times a vector over weights, for each row of the batch.

    The recursion never forms a Jacobian: it multiplies one with the vector over states, and signs with another. Norms
    are the paper's, over parameters: contributions to one weight at several places are summed first.
    """

    def __init__(
        self, groups: Sequence[ParameterGroup], states: Sequence[str], layout: ParameterLayout, seed: int
    ) -> None:
        self.seed, self.layout, graph = seed, layout, layout.structure.graph
        self.names = tuple(g.name for g in groups)
        self.states = tuple(states)
        self.places, self.D = layout.places(states)
        self.bundles = layout.bundles(groups)
        self.counts = [b.count for b in self.bundles]
        self._parameters = Program(dict.fromkeys(p for g in groups for p in g.parameters))
        self._learned = [v for v in walk(self._parameters.roots) if v.op == "weight" and v.attrs["learn"]]
        self._read_once = _read_once(groups, layout)

        self._signs, self._rows, self._tangent = _products(graph, tuple(states), tuple(g.result for g in groups))
        beside = independent(self._rows.values(), self._signs.values())
        self._driven = Program(self._rows.values(), given=[*beside, *self._signs.values()])
        ends, seeds = self._tangent.states.values(), self._tangent.seeds.values()
        self._along = independent(ends, seeds)
        self._moved = StepProgram(ends, [*self._along, *seeds], layout.sizes)
        self._computed = [*Program(ends, given=[*self._along, *seeds]).order, *self._driven.order]
        read = [v for g in groups for _, v in g.factors]
        self.values = [v for v in dict.fromkeys([*read, *beside, *self._along]) if v.op != "weight"]

    def cost(self, rows: int) -> Cost:
        """A Jacobian times a vector, signs times another, and some operations for each unit and each weight."""
        D, P = self.D, sum(self.counts)
        counted = operations_of(self._computed, self.layout.sizes)
        flops = counted.products + counted.others + 7 * D + (10 if self._read_once else 14) * P
        calls = 50 + len(self._computed) + 3 * len(self.values) + 8 * len(self.names) + 10 * len(self.bundles)
        form = f"a vector of {D} times one of {P}"
        return Cost(self.names, form, "right on average", rows * (D + P), rows * flops, calls)

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """Zero influence. Vectors over weights are `[B, n, r, V]` by bundle: n places that read different vectors of
        V elements, and r rows of weights at each."""
        weights = {f"weights.{k}": like.new_zeros(rows, *_shape(b)) for k, b in enumerate(self.bundles)}
        return {"states": like.new_zeros(rows, self.D), **weights, "count": torch.zeros((), dtype=torch.int64)}

    @torch.no_grad()
    def advance(
        self, memory: Tensors, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of a loss with these gradients `[T, B, n]` in the states."""
        count, s, w = int(memory["count"]), memory["states"], self._flat(memory)
        signs = steps.masked(random_signs(self.seed, count, steps.T, s.shape, s))
        delta = None if gradients is None else row(self.places, gradients)
        moved_by, factors, by_parameter = self._moved_by(steps), self._factors(steps, signs), self._by_parameter(steps)
        fresh = steps.fresh if steps.fresh is None or steps.valid is None else steps.fresh & steps.valid
        total, size = w.new_zeros(w.shape[1]), by_parameter(w)  # size: of which the norm is taken, often w itself
        width = max(1, CHUNK_ELEMENTS // max(1, w.numel()))
        for start in range(0, steps.T if steps.B else 0, width):
            span = slice(start, min(start + width, steps.T))
            new = torch.cat([(r[span].unsqueeze(-1) * v[span].unsqueeze(-2)).flatten(2) for r, v in factors], -1)
            sizes = by_parameter(new)
            drive = _balance(_norm(sizes), self.D**0.5)
            along, after = drive * signs[span], new / drive  # both gain below what is carried on
            sizes = after if sizes is new else sizes / drive
            for t in range(len(along)):
                if fresh is not None:
                    s, w, size = (v.masked_fill(fresh[start + t].unsqueeze(-1), 0.0) for v in (s, w, size))
                moved = moved_by(start + t, s)
                keep = _balance(_norm(size), _norm(moved))
                shrink = keep.reciprocal()
                s, w = along[t].addcmul_(keep, moved), after[t].addcmul_(shrink, w)
                size = w if sizes is after else sizes[t].addcmul_(shrink, size)
            if delta is not None:
                total += torch.linalg.vecdot(delta[span], along).flatten() @ after.flatten(0, 1)
        end = {"states": s.clone(), **self._apart(w), "count": torch.tensor(count + steps.T)}
        return end, {} if delta is None else self._parted(total)

    def gradient(self, memory: Tensors, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of a loss with these gradients `[B, n]` in the current states."""
        share = (row(self.places, gradients) * memory["states"]).sum(-1)
        return self._parted(share @ self._flat(memory))

    def _factors(self, steps: StepValues, signs: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The steps' contributions by bundle: signs times Jacobians `[T, B, n, r]`, times what is read `[T, B, n,
        V]`."""
        env = {**steps.env, **{v: signs[..., self.places[name]] for name, v in self._signs.items()}}
        self._driven(xp, self.layout.sizes, env)
        found = []
        for bundle in self.bundles:
            each = [env[self._rows[g.result]].expand(steps.T, steps.B, bundle.rows) for g in bundle.groups]
            rows = torch.stack(each, 2) if _shape(bundle)[0] > 1 else torch.cat(each, 2).unsqueeze(3)
            found.append((steps.masked(rows.transpose(2, 3)), steps.read(bundle.groups[0])))
        return found

    def _moved_by(self, steps: StepValues) -> Callable[[int, Tensor], Tensor]:
        """The Jacobian of a step times a vector over states `[B, D]`."""
        place, states = self._moved.place, self._tangent.states
        fixed = self._moved.places({v: steps.env[v] for v in self._along if v.rate == Rate.WEIGHTS})
        moving = [(place[v], steps[v].unbind()) for v in self._along if v.rate > Rate.WEIGHTS]
        seeds = [(place[v], self.places[name]) for name, v in self._tangent.seeds.items()]
        ends = [(place[states[n]] if n in states else None, p.stop - p.start) for n, p in self.places.items()]

        def moved(t: int, vector: Tensor) -> Tensor:
            at = fixed.copy()
            for k, each in moving:
                at[k] = each[t]
            for k, part in seeds:
                at[k] = vector[:, part]
            self._moved(at)
            found = [vector.new_zeros(steps.B, n) if k is None else at[k].expand(steps.B, n) for k, n in ends]
            whole = torch.cat(found, 1)
            return whole if steps.valid is None else torch.where(steps.valid[t].unsqueeze(-1), whole, vector)

        return moved

    def _by_parameter(self, steps: StepValues) -> Callable[[Tensor], Tensor]:
        """The map from vectors over weights `[..., P]` to vectors over parameters, without duplicates."""
        weights = {v: steps.env[v] for v in self._learned}
        apart = {(w.data_ptr(), w.shape): w for w in weights.values()}  # tied weights share memory
        if self._read_once and len(apart) == len(weights):
            return lambda vectors: vectors
        number = {place: k for k, place in enumerate(apart)}

        def values(*found: Tensor) -> tuple[Tensor, ...]:
            env = {v: w for v, w in steps.env.items() if v.op == "weight"}
            env |= {v: found[number[w.data_ptr(), w.shape]] for v, w in weights.items()}
            return tuple(self._parameters(xp, self.layout.sizes, env))

        pull = torch.func.vjp(values, *apart.values())[1]

        def one(vector: Tensor) -> Tensor:
            found = self._parted(vector)
            return torch.cat([g.flatten() for g in pull(tuple(found[v] for v in self._parameters.roots))])

        return lambda vectors: torch.func.vmap(one)(vectors.flatten(0, -2)).unflatten(0, vectors.shape[:-1])

    def _flat(self, memory: Tensors) -> Tensor:
        """The vector over weights, `[B, P]`."""
        return torch.cat([memory[f"weights.{k}"].flatten(1) for k in range(len(self.bundles))], 1)

    def _apart(self, vectors: Tensor) -> Tensors:
        parts = zip(vectors.split(self.counts, 1), self.bundles, strict=True)
        return {f"weights.{k}": part.reshape(-1, *_shape(b)).clone() for k, (part, b) in enumerate(parts)}

    def _parted(self, vector: Tensor) -> dict[Value, Tensor]:
        """One vector over weights by parameter."""
        found: dict[Value, Tensor] = {}
        for bundle, part in zip(self.bundles, vector.split(self.counts), strict=True):
            groups = part.view(_shape(bundle)).unflatten(1, (len(bundle.groups), -1)).unbind(1)
            for group, each in zip(bundle.groups, groups, strict=True):
                add(found, split(group, each.reshape(bundle.rows, bundle.columns), self.layout))
        return found


@lru_cache(maxsize=256)
def _products(
    graph: Graph, states: tuple[str, ...], results: tuple[Value, ...]
) -> tuple[dict[str, Value], dict[Value, Value], Tangent]:
    """Signs by state, signs times the Jacobians in what weights give, and the Jacobian times a vector."""
    signs = {s.name: Value("seed", (), s.size, Rate.STATE, name=f"sign.{s.name}") for s in graph.states}
    signs = {name: signs[name] for name in states}
    return signs, pulled_back(graph, signs, results), jvp(graph, states)


def _shape(bundle: Bundle) -> tuple[int, int, int]:
    """Places that read different vectors, each row its own where there are blocks; rows at each; columns."""
    n = bundle.rows if any(m.attrs.get("blocks") for m, _ in bundle.groups[0].factors) else 1
    return n, bundle.count // bundle.columns // n, bundle.columns


def _read_once(groups: Sequence[ParameterGroup], layout: ParameterLayout) -> bool:
    """Whether each learned weight is read unchanged at exactly one place."""
    each = [p for g in groups for p in g.parameters]
    summed = any(g.bias is not None and layout.shape_of(g.bias) != (layout.rows(g),) for g in groups)
    return not summed and len(set(each)) == len(each) and all(p.op == "weight" for p in each)


def _norm(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


def _balance(weights: Tensor, states: Tensor | float) -> Tensor:
    """The factor that gives vectors with these norms equal norms, which minimises the variance."""
    return (weights / (states + EPSILON)).sqrt_().add_(EPSILON)


def random_signs(seed: int, first: int, steps: int, shape: Sequence[int], like: Tensor) -> Tensor:
    """Signs `[steps, *shape]`; those of a step depend on the seed, the shape and the step's number alone."""
    size = math.prod(shape)
    turns = -(-size // 256)  # of the counter, for four words each
    words = np.random.Philox(key=seed, counter=first * turns).random_raw(4 * steps * turns)
    bits = np.unpackbits(words.view(np.uint8).reshape(steps, 32 * turns), axis=1, count=size)
    return torch.from_numpy(bits).to(like.device, like.dtype).mul_(2).sub_(1).view(steps, *shape)
