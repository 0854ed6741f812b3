"""Vectors of a kernel with Python's operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import Builder


def _operator(instruction: str) -> Callable[[Lanes, Lanes | float], Lanes]:
    return lambda self, other: self._new(getattr(self.k.b, instruction)(self.value, self._of(other)))


def _relation(sign: str) -> Callable[[Lanes, Lanes | float], ir.Value]:
    return lambda self, other: self.relation(sign, other)


class Lanes:
    """A vector with operators; numbers are broadcast, and relations give masks."""

    def __init__(self, k: Builder, value: ir.Value) -> None:
        self.k, self.value = k, value

    def _of(self, other: Lanes | float) -> ir.Value:
        return other.value if isinstance(other, Lanes) else self.k.splat_constant(other)

    def _new(self, value: ir.Value) -> Lanes:
        return Lanes(self.k, value)

    __add__, __sub__, __mul__, __truediv__ = _operator("fadd"), _operator("fsub"), _operator("fmul"), _operator("fdiv")
    __lt__, __le__, __gt__, __ge__ = _relation("<"), _relation("<="), _relation(">"), _relation(">=")

    def __rsub__(self, other: float) -> Lanes:
        return self._new(self.k.b.fsub(self._of(other), self.value))

    def __rtruediv__(self, other: float) -> Lanes:
        return self._new(self.k.b.fdiv(self._of(other), self.value))

    def __neg__(self) -> Lanes:
        return self._new(self.k.b.fneg(self.value))

    def relation(self, sign: str, other: Lanes | float) -> ir.Value:
        """The mask of an ordered comparison; for NaN only != holds."""
        compare = self.k.b.fcmp_unordered if sign == "!=" else self.k.b.fcmp_ordered
        return compare(sign, self.value, self._of(other))

    def is_nan(self) -> ir.Value:
        """The mask of NaN lanes."""
        return self.k.b.fcmp_unordered("uno", self.value, self.value)

    def is_(self, other: Lanes | float) -> ir.Value:
        """The mask of equal lanes."""
        return self.relation("==", other)

    def but(self, other: Lanes | float, where: ir.Value) -> Lanes:
        """`other` where the mask holds, else self."""
        return self._new(self.k.b.select(where, self._of(other), self.value))

    def clamp(self, low: float, high: float) -> Lanes:
        """Clamp to bounds; NaN stays NaN."""
        above = self.but(high, self > high)
        return above.but(low, above < low)

    def fma(self, factor: Lanes | float, term: Lanes | float) -> Lanes:
        """self * factor + term, rounded once."""
        return self._new(self.k.fma(self.value, self._of(factor), self._of(term)))

    def polynomial(self, coefficients: Sequence[float]) -> Lanes:
        """A polynomial by Horner's rule; coefficients start with the constant term."""
        total = self.fma(coefficients[-1], coefficients[-2])
        for c in reversed(coefficients[:-2]):
            total = total.fma(self, c)
        return total

    def call(self, intrinsic: str, *others: Lanes) -> Lanes:
        """Call a vector intrinsic."""
        values = [self.value, *(v.value for v in others)]
        return self._new(self.k.call(f"llvm.{intrinsic}.{self.k.suffix}", self.k.vector, *values))

    def __abs__(self) -> Lanes:
        return self.call("fabs")

    @property
    def bits(self) -> ir.Value:
        """The same bits as integers."""
        return self.k.b.bitcast(self.value, self.k.integers)
