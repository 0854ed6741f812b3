"""SVG elements that diagrams are drawn with."""

from typing import Literal

from tidegate.equations.formats.diagram import labels as text

ARROW = 7.0
_CORNER = 5.0
_HEADS = {"right": "l-{0} -3v6z", "left": "l{0} -3v6z", "up": "l-3 {0}h6z"}

Point = tuple[float, float]
Way = Literal["right", "left", "up"]

_STYLE = (
    ".tg-d{color:var(--tg-ink,#1c2329);font-family:'Latin Modern Math','STIX Two Text','Cambria Math',Cambria,Georgia,"
    "'Times New Roman','DejaVu Serif',serif}"
    "@media screen and (prefers-color-scheme:dark){.tg-d{color:var(--tg-ink,#e4e8eb)}}"
    ".tg-d text{fill:currentColor}.tg-d .w{fill:none;stroke:currentColor;stroke-width:1.15;stroke-linejoin:round}"
    ".tg-d .k{stroke-dasharray:4 3}.tg-d .a,.tg-d .j{fill:currentColor}"
    ".tg-d .f{fill:none;stroke:currentColor;stroke-opacity:.35;stroke-width:1.2}"
    ".tg-d .n{stroke:currentColor;stroke-width:1.1;fill-opacity:.2}.tg-d .s{stroke:currentColor;stroke-opacity:.45}"
    ".tg-d .linear,.tg-d .gate{fill:var(--tg-blue,#0072b2)}.tg-d .circle,.tg-d .box{fill:var(--tg-orange,#d99000)}"
    ".tg-d .call{fill:var(--tg-green,#009e73)}.tg-d .weights{fill:var(--tg-grey,#7f8a94)}.tg-d .m{opacity:.8}"
)


def document(width: float, height: float, body: str, title: str, description: str) -> str:
    """An SVG element around a body; on a page it may shrink, to no less than three quarters of its size."""
    size = f'viewBox="0 0 {width:.5g} {height:.5g}" width="{width:.5g}" height="{height:.5g}"'
    shrink = f"max-width:100%;min-width:{0.75 * width:.5g}px;height:auto"
    names = f"<title>{text.escape(title)}</title><desc>{text.escape(description)}</desc>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="tg-d" role="img" style="{shrink}">'
    return f"{head}{names}<style>{_STYLE}</style>{body}</svg>"


def rectangle(css: str, left: float, top: float, width: float, height: float, radius: float) -> str:
    """A box with round corners."""
    at = f'x="{left:.5g}" y="{top:.5g}" width="{width:.5g}" height="{height:.5g}"'
    return f'<rect class="{css}" {at} rx="{radius:g}"/>'


def dot(x: float, y: float) -> str:
    """The dot where a wire branches."""
    return f'<circle class="j" cx="{x:.5g}" cy="{y:.5g}" r="2.2"/>'


def arrow(x: float, y: float, way: Way = "right") -> str:
    """An arrow head with its tip at (x, y)."""
    return f'<path class="a" d="M{x:.5g} {y:.5g}{_HEADS[way].format(f"{ARROW:g}")}"/>'


def wire(points: list[Point], *, dashed: bool = False) -> str:
    """A line through points with round corners; repeated points count once."""
    kept = [p for k, p in enumerate(points) if k == 0 or _apart(p, points[k - 1])]
    if len(kept) < 2:
        return ""
    steps = [f"M{kept[0][0]:.5g} {kept[0][1]:.5g}"]
    steps += [_bend(*corner) for corner in zip(kept, kept[1:], kept[2:], strict=False)]
    steps.append(f"L{kept[-1][0]:.5g} {kept[-1][1]:.5g}")
    return f'<path class="w{" k" if dashed else ""}" d="{"".join(steps)}"/>'


def _bend(a: Point, b: Point, c: Point) -> str:
    if abs((a[0] - b[0]) * (c[1] - b[1]) - (a[1] - b[1]) * (c[0] - b[0])) < 0.01:
        return ""
    radius = min(_CORNER, (abs(a[0] - b[0]) + abs(a[1] - b[1])) / 2, (abs(c[0] - b[0]) + abs(c[1] - b[1])) / 2)
    (px, py), (qx, qy) = _towards(b, a, radius), _towards(b, c, radius)
    return f"L{px:.5g} {py:.5g}Q{b[0]:.5g} {b[1]:.5g} {qx:.5g} {qy:.5g}"


def _towards(start: Point, end: Point, by: float) -> Point:
    """The point at a distance `by` from `start` towards `end`, along one axis."""
    return start[0] + _sign(end[0] - start[0]) * by, start[1] + _sign(end[1] - start[1]) * by


def _apart(p: Point, q: Point) -> bool:
    return abs(p[0] - q[0]) + abs(p[1] - q[1]) > 0.01


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
