"""What a loop over time repeats, as a flat list of calls: a step then costs little beyond its tensor operations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from tidegate.equations.ops import OPS
from tidegate.equations.values import Size, Value
from tidegate.reference import Program, bound
from tidegate.reference import torch_ops as xp

Bind = Callable[[Size], tuple[int, ...]]
Line = tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]  # what is called, places it reads, places it fills


class StepProgram:
    """The values of one step on numbered places of a list: `code(places)` computes what is not given.

    The parts of one product are split off together, so that its gradient is put together once and not once a part.
    """

    def __init__(self, roots: Iterable[Value], given: Iterable[Value], sizes: Mapping[str, int]) -> None:
        known = list(given)
        order = Program(roots, given=known).order
        self.place = {v: k for k, v in enumerate(dict.fromkeys([*known, *order]))}
        self.constants = [(k, v.attrs["value"]) for v, k in self.place.items() if v.op == "constant"]
        computed = [v for v in order if v.op not in ("constant", "old")]
        self._lines = _lines(computed, self.place, partial(bound, sizes=sizes))

    def places(self, fixed: Mapping[Value, Any]) -> list[Any]:
        """A list with the constants and what does not move from step to step, to be copied for each step."""
        places: list[Any] = [None] * len(self.place)
        for k, number in self.constants:
            places[k] = number
        for value, array in fixed.items():
            if value in self.place:
                places[self.place[value]] = array
        return places

    def __call__(self, places: list[Any]) -> None:
        """Compute what is not given."""
        for function, read, filled in self._lines:
            result = function(*[places[k] for k in read])
            if len(filled) == 1:
                places[filled[0]] = result
            else:
                for k, part in zip(filled, result, strict=True):
                    places[k] = part


def _lines(values: Sequence[Value], place: Mapping[Value, int], bind: Bind) -> list[Line]:
    lines: list[Line] = []
    parts = _whole_splits(values)
    for value in values:
        group = parts.get(value)
        if group is None:
            lines.append((_function(value, bind), tuple(place[a] for a in value.args), (place[value],)))
        elif value is group[0]:
            split = partial(torch.split, split_size_or_sections=[bind(p.size)[0] for p in group], dim=-1)
            lines.append((split, (place[value.args[0]],), tuple(place[p] for p in group)))
    return lines


def _function(value: Value, bind: Bind) -> Callable[..., Any]:
    row = OPS[value.op]
    assert row.value is not None
    return partial(row.value, xp) if row.kind == "pointwise" else partial(row.value, xp, value, bind)


def _whole_splits(values: Sequence[Value]) -> dict[Value, list[Value]]:
    """For each part, all parts of the same value, where these are two or more and leave nothing of it out."""
    found: dict[Value, list[Value]] = {}
    for value in values:
        if value.op == "part":
            found.setdefault(value.args[0], []).append(value)
    whole = {w: ps for w, ps in found.items() if len(ps) > 1 and _covers(w, ps)}
    return {p: ps for ps in whole.values() for p in ps}


def _covers(whole: Value, parts: list[Value]) -> bool:
    parts.sort(key=lambda p: len(p.attrs["before"]))
    sizes = [str(p.size[0]) for p in parts]
    in_place = all([str(b) for b in p.attrs["before"]] == sizes[:k] for k, p in enumerate(parts))
    return in_place and whole.size[0] == "+".join(sizes)
