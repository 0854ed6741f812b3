"""Diagrams: sound SVG, no boxes on top of each other, every wire attached at both ends, every name in its place."""

import itertools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest

from catalogue import ALL
from from_file import module_of
from tidegate.equations import (
    Cell,
    Graph,
    Input,
    StateVariable,
    Value,
    cell,
    function,
    layer_norm,
    linear,
    sigmoid,
    tanh,
    where,
)
from tidegate.equations.formats.diagram.heights import set_heights
from tidegate.equations.formats.diagram.layers import Layering, end_height
from tidegate.equations.formats.diagram.layout import arrange
from tidegate.equations.formats.diagram.nodes import NodeReader
from tidegate.equations.formats.diagram.step import step_diagram
from tidegate.equations.values import Rate, pointwise
from tidegate.errors import ArgumentError

SVG = "{http://www.w3.org/2000/svg}"
net_diagram = module_of("docs/net.py").net_diagram
Point = tuple[float, float]


@dataclass
class Box:
    left: float
    top: float
    right: float
    bottom: float
    radius: float = 0.0

    def outside(self, point: Point) -> float:
        """The distance of a point from the border, negative within; corners are round."""
        x, y = point
        cx, cy = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        dx = abs(x - cx) - (self.right - self.left) / 2 + self.radius
        dy = abs(y - cy) - (self.bottom - self.top) / 2 + self.radius
        return math.hypot(max(dx, 0), max(dy, 0)) + min(max(dx, dy), 0.0) - self.radius


class Picture:
    """What a reader of the SVG sees."""

    def __init__(self, svg: str) -> None:
        self.root = ET.fromstring(svg)
        rects = list(self.root.iter(SVG + "rect"))
        self.nodes = [box(r) for r in rects if r.get("class", "").startswith("n ")]
        self.frame = next((box(r) for r in rects if r.get("class") == "f"), None)
        self.wires = [points(p.get("d", "")) for p in self.root.iter(SVG + "path") if kinds(p) & {"w"}]
        self.dashed = [points(p.get("d", "")) for p in self.root.iter(SVG + "path") if kinds(p) >= {"w", "k"}]
        self.tips = [points(p.get("d", ""))[0] for p in self.root.iter(SVG + "path") if "a" in kinds(p)]
        self.dots = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in self.root.iter(SVG + "circle")]
        self.names = " ".join(g.get("data-names", "") for g in self.root.iter(SVG + "g")).split()
        self.texts = ["".join(t.itertext()) for t in self.root.iter(SVG + "text")]
        _, _, self.width, self.height = (float(n) for n in self.root.get("viewBox", "").split())


def kinds(element: ET.Element) -> set[str]:
    return set(element.get("class", "").split())


def box(rect: ET.Element) -> Box:
    x, y, w, h = (float(rect.get(k, 0)) for k in ("x", "y", "width", "height"))
    return Box(x, y, x + w, y + h, float(rect.get("rx", 0)))


def points(d: str) -> list[Point]:
    """The corners of a path of M, L and Q (whose end is a point too), without arrow heads."""
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", d.partition("l")[0])]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def near(p: Point, q: Point) -> bool:
    return math.dist(p, q) < 0.6


@pytest.mark.parametrize("name", ALL)
def test_boxes_keep_apart_and_within_the_frame(name: str) -> None:
    picture = Picture(ALL[name].diagram())
    assert picture.frame is not None
    for a, b in itertools.combinations(picture.nodes, 2):
        beside = a.right < b.left or b.right < a.left
        over = a.bottom + 8 < b.top or b.bottom + 8 < a.top
        assert beside or over
    for node in picture.nodes:
        assert picture.frame.left < node.left
        assert node.right < picture.frame.right
        assert picture.frame.top < node.top
        assert node.bottom < picture.frame.bottom
    for x, y in (p for wire in picture.wires for p in wire):
        assert 0 <= x <= picture.width
        assert 0 <= y <= picture.height


@pytest.mark.parametrize("name", ALL)
def test_every_wire_is_attached_at_both_ends(name: str) -> None:
    picture = Picture(ALL[name].diagram())
    assert picture.frame is not None
    ends = [(k, p) for k, wire in enumerate(picture.wires) for p in (wire[0], wire[-1])]
    for k, end in ends:
        at_node = any(abs(node.outside(end)) < 0.6 for node in picture.nodes)
        at_dot = any(near(end, dot) for dot in picture.dots)
        joined = any(j != k and near(end, other) for j, other in ends)
        outside = picture.frame.outside(end) > 3
        assert at_node or at_dot or joined or outside, end


