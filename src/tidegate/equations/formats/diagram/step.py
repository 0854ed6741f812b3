"""Draws one step of a cell as SVG, without dependencies.

Old states come in on the left and new ones leave on the right, the first state lowest; inputs enter from below and the
output leaves at the top. A wire is dashed where it carries a bookkeeping state. The drawing takes its ink from the
page's text colour, and its tints from `--tg-*` colours where the page sets them.
"""

import math
from dataclasses import dataclass

from tidegate.equations.formats.diagram import labels as text
from tidegate.equations.formats.diagram.layers import LEVEL, Hop, Item, Layering, end_height
from tidegate.equations.formats.diagram.layout import arrange
from tidegate.equations.formats.diagram.nodes import FONT, Drawing, Node, NodeReader
from tidegate.equations.formats.diagram.svg import ARROW, arrow, document, dot, rectangle, wire
from tidegate.equations.graph import Graph

_LABEL = 12.0
_TRACK = 9.0
_MARGIN = 24.0
_STEM = 16.0


def step_diagram(graph: Graph) -> str:
    """Draw one time step of the graph as SVG."""
    drawing = NodeReader(graph).read()
    picture = _Picture(drawing, arrange(drawing))
    states = ", ".join(s.name for s in graph.states)
    inputs = ", ".join(i.name for i in graph.inputs)
    named = ", ".join(v.label for v in graph.values if v.label and not v.is_leaf and "." not in v.label)
    about = (
        f"Data flow from the inputs {inputs} and the old states {states} to the output {graph.output_name} "
        f"and the new states, by way of {named}."
    )
    return document(picture.width, picture.height, picture.body(), f"One step of {graph.name}", about)


@dataclass(frozen=True)
class _Column:
    """The horizontal extent of a layer."""

    left: float
    right: float

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


