"""Places the items of a diagram in layers from left to right and routes the wires between layers.

A node stands in the layer after its latest operand, or further right where that makes the wires shorter; a wire that
passes a layer has a place in it."""

import itertools
from dataclasses import dataclass, field

from tidegate.equations.formats.diagram.nodes import Drawing, Node, Wiring

LEVEL = 0.05  # a wire that climbs less is straight


@dataclass(eq=False)
class Item:
    """A place in a layer: a node, or a wire passing through."""

    layer: int
    node: Node | None = None
    net: Wiring | None = None
    y: float = 0.0
    rank: int = 0

    @property
    def height(self) -> float:
        """The height of the item, in pixels."""
        return self.node.height if self.node else 0.0

    def outlet(self, net: Wiring) -> float:
        """The height at which the wire leaves on the right."""
        return self.y + (self.node.outlet_offset(net) if self.node else 0.0)


@dataclass(eq=False)
class Hop:
    """A wire within one gap, from one item to items of the next layer, by inlet (None: the wire continues)."""

    net: Wiring
    start: Item
    ends: list[tuple[Item, int | None]]
    track: int = 0

    @property
    def begin(self) -> float:
        """The height at which the hop starts."""
        return self.start.outlet(self.net)

    @property
    def targets(self) -> list[float]:
        """The heights at which the hop ends, from the top."""
        return sorted(end_height(item, inlet) for item, inlet in self.ends)

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and highest height of the hop."""
        heights = [self.begin, *self.targets]
        return min(heights), max(heights)

    @property
    def climbs(self) -> bool:
        """Whether the hop needs a vertical track."""
        low, high = self.span
        return high - low > LEVEL


def end_height(item: Item, inlet: int | None) -> float:
    """The height at which a wire meets an item."""
    return item.y + (item.node.inlet_offset(inlet) if item.node and inlet is not None else 0.0)


@dataclass
class Layering:
    """Layers of items from left to right, the hops in the gap after each layer, and the routes of the states."""

    layers: list[list[Item]]
    gaps: list[list[Hop]] = field(default_factory=list)
    spines: set[tuple[Item, Item]] = field(default_factory=set)


def into_layers(drawing: Drawing) -> Layering:
    """Put each node into a layer and route each wire through the layers it crosses."""
    level: dict[Node, int] = {}
    for node in drawing.nodes:
        level[node] = 0 if node.is_port else 1 + max((level[i.net.source] for i in node.inlets), default=0)
    ends = dict.fromkeys([*drawing.new, drawing.output])
    last = 1 + max(level.values(), default=0)
    level |= dict.fromkeys(ends, last)
    _shorten(level, last)
    layout = Layering([[] for _ in range(last + 1)])
    items: dict[Node, Item] = {}
    for node, layer in level.items():
        items[node] = Item(layer, node)
        layout.layers[layer].append(items[node])
    layout.gaps = [[] for _ in range(last)]
    users = _users(level)
    for net, inlets in users.items():
        _thread(layout, items, net, inlets)
    layout.spines = _spines(layout)
    return layout


def _users(level: dict[Node, int]) -> dict[Wiring, list[tuple[Node, int]]]:
    users: dict[Wiring, list[tuple[Node, int]]] = {}
    for node in level:
        for k, inlet in enumerate(node.inlets):
            users.setdefault(inlet.net, []).append((node, k))
    return users


def _shorten(level: dict[Node, int], last: int) -> None:
    """Move nodes to the right while that shortens the wires in total."""
    users = _users(level)

    def reach(net: Wiring) -> int:
        return max((level[node] for node, _ in users.get(net, ())), default=level[net.source]) - level[net.source]

    def length(node: Node) -> int:
        return sum(map(reach, {*(i.net for i in node.inlets), *node.outlets}))

    for node in sorted((n for n in level if not n.is_port), key=lambda n: -level[n]):
        limit = min((level[user] for net in node.outlets for user, _ in users.get(net, ())), default=last)
        best, least = level[node], length(node)
        for layer in range(level[node] + 1, limit):
            level[node] = layer
            if length(node) < least:
                best, least = layer, length(node)
        level[node] = best


def _thread(layout: Layering, items: dict[Node, Item], net: Wiring, users: list[tuple[Node, int]]) -> None:
    """Route a wire through the layers between its source and its users."""
    at = items[net.source]
    last = max(items[node].layer for node, _ in users)
    for layer in range(at.layer + 1, last + 1):
        ends: list[tuple[Item, int | None]] = [(items[n], k) for n, k in users if items[n].layer == layer]
        passing = Item(layer, net=net) if layer < last else None
        if passing:
            layout.layers[layer].append(passing)
            ends.append((passing, None))
        layout.gaps[layer - 1].append(Hop(net, at, ends))
        at = passing or at


def _spines(layout: Layering) -> set[tuple[Item, Item]]:
    """The edges on the shortest path from each old state to its new one."""
    onward: dict[Item, list[Item]] = {}
    for hop in itertools.chain(*layout.gaps):
        onward.setdefault(hop.start, []).extend(end for end, _ in hop.ends)
    found: set[tuple[Item, Item]] = set()
    for start in layout.layers[0]:
        ways: dict[Item, tuple[int, list[Item]]] = {start: (0, [start])}
        for layer in layout.layers[:-1]:
            for item in layer:
                if item in ways:
                    _extend(ways, item, onward.get(item, []))
        for item in layout.layers[-1]:
            if item in ways and start.node and item.node and start.node.names == item.node.names:
                found |= set(itertools.pairwise(ways[item][1]))
    return found


def _extend(ways: dict[Item, tuple[int, list[Item]]], item: Item, ends: list[Item]) -> None:
    passed, way = ways[item]
    for end in ends:
        cost = passed + (end.node is not None)
        if end not in ways or cost < ways[end][0]:
            ways[end] = (cost, [*way, end])