@pytest.mark.parametrize("name", ALL)
def test_arrows_touch_what_they_point_at_and_no_wire_enters_a_box(name: str) -> None:
    picture = Picture(ALL[name].diagram())
    assert picture.frame is not None
    for tip in picture.tips:
        at_node = any(abs(node.outside(tip)) < 0.6 for node in picture.nodes)
        assert at_node or picture.frame.outside(tip) > 3
    for wire in picture.wires:
        for (ax, ay), (bx, by) in itertools.pairwise(wire):
            for t in (0.25, 0.5, 0.75):
                middle = (ax + t * (bx - ax), ay + t * (by - ay))
                assert all(node.outside(middle) > -0.6 for node in picture.nodes)


@pytest.mark.parametrize("name", ALL)
def test_linears_ports_and_named_values_have_their_names(name: str) -> None:
    graph = ALL[name].graph
    picture = Picture(step_diagram(graph))
    for value in graph.values:
        if value.op == "linear":
            assert value.attrs["linear"] in picture.names
    layout = arrange(NodeReader(graph).read())
    ports = [(i.node.kind, i.node.names[0]) for layer in layout.layers for i in layer if i.node and i.node.is_port]
    assert {n for kind, n in ports if kind == "new"} == {s.name for s in graph.states}
    assert {n for kind, n in ports if kind == "old"} == set(graph.old)
    assert {n for kind, n in ports if kind == "input"} == set(graph.input_values)
    assert sum(text.endswith("t−1") for text in picture.texts) == len(graph.old)


@pytest.mark.parametrize("name", ALL)
def test_no_two_wires_lie_on_top_of_each_other(name: str) -> None:
    layout = arrange(NodeReader(ALL[name].graph).read())
    for gap in layout.gaps:
        climbing = [hop for hop in gap if hop.climbs]
        for a, b in itertools.permutations(climbing, 2):
            if a.track == b.track:
                assert a.span[1] < b.span[0] or b.span[1] < a.span[0]
            if a.track < b.track:
                assert all(abs(b.begin - target) > 2 for target in a.targets)


def crossings(layout: Layering) -> int:
    found = 0
    for gap in layout.gaps:
        wires = [(hop.start.rank, end.rank, id(hop.net)) for hop in gap for end, _ in hop.ends]
        pairs = itertools.combinations(wires, 2)
        found += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 and a[2] != b[2] for a, b in pairs)
    return found


def test_the_lstm_is_drawn_as_in_a_textbook() -> None:
    layout = arrange(NodeReader(ALL["shipped lstm"].graph).read())
    old = {i.node.names[0]: i for i in layout.layers[0] if i.node and i.node.kind == "old"}
    new = {i.node.names[0]: i for i in layout.layers[-1] if i.node and i.node.kind == "new"}
    assert old["c"].y < old["h"].y
    assert new["c"].y < new["h"].y
    assert abs(old["c"].y - new["c"].y) < 15  # the cell's state runs straight, but for the width of two inlets
    gates = [i for i in layout.layers[1] if i.node and i.node.kind == "gate"]
    assert len(gates) == 4
    # x meets h before each gate, in one way or the other; nothing else crosses
    assert crossings(layout) <= 6


def test_heights_do_not_depend_on_where_they_start() -> None:
    layout = arrange(NodeReader(ALL["shipped lstm_peephole"].graph).read())
    first = sum(hop.span[1] - hop.span[0] for gap in layout.gaps for hop in gap)
    for layer in layout.layers:
        for item in layer:
            item.y *= -3
    set_heights(layout)
    assert sum(hop.span[1] - hop.span[0] for gap in layout.gaps for hop in gap) == pytest.approx(first, rel=0.1)
    for layer in layout.layers:
        for above, below in itertools.pairwise(layer):
            assert below.y - above.y > (below.height + above.height) / 2 + 10


def test_wires_meet_a_node_in_the_order_in_which_they_come() -> None:
    layout = arrange(NodeReader(ALL["shipped lstm_full_gate_recurrence"].graph).read())
    for gap in layout.gaps:
        ends = [(end, end_height(end, k), hop.start.rank) for hop in gap for end, k in hop.ends if k is not None]
        for end in {end for end, *_ in ends}:
            ranks = [rank for e, _, rank in sorted(ends, key=lambda e: e[1]) if e is end]
            assert ranks == sorted(ranks)


def test_what_is_one_node() -> None:
    @function
    def shrink(v: Value) -> Value:
        return v * sigmoid(abs(v))

    @cell(states="h | n:1", source="none")
    def made_up(x, h, n, *, rate=0.5):
        a, b = layer_norm("ln", linear("a", x, bias=None), linear("b", h, bias=None))
        g = sigmoid(linear("g", x, h))
        new = a + b + shrink(h) - g * tanh(b) * h
        h = where(n > 2, rate * h, h) / new
        return h, n + 1

    drawing = NodeReader(made_up.graph).read()
    shown = sorted((n.kind, "|".join("".join(r.text for r in part) for part in n.parts)) for n in drawing.nodes)
    assert shown == [
        ("box", "+ 1"),
        ("box", "> 2"),
        ("box", "choose"),
        ("box", "tanh"),
        ("box", "× rate"),
        ("call", "layer normln"),
        ("call", "shrink"),
        ("circle", "+"),
        ("circle", "⊙"),
        ("circle", "⊙"),
        ("gate", "Wg|σ"),
        ("input", "xt"),
        ("linear", "Ub"),
        ("linear", "Wa"),
        ("old", "ht−1"),
        ("old", "nt−1"),
    ]
    marks = {n.parts[0][0].text: [i.mark for i in n.inlets] for n in drawing.nodes if any(i.mark for i in n.inlets)}
    assert marks == {"choose": ["if", "then", "else"], "+": ["", "", "", "−"], "⊙": ["", "1/"]}


