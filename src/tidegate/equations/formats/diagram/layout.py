"""Arranges a diagram, except for x coordinates, which the widths of layers and gaps decide.

The method is Sugiyama's: layers, order within them, heights, and in each gap between layers a track for every wire
wire that climbs."""

import itertools

from tidegate.equations.formats.diagram.heights import is_free, set_heights
from tidegate.equations.formats.diagram.layers import Hop, Layering, into_layers
from tidegate.equations.formats.diagram.nodes import Drawing
from tidegate.equations.formats.diagram.order import set_order, sort_inlets


def arrange(drawing: Drawing) -> Layering:
    """Assign layers, orders, heights and tracks."""
    layout = into_layers(drawing)
    set_order(layout, drawing)
    sort_inlets(layout)
    set_heights(layout)
    for gap in layout.gaps:
        _untie(layout, gap)
    for gap in layout.gaps:
        _set_tracks(gap)
    return layout


def _untie(layout: Layering, gap: list[Hop]) -> None:
    """Move the start of one of two wires that would overlap in either order."""
    for one, two in itertools.permutations(gap, 2):
        for step in (4.0, -4.0, 7.0, -7.0):
            climbs = _Climb(one), _Climb(two)
            if not (_on_top(*climbs) and _on_top(*climbs[::-1])):
                break
            if is_free(layout, {two.start}, step):
                two.start.y += step


class _Climb:
    """The heights of a hop while tracks are being chosen."""

    def __init__(self, hop: Hop) -> None:
        self.hop, self.begin, self.targets = hop, hop.begin, hop.targets
        self.low, self.high = hop.span


def _set_tracks(gap: list[Hop]) -> None:
    """Order the climbing wires of a gap so that few cross and none overlap."""
    order: list[_Climb] = []
    climbs = [_Climb(hop) for hop in gap if hop.climbs]
    for climb in sorted(climbs, key=lambda c: (c.high - c.low, c.begin)):
        _insert(order, climb)
    for climb in [*order, *order]:
        order.remove(climb)
        _insert(order, climb)
    for k, climb in enumerate(order):
        nearby = [other.hop.track for other in order[:k] if _overlap(climb, other)]
        climb.hop.track = 1 + max(nearby, default=-1)


def _insert(order: list[_Climb], climb: _Climb) -> None:
    """Insert a wire where it costs least among those already placed."""
    changes = (_cost(other, climb) - _cost(climb, other) for other in order)
    costs = list(itertools.accumulate(changes, initial=0.0))
    order.insert(costs.index(min(costs)), climb)


def _overlap(a: _Climb, b: _Climb) -> bool:
    return a.low < b.high + 4 and b.low < a.high + 4


def _cost(left: _Climb, right: _Climb) -> float:
    """The cost of one wire's track left of another's: crossings, and far more for overlaps."""
    if not _overlap(left, right):
        return 0.0
    crossings = float(left.low < right.begin < left.high)
    crossings += sum(right.low < target < right.high for target in left.targets)
    return crossings + 1000 * _on_top(left, right)


def _on_top(left: _Climb, right: _Climb) -> bool:
    climbing = left.hop.climbs and right.hop.climbs
    return climbing and any(abs(right.begin - target) < 3 for target in left.targets)
