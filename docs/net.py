"""Draws a whole net for the pages: stacked layers, unrolled over time, in one direction or both."""

from tidegate.equations.formats.diagram import labels as text
from tidegate.equations.formats.diagram.svg import ARROW, Way, arrow, document, dot, rectangle, wire
from tidegate.errors import ArgumentError

_BOX = 30.0
_FONT = 13.0
_LEFT, _RIGHT, _TOP = 92.0, 46.0, 40.0


def net_diagram(cell_name: str, num_layers: int, bidirectional: bool, steps: int = 4) -> str:
    """Draw the unrolled net as SVG: time to the right, layers upwards, states along the layers.

    The first `steps - 1` columns are the first steps, the last one is step T. Raises ArgumentError if `num_layers` or
    `steps` is below 1.
    """
    for name, number in (("num_layers", num_layers), ("steps", steps)):
        if number < 1:
            raise ArgumentError(f"net_diagram: {name} must be 1 or more, got {number}")
    net = _Net(cell_name, num_layers, bidirectional, steps)
    directions = "in both directions" if bidirectional else "forward in time"
    layers = "1 layer" if num_layers == 1 else f"{num_layers} layers"
    about = f"{layers} of {cell_name}, each reading {directions}; every layer reads the outputs of the one below."
    return document(net.width, net.height, net.body(), f"The net of {cell_name} unrolled over time", about)


class _Net:
    """The measures of a net and its strokes. Columns are numbered from 0, layers from 0 at the bottom."""

    def __init__(self, cell: str, layers: int, both: bool, steps: int) -> None:
        self.cell, self.layers, self.both, self.steps = cell, layers, both, steps
        self.label = text.plain(cell if len(cell) <= 14 else cell[:13] + "…")
        self.box = max(52.0, text.width(self.label, _FONT) + 14.0)
        self.apart = max(self.box / 2 - 4, 36.0)  # from the middle of a column to that of each of its two cells
        self.pitch = 2 * self.apart + self.box + 40.0 if both else self.box + 46.0
        self.rise = 150.0 if both else 72.0
        self.bottom = _TOP + 24.0 + self.rise * layers
        self.width = _LEFT + self.pitch * steps + _RIGHT
        self.height = self.bottom + 30.0

    def body(self) -> str:
        """All elements."""
        columns = range(self.steps)
        parts = [self._input(k) + self._output(k) for k in columns]
        for layer in range(self.layers):
            y = self._level(layer) - (62.0 if self.both else 36.0)
            parts.append(text.svg(text.plain(f"layer {layer + 1}"), _LEFT - 30, y + 4, 12.0, anchor="end", css="m"))
            parts += [self._pair(layer, k) if self.both else self._one(layer, k) for k in columns]
        return "".join(parts)

    def _x(self, column: int) -> float:
        return _LEFT + self.pitch * (column + 0.5)

    def _level(self, layer: int) -> float:
        """The height at which a layer's inputs arrive."""
        return self.bottom - self.rise * layer

    def _time(self, column: int) -> str:
        return "T" if column == self.steps - 1 and self.steps > 1 else str(column + 1)

    def _input(self, column: int) -> str:
        return text.svg(text.name("x", self._time(column)), self._x(column), self.bottom + 18, _FONT)

    def _output(self, column: int) -> str:
        x, y = self._x(column), self._level(self.layers)
        tip = wire([(x, y), (x, y - 10)]) + arrow(x, y - 10 - ARROW, "up")
        return tip + text.svg(text.name("y", self._time(column)), x, y - 24, _FONT)

    def _cell(self, x: float, y: float) -> str:
        shape = rectangle("n linear", x - self.box / 2, y - _BOX / 2, self.box, _BOX, 5.0)
        return f'<g data-names="{text.escape(self.cell)}">{shape}{text.svg(self.label, x, y + 4.5, _FONT)}</g>'

    def _one(self, layer: int, column: int) -> str:
        x, level = self._x(column), self._level(layer)
        y = level - 36.0
        up = wire([(x, level), (x, y + _BOX / 2 + ARROW)]) + arrow(x, y + _BOX / 2, "up")
        out = wire([(x, y - _BOX / 2), (x, level - self.rise)])
        return up + out + self._cell(x, y) + self._onward(column, x, y, 1)

    def _pair(self, layer: int, column: int) -> str:
        """The forward cell to the lower left, the backward cell to the upper right, and the join of their outputs."""
        x, level = self._x(column), self._level(layer)
        forward, backward = (x - self.apart, level - 42.0), (x + self.apart, level - 88.0)
        wide = self.apart + self.box / 2 - 10
        entry, beside, leave = level - 10.0, x + wide, x - wide
        top, merge = backward[1] - _BOX / 2, level - self.rise + 18.0
        parts = [
            wire([(x, level), (x, entry), (forward[0], entry), (forward[0], forward[1] + _BOX / 2 + ARROW)]),
            wire([(x, entry), (beside, entry), (beside, backward[1] + _BOX / 2 + ARROW)]),
            dot(x, entry),
            arrow(forward[0], forward[1] + _BOX / 2, "up") + arrow(beside, backward[1] + _BOX / 2, "up"),
            wire([(leave, forward[1] - _BOX / 2), (leave, merge), (x - 17 - ARROW, merge)]),
            wire([(backward[0], top), (backward[0], merge), (x + 17 + ARROW, merge)]),
            arrow(x - 17, merge) + arrow(x + 17, merge, "left"),
            rectangle("n circle", x - 17, merge - 9, 34.0, 18.0, 9.0),
            text.svg(text.plain("join"), x, merge + 4, 11.0),
            wire([(x, merge - 9), (x, level - self.rise)]),
            self._cell(*forward) + self._cell(*backward),
            self._onward(column, *forward, 1) + self._onward(column, *backward, -1),
        ]
        return "".join(parts)

    def _onward(self, column: int, x: float, y: float, way: int) -> str:
        """The wire of a state to the next step, from the start at the first step and to the end at the last."""
        half, last = self.box / 2, self.steps - 1
        first, final = (0, last) if way > 0 else (last, 0)
        head: Way = "right" if way > 0 else "left"
        gap = self.pitch - self.box
        stop = x + way * (half + (gap if column != final else 24.0))
        skips = last > 0 and (column == last - 1 if way > 0 else column == last)
        parts = [wire([(x + way * half, y), (stop - way * ARROW, y)], dashed=skips), arrow(stop, y, head)]
        if column == first:
            start = x - way * half
            parts.append(wire([(start - way * 24.0, y), (start - way * ARROW, y)]) + arrow(start, y, head))
        return "".join(parts)