def test_bookkeeping_is_dashed_and_nothing_else() -> None:
    picture = Picture(ALL["hard clockwork"].diagram())
    assert 0 < len(picture.dashed) < len(picture.wires)
    assert not Picture(ALL["shipped lstm"].diagram()).dashed


def hostile(text: str) -> Graph:
    x = Value("input", (), ("H",), Rate.INPUT, name=text)
    h = Value("old", (), ("H",), Rate.STATE, name=text)
    root = pointwise("add", x, h)
    root.name, root.legend = text, text
    return Graph(
        name=text,
        source=text,
        doc=text,
        options={},
        symbols={},
        inputs=(Input(text, ("H",)),),
        states=(StateVariable(text, ("H",)),),
        output=root,
        output_name=text,
        new={text: root},
        weights={},
        inits={},
    )


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "]]>&amp;</svg>", "a\x00b\ud800\x1b", "__"]
)
def test_hostile_names_stay_text(text: str) -> None:
    for svg in (step_diagram(hostile(text)), net_diagram(text, 2, True)):
        root = ET.fromstring(svg)
        allowed = {
            SVG + tag for tag in ("svg", "title", "desc", "style", "g", "rect", "path", "circle", "text", "tspan")
        }
        assert {element.tag for element in root.iter()} <= allowed
        assert all("onerror" not in element.attrib for element in root.iter())


def test_title_and_description_say_what_is_drawn() -> None:
    root = ET.fromstring(ALL["shipped lstm"].diagram())
    assert root.get("role") == "img"
    assert root.findtext(SVG + "title") == "One step of lstm"
    assert root.findtext(SVG + "desc") == (
        "Data flow from the inputs x and the old states h, c to the output h and the new states, "
        "by way of i, f, g, o, c, h."
    )


def test_the_same_drawing_in_every_process() -> None:
    program = (
        "import hashlib\nfrom tidegate.cells import CELLS\n"
        "print(hashlib.sha256(''.join(c.diagram() + c.latex() for c in CELLS.values()).encode()).hexdigest())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1


def test_a_large_cell_is_drawn() -> None:
    deep: Cell = ALL["hard recurrent_highway"](depth=12)
    picture = Picture(deep.diagram())
    assert len(picture.nodes) > 60


# ------------------------------------------------------------------------------------------------- nets
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("layers", "steps"), [(1, 1), (1, 4), (3, 4), (2, 7)])
def test_a_net_has_a_box_for_each_layer_direction_and_step(layers: int, steps: int, bidirectional: bool) -> None:
    picture = Picture(net_diagram("gru", layers, bidirectional, steps))
    joins = layers * steps if bidirectional else 0
    assert picture.names == ["gru"] * (layers * steps * (2 if bidirectional else 1))
    assert len(picture.nodes) == len(picture.names) + joins
    for a, b in itertools.combinations(picture.nodes, 2):
        assert a.right < b.left or b.right < a.left or a.bottom < b.top or b.bottom < a.top
    for x, y in (p for wire in picture.wires for p in wire):
        assert 0 < x < picture.width
        assert 0 < y < picture.height
    times = [str(k + 1) for k in range(steps - 1)] + ["T" if steps > 1 else "1"]
    assert [t for t in picture.texts if t.startswith("x")] == ["x" + time for time in times]
    assert [t for t in picture.texts if t.startswith("y")] == ["y" + time for time in times]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_arrows_of_a_net_touch_boxes_or_lead_out(bidirectional: bool) -> None:
    picture = Picture(net_diagram("lstm", 2, bidirectional, 3))
    touching = sum(any(abs(node.outside(tip)) < 0.6 for node in picture.nodes) for tip in picture.tips)
    ends = 2 * (2 if bidirectional else 1) + 3  # a state's end for each layer and direction, an output for each step
    assert len(picture.tips) - touching == ends


def test_a_net_needs_layers_and_steps() -> None:
    with pytest.raises(ArgumentError) as error:
        net_diagram("lstm", 0, False)
    assert str(error.value) == "net_diagram: num_layers must be 1 or more, got 0"
    with pytest.raises(ArgumentError) as error:
        net_diagram("lstm", 1, False, 0)
    assert str(error.value) == "net_diagram: steps must be 1 or more, got 0"
