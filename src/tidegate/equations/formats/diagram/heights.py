"""Chooses the heights of items so that wires climb as little as their order allows.

For each layer the best heights between still neighbours are an isotonic regression, found by pooling; smooth sweeps
the layers come near the optimum of them all, exact ones and moves of whole blocks then make wires straight."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tidegate.equations.formats.diagram.layers import Hop, Item, Layering, end_height

_SEPARATION = 17.0


def set_heights(layout: Layering) -> None:
    """Minimise the total climb: smooth sweeps first, then exact ones that make wires straight."""
    for layer in layout.layers:
        _stack(layer)
    pulls = _pulls(layout)
    forth, back = layout.layers, layout.layers[::-1]
    for softness in (64.0, 16.0, 4.0, 1.0):
        for layer in [*forth, *back] * 5:
            _settle(layer, lambda item, s=softness: _soft(item, pulls[item], s), _mean)  # type: ignore[misc]
    for layer in forth:
        _settle(layer, lambda item: _close(item, pulls[item]), _median)
    for layer in [*back, *forth] * 3:
        _settle(layer, lambda item: _wanted(item, pulls[item]), _median)
    items = [item for layer in forth for item in layer]
    for _ in range(4):
        tried: set[Item] = set()
        for item in items:
            if item not in tried:
                tried.update(_shift(layout, item, pulls))
    for item in items:
        item.y = round(item.y, 2)


def _shift(layout: Layering, item: Item, pulls: "dict[Item, list[_Pull]]") -> list[Item]:
    """Move an item and all that straight wires join it to, if that reduces the climb; returns the block."""
    block = _straight(item, pulls)
    outer = [(gap, p.weight) for i in block for p in pulls[i] if abs(gap := p.other.y + p.difference - i.y) > 0.01]

    def cost(step: float) -> float:
        return sum(weight * abs(gap - step) for gap, weight in outer)

    steps = sorted({gap for gap, _ in outer}, key=lambda step: (cost(step), abs(step)))
    for step in steps:
        if cost(step) < cost(0.0) - 0.01 and is_free(layout, block, step):
            for moved in block:
                moved.y += step
            break
    return block


def _straight(item: Item, pulls: "dict[Item, list[_Pull]]") -> list[Item]:
    block, found = [item], {item}
    for at in block:
        for p in pulls[at]:
            if p.other not in found and abs(p.other.y + p.difference - at.y) <= 0.01:
                found.add(p.other)
                block.append(p.other)
    return block


def is_free(layout: Layering, block: Iterable[Item], step: float) -> bool:
    """Whether a block can move without coming too close to items that do not move."""
    moving = set(block)
    for item in moving:
        layer = layout.layers[item.layer]
        for above, below in itertools.pairwise(layer[max(0, item.rank - 1) : item.rank + 2]):
            y, z = above.y + step * (above in moving), below.y + step * (below in moving)
            if z - y < _offsets([above, below])[1] - 1e-6:
                return False
    return True


def _stack(layer: list[Item]) -> None:
    heights = _offsets(layer)
    middle = heights[-1] / 2 if heights else 0.0
    for item, height in zip(layer, heights, strict=True):
        item.y = height - middle


def _offsets(layer: Sequence[Item]) -> list[float]:
    """The minimum distance of each item's middle from the first one's."""
    found = [0.0] if layer else []
    for above, below in itertools.pairwise(layer):
        space = _SEPARATION if above.height or below.height else 0.75 * _SEPARATION
        found.append(found[-1] + (above.height + below.height) / 2 + space)
    return found


@dataclass
class _Pull:
    """A wire that pulls an item towards a height `difference` below another."""

    other: Item
    difference: float
    weight: float
    backwards: bool


def _pulls(layout: Layering) -> dict[Item, list[_Pull]]:
    pulls: dict[Item, list[_Pull]] = {item: [] for layer in layout.layers for item in layer}
    for gap in layout.gaps:
        for hop in gap:
            for end, inlet in hop.ends:
                weight = 12.0 if (hop.start, end) in layout.spines else _weight(hop, end)
                shift = (hop.begin - hop.start.y) - (end_height(end, inlet) - end.y)
                pulls[end].append(_Pull(hop.start, shift, weight, backwards=True))
                pulls[hop.start].append(_Pull(end, -shift, weight, backwards=False))
    return pulls


def _weight(hop: Hop, end: Item) -> float:
    if hop.start.node is None and end.node is None:
        return 6.0
    spine = any(node is not None and node.is_port for node in (hop.start.node, end.node))
    return (3.0 if spine else 2.0 if hop.start.node is None or end.node is None else 1.0) / math.sqrt(len(hop.ends))


_Wanted = list[tuple[float, float]]  # heights and how much each is wanted


def _wanted(item: Item, pulls: list[_Pull]) -> _Wanted:
    return [(p.other.y + p.difference, p.weight) for p in pulls] or [(item.y, 0.01)]


def _soft(item: Item, pulls: list[_Pull], softness: float) -> _Wanted:
    """Weights that make the mean of squares the sum of distances, except for distances below `softness`."""
    return [(height, weight / max(abs(height - item.y), softness)) for height, weight in _wanted(item, pulls)]


def _close(item: Item, pulls: list[_Pull]) -> _Wanted:
    """The heights that wires from the left want, if the item is almost at them; otherwise its own."""
    near = [p for p in pulls if p.backwards and abs(p.other.y + p.difference - item.y) < 8]
    return _wanted(item, near)


def _settle(layer: list[Item], wanted: Callable[[Item], _Wanted], centre: Callable[[_Wanted, float], float]) -> None:
    """Give a layer its best heights with neighbouring layers fixed: isotonic regression, pooling items that collide."""
    offsets = _offsets(layer)
    blocks: list[tuple[_Wanted, int, float]] = []
    for item, offset in zip(layer, offsets, strict=True):
        block, size = [(height - offset, weight) for height, weight in wanted(item)], 1
        at = centre(block, item.y - offset)
        while blocks and blocks[-1][2] > at:
            above, count, old = blocks.pop()
            block, size = above + block, size + count
            at = centre(block, old)
        blocks.append((block, size, at))
    heights = [at for _, size, at in blocks for _ in range(size)]
    for item, offset, height in zip(layer, offsets, heights, strict=True):
        item.y = height + offset


def _mean(wanted: _Wanted, now: float) -> float:
    return sum(height * weight for height, weight in wanted) / sum(weight for _, weight in wanted)


def _median(wanted: _Wanted, now: float) -> float:
    """The weighted median; of an interval of medians, the end closer to `now`."""
    points = sorted(wanted)
    half, below = sum(w for _, w in points) / 2, 0.0
    for k, (height, weight) in enumerate(points):
        below += weight
        if below > half + 1e-9:
            return height
        if below > half - 1e-9:
            after = points[k + 1][0]
            return height if abs(height - now) <= abs(after - now) else after
    return points[-1][0]
