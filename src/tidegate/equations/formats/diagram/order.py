"""Orders the items within each layer: barycentres and exchanges of neighbours, from several starts."""

import itertools
import math
import random

from tidegate.equations.formats.diagram.layers import Hop, Item, Layering
from tidegate.equations.formats.diagram.nodes import Drawing, Inlet, Wiring

_SWEEPS = 8
_STARTS = 12  # fewer for drawings so large that nobody counts their crossings


def set_order(layout: Layering, drawing: Drawing) -> None:
    """Order items to minimise crossings; ports keep their order, with the first state lowest and inputs below it.

    Sweeps find the best order near the one they start from, so they start from several, always the same ones.
    """
    _fix_ports(layout, drawing)
    chance = random.Random(0)
    best, least = [list(layer) for layer in layout.layers], math.inf
    for start in range(max(1, min(_STARTS, 3000 // sum(map(len, layout.layers))))):
        for layer in layout.layers[1:-1]:
            if start:
                chance.shuffle(layer)
        for layer in layout.layers:
            _number(layer)
        found, crossings = _improved(layout)
        if crossings < least:
            best, least = found, crossings
        if not least:
            break
    layout.layers = best
    for layer in layout.layers:
        _number(layer)


def _improved(layout: Layering) -> tuple[list[list[Item]], int]:
    best, least = [list(layer) for layer in layout.layers], _all_crossings(layout)
    for sweep in range(_SWEEPS):
        _sweep(layout, down=sweep % 2 == 0)
        _exchange(layout)
        crossings = _all_crossings(layout)
        if crossings < least:
            best, least = [list(layer) for layer in layout.layers], crossings
    return best, least


def _fix_ports(layout: Layering, drawing: Drawing) -> None:
    def place(item: Item) -> tuple[int, int]:
        node = item.node
        if node is None or not node.is_port:
            return (1, 0)
        if node.kind == "new":
            return (1, -drawing.new.index(node))
        if node.kind == "old":
            return (1, -drawing.nodes.index(node))
        return (0, 0) if node.kind == "output" else (2, drawing.nodes.index(node))

    layout.layers[0].sort(key=place)
    layout.layers[-1].sort(key=place)


def _number(layer: list[Item]) -> None:
    for rank, item in enumerate(layer):
        item.rank = rank


def _sweep(layout: Layering, *, down: bool) -> None:
    count = len(layout.layers)
    for k in range(1, count - 1) if down else range(count - 2, 0, -1):
        layer, gap = layout.layers[k], layout.gaps[k - 1 if down else k]
        centres: dict[Item, list[float]] = {item: [] for item in layer}
        for hop in gap:
            for end, _ in hop.ends:
                here, there = (end, hop.start) if down else (hop.start, end)
                centres[here].append(there.rank)
        means = {i: sum(c) / len(c) if c else float(i.rank) for i, c in centres.items()}
        layer.sort(key=lambda item: (means[item], item.rank))
        _number(layer)


def _exchange(layout: Layering) -> None:
    """Swap neighbours while that removes crossings."""
    for k in range(1, len(layout.layers) - 1):
        layer, near = layout.layers[k], _neighbours(layout, k)
        improved = True
        while improved:
            improved = False
            for a, b in itertools.pairwise(range(len(layer))):
                one, two = layer[a], layer[b]
                if sum(_pair(side, two, one) - _pair(side, one, two) for side in near) < 0:
                    layer[a], layer[b] = two, one
                    _number(layer)
                    improved = True


_Wire = tuple[int, Wiring, bool]
_Near = dict[Item, list[_Wire]]


def _neighbours(layout: Layering, k: int) -> tuple[_Near, _Near]:
    """For each item of a layer its wires to the layers before and after: rank of the other end, net, and whether it is
    on a state's route."""
    before: _Near = {}
    after: _Near = {}
    for hop in layout.gaps[k - 1]:
        for end, _ in hop.ends:
            before.setdefault(end, []).append((hop.start.rank, hop.net, (hop.start, end) in layout.spines))
    for hop in layout.gaps[k]:
        wires = [(end.rank, hop.net, (hop.start, end) in layout.spines) for end, _ in hop.ends]
        after.setdefault(hop.start, []).extend(wires)
    return before, after


def _pair(near: _Near, upper: Item, lower: Item) -> int:
    """The crossings between the wires of two items of a layer, on one side, if `upper` is above `lower`."""
    pairs = itertools.product(near.get(upper, ()), near.get(lower, ()))
    return sum(_crossing(v, w) for (a, m, v), (b, n, w) in pairs if a > b and m is not n)


def _all_crossings(layout: Layering) -> int:
    found = 0
    for gap in layout.gaps:
        wires = [(h.start.rank, e.rank, h.net, (h.start, e) in layout.spines) for h in gap for e, _ in h.ends]
        for a, b in itertools.combinations(wires, 2):
            if (a[0] - b[0]) * (a[1] - b[1]) < 0 and a[2] is not b[2]:
                found += _crossing(a[3], b[3])
    return found


def _crossing(one: bool, two: bool) -> int:
    """The cost of a crossing: high where the routes of two states cross, since neither can then be straight."""
    return 9 if one and two else 1


def sort_inlets(layout: Layering) -> None:
    """Sort a node's inlets in the order in which wires arrive, and the ends of the hops with them."""
    for gap in layout.gaps:
        arriving: dict[Item, list[tuple[int, int, Hop, int]]] = {}
        for hop in gap:
            for place, (end, inlet) in enumerate(hop.ends):
                if inlet is not None:
                    arriving.setdefault(end, []).append((hop.start.rank, inlet, hop, place))
        for end, wires in arriving.items():
            assert end.node is not None
            before: list[Inlet] = list(end.node.inlets)
            for new, (_, old, hop, place) in enumerate(sorted(wires, key=lambda w: w[:2])):
                end.node.inlets[new] = before[old]
                hop.ends[place] = (end, new)