class _Picture:
    """A layout being drawn."""

    def __init__(self, drawing: Drawing, layout: Layering) -> None:
        self.drawing, self.layout = drawing, layout
        items = [item for layer in layout.layers for item in layer]
        top = min(i.y - i.height / 2 for i in items) - _MARGIN
        bottom = max(i.y + i.height / 2 for i in items) + _MARGIN
        ports = [n.parts[0] for n in [*drawing.nodes, *drawing.new] if n.is_port]
        self.side = 16.0 + ARROW + max(text.width(label, FONT) for label in ports)
        self.shift = 30.0 - top
        for item in items:
            item.y += self.shift
        self.top, self.bottom = 30.0, bottom + self.shift
        self.columns = self._place_columns()
        self.right = self.columns[-1].right
        self.width, self.height = self.right + self.side, self.bottom + 34.0

    def _place_columns(self) -> list[_Column]:
        columns, x = [], self.side
        stems = _STEM * sum(i.node is not None and i.node.kind == "input" for i in self.layout.layers[0])
        for k, layer in enumerate(self.layout.layers):
            wide = max((i.node.width for i in layer if i.node), default=0.0)
            wide = (stems if k == 0 else _STEM + 4) if k in (0, len(self.layout.layers) - 1) else wide
            columns.append(_Column(x, x + wide))
            if k < len(self.layout.gaps):
                x += wide + self._gap_width(k)
        return columns

    def _gap_width(self, k: int) -> float:
        tracks = max((hop.track for hop in self.layout.gaps[k]), default=0)
        return self._before_tracks(k) + _TRACK * tracks + self._after_tracks(k)

    def _before_tracks(self, k: int) -> float:
        """Width for the labels on the wires that start here."""
        labels = [hop.net.label for hop in self.layout.gaps[k] if hop.start.node and hop.net.label]
        return 10.0 + max((text.width(label, _LABEL) + 2 for label in labels), default=0.0)

    def _after_tracks(self, k: int) -> float:
        """Width for the arrows and the signs beside them."""
        nodes = [item.node for item in self.layout.layers[k + 1] if item.node]
        marks = [text.width(text.plain(inlet.mark), 10.0) for node in nodes for inlet in node.inlets]
        return 6.0 + ARROW + max(marks, default=0.0)

    def body(self) -> str:
        """All elements, with wires below nodes."""
        frame = rectangle("f", self.side, self.top, self.right - self.side, self.bottom - self.top, 12.0)
        wires = [self._hop(k, hop) for k, gap in enumerate(self.layout.gaps) for hop in gap]
        passing = [self._passing(item) for layer in self.layout.layers for item in layer if item.net]
        nodes = [self._node(item) for layer in self.layout.layers for item in layer if item.node]
        return "".join([frame, *wires, *passing, *nodes, self._output()])

    # --------------------------------------------------------------------------------------------- wires
    def _hop(self, k: int, hop: Hop) -> str:
        """A trunk to the highest and lowest targets, with a dot where it branches to those between."""
        start, begin = self._leaves(hop), hop.begin
        track = self.columns[k].right + self._before_tracks(k) + _TRACK * hop.track
        ends = sorted(((end_height(*end), self._meets(*end)) for end in hop.ends), key=lambda e: e[0])
        above, below = [e for e in ends if e[0] < begin - LEVEL], [e for e in ends if e[0] > begin + LEVEL]
        level = [e for e in ends if abs(e[0] - begin) <= LEVEL]
        ways = [*above[:1], *below[-1:], *level[:1]]
        parts = []
        for n, (y, stop) in enumerate(ways):
            first = (start, begin) if n == 0 else (track, begin)
            parts.append(wire([first, (track, begin), (track, y), (stop, y)], dashed=hop.net.bookkeeping))
        between = [*above[1:], *below[:-1]]
        parts += [wire([(track, y), (stop, y)], dashed=hop.net.bookkeeping) for y, stop in between]
        dots = [y for y, _ in between] + [begin] * (len(ways) > 1)
        parts += [dot(track, y) for y in dots]
        parts += [self._tip(end, inlet) for end, inlet in hop.ends]
        if hop.start.node and hop.net.label:
            above_wire = 6 if any(run.place == "sub" for run in hop.net.label) else 4
            parts.append(text.svg(hop.net.label, start + 4, begin - above_wire, _LABEL, anchor="start"))
        return "".join(parts)

    def _tip(self, end: Item, inlet: int | None) -> str:
        """The arrow head at a node and the sign beside it."""
        if end.node is None or inlet is None or end.node.is_port:
            return ""
        x, y, mark = self._meets(end, inlet), end_height(end, inlet), end.node.inlets[inlet].mark
        sign = text.svg(text.plain(mark), x - ARROW - 1, y - 3, 10.0, anchor="end", css="m") if mark else ""
        return arrow(x, y) + sign

    def _leaves(self, hop: Hop) -> float:
        """The x coordinate where a hop starts."""
        node, column = hop.start.node, self.columns[hop.start.layer]
        if node is None:
            return column.right
        if node.kind == "input":
            return self._stem(hop.start)
        if node.kind == "old":
            return column.left
        return column.middle + _edge(node, node.outlet_offset(hop.net))

    def _meets(self, end: Item, inlet: int | None) -> float:
        """The x coordinate where a hop ends."""
        column = self.columns[end.layer]
        if end.node is None or inlet is None or end.node.is_port:
            return column.left
        return column.middle - _edge(end.node, end.node.inlet_offset(inlet))

    def _passing(self, item: Item) -> str:
        assert item.net is not None
        column = self.columns[item.layer]
        return wire([(column.left, item.y), (column.right, item.y)], dashed=item.net.bookkeeping)

    # --------------------------------------------------------------------------------------------- nodes and ports
    def _node(self, item: Item) -> str:
        node = item.node
        assert node is not None
        if node.kind == "old":
            return self._old(item, node)
        if node.kind == "input":
            return self._input(item, node)
        if node.kind == "new":
            return self._new(item, node)
        return "" if node.kind == "output" else _box(node, self.columns[item.layer].middle, item.y)

    def _old(self, item: Item, node: Node) -> str:
        label = text.svg(node.parts[0], self.side - 12, item.y + 4, FONT, anchor="end")
        points = [(self.side - 8, item.y), (self.columns[0].left, item.y)]
        return label + wire(points, dashed=node.outlets[0].bookkeeping)

    def _stem(self, item: Item) -> float:
        inputs = [i for i in self.layout.layers[0] if i.node and i.node.kind == "input"]
        return self.columns[0].left + _STEM * (inputs.index(item) + 0.75)

    def _input(self, item: Item, node: Node) -> str:
        x = self._stem(item)
        label = text.svg(node.parts[0], x, self.bottom + 24, FONT)
        return label + wire([(x, self.bottom + 10), (x, item.y)], dashed=node.outlets[0].bookkeeping)

    def _new(self, item: Item, node: Node) -> str:
        points = [(self.columns[-1].left, item.y), (self.right + 6, item.y)]
        onward = wire(points, dashed=node.inlets[0].net.bookkeeping)
        label = text.svg(node.parts[0], self.right + 9 + ARROW, item.y + 4, FONT, anchor="start")
        return onward + arrow(self.right + 6 + ARROW, item.y) + label

    def _output(self) -> str:
        """The wire up to the output, from its own value or branching off its state's wire."""
        x, end = self.columns[-1].left + _STEM / 2 + 2, self.drawing.output
        y = next(item.y for item in self.layout.layers[-1] if item.node is end)
        start = (x, y) if end.kind == "new" else (self.columns[-1].left, y)
        onward = wire([start, (x, y), (x, self.top - 4)], dashed=end.inlets[0].net.bookkeeping)
        tip = arrow(x, self.top - 4 - ARROW, "up") + text.svg(end.parts[0], x, self.top - 15, FONT)
        return onward + tip + (dot(x, y) if end.kind == "new" else "")


def _edge(node: Node, offset: float) -> float:
    """The distance from a node's middle to its border at a height of `offset` (nodes have round corners)."""
    radius = _radius(node)
    deep = max(0.0, abs(offset) - (node.height / 2 - radius))
    return node.width / 2 - radius + math.sqrt(radius**2 - min(deep, radius) ** 2)


def _radius(node: Node) -> float:
    return {"circle": 12.0, "box": 9.0}.get(node.kind, 4.0)


def _box(node: Node, x: float, y: float) -> str:
    left, top = x - node.width / 2, y - node.height / 2
    shape = rectangle(f"n {node.kind}", left, top, node.width, node.height, _radius(node))
    parts, at = [], left
    widths = node.part_widths if len(node.parts) > 1 else [node.width]
    for k, (part, wide) in enumerate(zip(node.parts, widths, strict=True)):
        if k:
            parts.append(f'<path class="s" d="M{at:.5g} {top:.5g}v{node.height:.5g}"/>')
        parts.append(text.svg(part, at + wide / 2, y + 4.5, FONT))
        at += wide
    title = f"<title>{text.escape(node.title)}</title>" if node.title else ""
    names = text.escape(" ".join(node.names))
    return f'<g data-names="{names}">{title}{shape}{"".join(parts)}</g>'
