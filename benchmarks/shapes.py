"""The shapes that are measured, by the groups in which the lines speak of them."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Shape:
    """Steps, rows, input size and hidden size."""

    T: int
    B: int
    I: int  # noqa: E741 - the project's word
    H: int

    def __str__(self) -> str:
        return f"{self.T} {self.B} {self.I} {self.H}"

    @property
    def group(self) -> str:
        """The group that the shape belongs to; `other` for one that belongs to none."""
        return next((name for name, shapes in GROUPS.items() if self in shapes), "other")


GROUPS = {
    "small": (Shape(100, 1, 64, 128), Shape(100, 4, 64, 128), Shape(1000, 1, 32, 64)),
    "medium": (Shape(100, 32, 128, 256), Shape(784, 64, 1, 128), Shape(200, 16, 40, 200)),
    "large": (Shape(100, 32, 512, 512), Shape(50, 128, 256, 1024)),
    "odd": (Shape(100, 3, 7, 37), Shape(100, 3, 64, 100), Shape(200, 32, 7, 100)),
}
EVERY = tuple(shape for shapes in GROUPS.values() for shape in shapes)
FEW = (GROUPS["small"][1], GROUPS["medium"][0])

OVER_H = tuple(Shape(100, 32, 128, H) for H in (16, 32, 64, 128, 256, 512, 1024))
OVER_B = tuple(Shape(100, B, 128, 256) for B in (1, 2, 4, 8, 16, 32, 64, 128, 256))
OVER_T = tuple(Shape(T, 1, 32, 64) for T in (100, 1_000, 10_000, 100_000))
THOUSAND = (Shape(1000, 1, 32, 64), Shape(1000, 32, 64, 256), Shape(1000, 128, 64, 256))
STEPS = tuple(Shape(1, B, 64, H) for B in (1, 16, 256) for H in (64, 256))
TINY = Shape(2, 1, 3, 4)

SEQUENCES = (Shape(1000, 1, 32, 64), Shape(100, 1, 64, 128), Shape(1000, 1, 64, 128), Shape(10_000, 1, 32, 64))
LANES, SHORTER = Shape(100, 8, 32, 32), Shape(10, 8, 32, 32)
STREAMS = {name: Shape(1, 1, 8, H) for name, H in (("elman", 32), ("gru", 16), ("min_gru", 16), ("lstm", 16))}
