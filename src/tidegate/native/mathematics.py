"""Vector mathematics: the pointwise operations of the op table on vectors of a target, without any library of functions.

Formulas and errors: docs/decisions/0007-vector-mathematics.md. Arguments below the smallest normal number may count as 0,
and so may results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from tidegate.native.builder import I8, I16, I32, I64, Builder
from tidegate.native.target import AVX512


@dataclass(frozen=True)
class _Table:
    """What depends on the type of numbers. Polynomials run from the constant term upwards; splits from the largest part."""

    mantissa: int  # bits
    bias: int
    tiny: float  # the smallest normal number
    highest: float  # exp is finite up to here ...
    lowest: float  # ... and normal from here
    saturated: float  # expm1(-x) is -1 from here
    whole: float  # from here on there are no fractions
    split_ln2: tuple[float, float]  # the first part times any exponent is exact
    split_half_pi: tuple[float, float, float]
    half_pi_until: float  # the split serves up to here
    expm1: tuple[float, ...]  # (e^x - 1 - x) / x^2
    log: tuple[float, ...]  # (2 artanh(s) / s - 2 - 2/3 s^2) / s^4 by s^2
    sin: tuple[float, ...]  # (sin(x) / x - 1) / x^2 by x^2
    cos: tuple[float, ...]  # (cos(x) - 1 + x^2 / 2) / x^4 by x^2


_SINGLE = _Table(
    mantissa=23,
    bias=127,
    tiny=2.0**-126,
    highest=88.72283172607422,
    lowest=-87.33654022216797,
    saturated=18.0,
    whole=2.0**23,
    split_ln2=(0.693145751953125, 1.428606765330187e-06),
    split_half_pi=(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    half_pi_until=2.0**18,
    expm1=(0.5, 0.16666576937934435, 0.04166655455253961, 0.008363187670809052, 0.0013926194353136184),
    log=(0.4000001506234889, 0.28562233399797726, 0.23048360570897738),
    sin=(-0.1666666465645302, 0.008332747132005014, -0.00019587644999834246),
    cos=(0.04166666465362987, -0.0013888301894958391, 2.4547695686006497e-05),
)
_DOUBLE = _Table(
    mantissa=52,
    bias=1023,
    tiny=2.0**-1022,
    highest=709.782712893384,
    lowest=-708.3964185322641,
    saturated=38.0,
    whole=2.0**52,
    split_ln2=(0.6931471805601177, -1.7239444525614835e-13),
    split_half_pi=(1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
    half_pi_until=2.0**45,
    expm1=(
        0.5,
        0.1666666666666667,
        0.04166666666666667,
        0.008333333333326127,
        0.0013888888888883742,
        0.00019841269874849664,
        2.4801587325568478e-05,
        2.7557255363379395e-06,
        2.75572736168118e-07,
        2.5105232329847944e-08,
        2.0914697911867024e-09,
    ),
    log=(
        0.40000000000000024,
        0.28571428571338425,
        0.22222222271138234,
        0.18181808241686093,
        0.15385575223233022,
        0.13285943251703247,
        0.12913792957412304,
    ),
    sin=(
        -0.16666666666666666,
        0.008333333333330938,
        -0.00019841269836740955,
        2.7557316093417853e-06,
        -2.5051129942141508e-08,
        1.5917992268027582e-10,
    ),
    cos=(
        0.041666666666666664,
        -0.0013888888888887389,
        2.4801587298754668e-05,
        -2.7557317266015365e-07,
        2.0876145077997095e-09,
        -1.1382546702689447e-11,
    ),
)
# tanh(x) = x P(x^2) / Q(x^2) for |x| <= _TANH_UNTIL, float32.
_TANH_UNTIL = 8.9
_TANH_P = (
    0.9999999932291918,
    0.1308315704350774,
    0.0031030015323171736,
    1.114425794233711e-05,
    -2.0183975597021772e-08,
    5.2577827194198265e-11,
    -8.436055252320217e-14,
)
_TANH_Q = (1.0, 0.4641648400537273, 0.02449138177576717, 0.0002544751444761957)
_LOG2E = 1.4426950408889634
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
# The first 1,216 binary places of 2 / pi.
_TWO_OVER_PI = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73ee882"
    "35f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f66"
    "9e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab",
    16,
)
_RELATIONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_OUTLINED = frozenset(("pow", "mod", "log", "log1p", "expm1", "softplus", "log_sigmoid", "sin", "cos"))


class _Lanes:
    """A vector under the operators, so that formulas read as such; numbers stand for vectors of them. Relations give masks."""

    def __init__(self, k: Builder, value: ir.Value) -> None:
        self.k, self.value = k, value

    def _of(self, other: _Lanes | float) -> ir.Value:
        return other.value if isinstance(other, _Lanes) else self.k.splat_constant(other)

    def __add__(self, other: _Lanes | float) -> _Lanes:
        return _Lanes(self.k, self.k.b.fadd(self.value, self._of(other)))

    def __sub__(self, other: _Lanes | float) -> _Lanes:
        return _Lanes(self.k, self.k.b.fsub(self.value, self._of(other)))

    def __rsub__(self, other: float) -> _Lanes:
        return _Lanes(self.k, self.k.b.fsub(self._of(other), self.value))

    def __mul__(self, other: _Lanes | float) -> _Lanes:
        return _Lanes(self.k, self.k.b.fmul(self.value, self._of(other)))

    def __truediv__(self, other: _Lanes | float) -> _Lanes:
        return _Lanes(self.k, self.k.b.fdiv(self.value, self._of(other)))

    def __rtruediv__(self, other: float) -> _Lanes:
        return _Lanes(self.k, self.k.b.fdiv(self._of(other), self.value))

    def __neg__(self) -> _Lanes:
        return _Lanes(self.k, self.k.b.fneg(self.value))

    def __lt__(self, other: _Lanes | float) -> ir.Value:
        return self.relation("<", other)

    def __gt__(self, other: _Lanes | float) -> ir.Value:
        return self.relation(">", other)

    def __le__(self, other: _Lanes | float) -> ir.Value:
        return self.relation("<=", other)

    def __ge__(self, other: _Lanes | float) -> ir.Value:
        return self.relation(">=", other)

    def relation(self, sign: str, other: _Lanes | float) -> ir.Value:
        """A mask; with NaN all but != are false."""
        compare = self.k.b.fcmp_unordered if sign == "!=" else self.k.b.fcmp_ordered
        return compare(sign, self.value, self._of(other))

    def fma(self, factor: _Lanes | float, term: _Lanes | float) -> _Lanes:
        """self * factor + term, rounded once."""
        return _Lanes(self.k, self.k.fma(self.value, self._of(factor), self._of(term)))

    def polynomial(self, coefficients: Sequence[float]) -> _Lanes:
        """From the constant term upwards, by Horner's rule."""
        total = self.fma(coefficients[-1], coefficients[-2])
        for c in reversed(coefficients[:-2]):
            total = total.fma(self, c)
        return total

    def clamp(self, low: float, high: float) -> _Lanes:
        """Within bounds; NaN stays."""
        return self.at_most(high).at_least(low)

    def at_least(self, low: float) -> _Lanes:
        """Not below a number; NaN stays."""
        return self.where(self < low, low)

    def at_most(self, high: float) -> _Lanes:
        """Not above a number; NaN stays."""
        return self.where(self > high, high)

    def where(self, mask: ir.Value, other: _Lanes | float) -> _Lanes:
        """The other where the mask holds."""
        return _Lanes(self.k, self.k.b.select(mask, self._of(other), self.value))

    @property
    def bits(self) -> ir.Value:
        """The same bits as integers."""
        return self.k.b.bitcast(self.value, self.k.integers)


class Mathematics:
    """Emits the pointwise operations where `k` stands; the long ones become functions of its module, once each."""

    def __init__(self, k: Builder) -> None:
        self.k = k
        self._table = _SINGLE if k.dtype == "float32" else _DOUBLE
        self._wide = k.target is AVX512
        # Added to a small number, it leaves its nearest integer in the lowest bits.
        self._shifter = 1.5 * 2.0**self._table.mantissa

    def apply(self, op: str, *args: ir.Value) -> ir.Value:
        """The value of an operation, of its name in the op table, for vectors."""
        if op == "pow" and (short := self._whole_power(*args)):
            return short
        if op in _OUTLINED:
            return self._outlined(op, args)
        return self._inline(op, args)

    def _inline(self, op: str, args: Sequence[ir.Value]) -> ir.Value:
        lanes = [_Lanes(self.k, a) for a in args]
        if op in _RELATIONS:
            return self._choose(lanes[0].relation(_RELATIONS[op], lanes[1]), 1.0, 0.0).value
        found: _Lanes = getattr(self, f"_{op}")(*lanes)
        return found.value

    def _outlined(self, op: str, args: Sequence[ir.Value]) -> ir.Value:
        k, name = self.k, f"{op}_{self.k.suffix}"
        f = k.defined(name)
        if f is None:
            f = k.external(name, k.vector, [k.vector] * len(args))
            f.linkage = "internal"
            for attribute in ("noinline", "nounwind", "readnone"):
                f.attributes.add(attribute)
            outer, k.b = k.b, ir.IRBuilder(f.append_basic_block("entry"))
            k.b.ret(self._inline(op, f.args))
            k.b = outer
        return k.b.call(f, args)

    # pieces

    def _lanes(self, value: float) -> _Lanes:
        return _Lanes(self.k, self.k.splat_constant(value))

    def _integers(self, value: int) -> ir.Constant:
        return ir.Constant(self.k.integers, [ir.Constant(self.k.integer, value)] * self.k.lanes)

    def _from_bits(self, bits: ir.Value) -> _Lanes:
        return _Lanes(self.k, self.k.b.bitcast(bits, self.k.vector))

    def _choose(self, mask: ir.Value, yes: _Lanes | float, no: _Lanes | float) -> _Lanes:
        no = no if isinstance(no, _Lanes) else self._lanes(no)
        return no.where(mask, yes)

    def _any(self, mask: ir.Value) -> ir.Value:
        bits = ir.IntType(self.k.lanes)
        return self.k.b.icmp_unsigned("!=", self.k.b.bitcast(mask, bits), ir.Constant(bits, 0))

    def _reciprocal(self, x: _Lanes) -> _Lanes:
        k = self.k
        if not (self._wide and k.dtype == "float32"):
            return 1.0 / x
        guess = _Lanes(k, k.call("llvm.x86.avx512.rcp14.ps.512", k.vector, x.value, k.splat_constant(0.0), I16(-1)))
        return (-x).fma(guess, 1.0).fma(guess, guess)

    def _halvings(self, x: _Lanes) -> tuple[_Lanes, ir.Value, _Lanes]:
        """n, its bits, and r with x = n ln 2 + r, n whole and |r| <= ln 2 / 2."""
        shifted = x.fma(_LOG2E, self._shifter)
        n = shifted - self._shifter
        high, low = self._table.split_ln2
        return n, shifted.bits, n.fma(-low, n.fma(-high, x))

    def _power_of_two(self, bits: ir.Value, offset: int = 0) -> _Lanes:
        b, t = self.k.b, self._table
        return self._from_bits(b.shl(b.add(bits, self._integers(t.bias + offset)), self._integers(t.mantissa)))

    def _scaled(self, x: _Lanes, bits: ir.Value) -> _Lanes:
        """x times a power of two, as long as it stays among the normal numbers."""
        b = self.k.b
        return self._from_bits(b.add(x.bits, b.shl(bits, self._integers(self._table.mantissa))))

    def _scalef(self, x: _Lanes, n: _Lanes) -> _Lanes:
        k = self.k
        kind, mask = ("ps", I16) if k.dtype == "float32" else ("pd", I8)
        name = f"llvm.x86.avx512.mask.scalef.{kind}.512"
        return _Lanes(k, k.call(name, k.vector, x.value, n.value, k.splat_constant(0.0), mask(-1), I32(4)))

    def _exp_of_small(self, r: _Lanes) -> _Lanes:
        return r.polynomial((1.0, 1.0, *self._table.expm1))

    def _expm1_of_small(self, r: _Lanes) -> _Lanes:
        return r.polynomial(self._table.expm1).fma(r * r, r)

    # short ones

    def _add(self, a: _Lanes, b: _Lanes) -> _Lanes:
        return a + b

    def _sub(self, a: _Lanes, b: _Lanes) -> _Lanes:
        return a - b

    def _mul(self, a: _Lanes, b: _Lanes) -> _Lanes:
        return a * b

    def _div(self, a: _Lanes, b: _Lanes) -> _Lanes:
        return a / b

    def _neg(self, a: _Lanes) -> _Lanes:
        return -a

    def _stop(self, a: _Lanes) -> _Lanes:
        return a

    def _clip_gradient(self, a: _Lanes, limit: _Lanes) -> _Lanes:
        return a

    def _intrinsic(self, name: str, *args: _Lanes) -> _Lanes:
        k = self.k
        return _Lanes(k, k.call(f"llvm.{name}.{k.suffix}", k.vector, *(a.value for a in args)))

    def _abs(self, a: _Lanes) -> _Lanes:
        return self._intrinsic("fabs", a)

    def _sqrt(self, a: _Lanes) -> _Lanes:
        return self._intrinsic("sqrt", a)

    def _floor(self, a: _Lanes) -> _Lanes:
        return self._intrinsic("floor", a)

    def _sign(self, a: _Lanes) -> _Lanes:
        return self._choose(a > 0.0, 1.0, self._choose(a < 0.0, -1.0, 0.0))

    def _relu(self, a: _Lanes) -> _Lanes:
        return a.at_least(0.0)

    def _maximum(self, a: _Lanes, b: _Lanes) -> _Lanes:
        return self._choose(a > b, a, b).where(a.relation("!=", a), a)

    def _minimum(self, a: _Lanes, b: _Lanes) -> _Lanes:
        return self._choose(a < b, a, b).where(a.relation("!=", a), a)

    def _where(self, condition: _Lanes, a: _Lanes, b: _Lanes) -> _Lanes:
        return self._choose(condition.relation("!=", 0.0), a, b)

    def _exp(self, x: _Lanes, more: _Lanes | None = None) -> _Lanes:
        t = self._table
        within = x.clamp(1.25 * t.lowest, t.highest + 1.0) if self._wide else x
        n, bits, r = self._halvings(within)
        y = self._exp_of_small(r if more is None else r + more)
        if self._wide:
            return self._scalef(y, n)
        inside = self._scaled(y, bits)
        return self._choose(x <= t.highest, inside, x + float("inf")).where(x < t.lowest, 0.0)

    def _sigmoid(self, x: _Lanes) -> _Lanes:
        t = self._table
        x = x.clamp(-t.highest, -t.lowest)
        _, bits, r = self._halvings(-x)
        return self._reciprocal(self._scaled(self._exp_of_small(r), bits) + 1.0)

    def _tanh(self, x: _Lanes) -> _Lanes:
        if self.k.dtype == "float32":
            x = x.clamp(-_TANH_UNTIL, _TANH_UNTIL)
            square = x * x
            return square.polynomial(_TANH_P) * x * self._reciprocal(square.polynomial(_TANH_Q))
        _, bits, r = self._halvings((self._abs(x) * 2.0).at_most(2.0 * self._table.saturated))
        power = self._power_of_two(bits)
        y = self._expm1_of_small(r).fma(power, power - 1.0)
        return self._intrinsic("copysign", y / (y + 2.0), x)

    # long ones

    def _expm1(self, x: _Lanes) -> _Lanes:
        t = self._table
        _, bits, r = self._halvings(x.clamp(-t.saturated, t.highest + 0.125))  # n stays below what overflows
        half_power = self._power_of_two(bits, -1)
        y = self._expm1_of_small(r).fma(half_power, half_power - 0.5) * 2.0
        return y.where(self._abs(x) < 4.0 * t.tiny, x)

    def _exponent(self, x: _Lanes) -> tuple[_Lanes, _Lanes]:
        """e and f with x = 2^e (1 + f) and 1 + f between the roots of 1/2 and 2, for normal x > 0."""
        b, t = self.k.b, self._table
        root = 0x3F3504F3 if t is _SINGLE else 0x3FE6A09E667F3BCD
        shifted = b.add(x.bits, self._integers((t.bias << t.mantissa) - root))
        biased = b.lshr(shifted, self._integers(t.mantissa))
        number = self._from_bits(b.or_(biased, self._integers((t.bias + t.mantissa) << t.mantissa)))
        fraction = b.and_(shifted, self._integers((1 << t.mantissa) - 1))
        e = number - (2.0**t.mantissa + t.bias)
        return e, self._from_bits(b.add(fraction, self._integers(root))) - 1.0

    def _log_of_normal(self, x: _Lanes, more: _Lanes | float = 0.0) -> _Lanes:
        e, f = self._exponent(x)
        high, low = self._table.split_ln2
        s = f / (f + 2.0)
        z = s * s
        rest = z.polynomial((_TWO_THIRDS[0], *self._table.log)) * z
        half = f * f * 0.5
        return e.fma(high, f - (half - s.fma(half + rest, e.fma(low, more))))

    def _log_corners(self, y: _Lanes, x: _Lanes, pole: ir.Value) -> _Lanes:
        y = self._choose(x < float("inf"), y, x).where(x < 0.0, float("nan"))
        return y.where(pole, float("-inf"))

    def _log(self, x: _Lanes) -> _Lanes:
        return self._log_corners(self._log_of_normal(x), x, self._abs(x) < self._table.tiny)

    def _log1p(self, x: _Lanes) -> _Lanes:
        u = x + 1.0
        back = u - 1.0
        lost = (1.0 - (u - back)) + (x - back)
        y = self._log_corners(self._log_of_normal(u, lost / u), u, u.relation("==", 0.0))
        return y.where(self._abs(x) < 4.0 * self._table.tiny, x)

    def _softplus(self, x: _Lanes) -> _Lanes:
        u = self._exp(-self._abs(x))
        return self._relu(x) + self._log1p(u)

    def _log_sigmoid(self, x: _Lanes) -> _Lanes:
        return -self._softplus(-x)

    def _mod(self, a: _Lanes, b: _Lanes) -> _Lanes:
        k, far = self.k, 2.0**self._table.bias
        size = self._abs(b)

        def is_far(r: _Lanes) -> ir.Value:
            return self._abs(r) >= size

        before, head, body, after = (k.b.block, *(k.b.append_basic_block(n) for n in ("head", "body", "after")))
        k.b.branch(head)
        k.b.position_at_end(head)
        r = _Lanes(k, k.b.phi(k.vector))
        r.value.add_incoming(a.value, before)
        k.b.cbranch(self._any(is_far(r)), body, after)
        k.b.position_at_end(body)
        # Quotient rounded to nearest: what remains is exact. Too far apart for a quotient: a multiple of b first.
        step = b.where(self._abs(r / b).relation("==", float("inf")), b * far)
        quotient = self._intrinsic("rint", r / step)
        reduced = r.where(is_far(r), (-quotient).fma(step, r))
        r.value.add_incoming(reduced.value, k.b.block)
        k.b.branch(head)
        k.b.position_at_end(after)
        wrong = k.b.xor(r < 0.0, b < 0.0)
        r = r.where(k.b.and_(wrong, r.relation("!=", 0.0)), r + b)
        return r.where(b.relation("!=", b), b)

    # sine and cosine

    def _sin(self, x: _Lanes) -> _Lanes:
        return self._wave(x, 0)

    def _cos(self, x: _Lanes) -> _Lanes:
        return self._wave(x, 1)

    def _wave(self, x: _Lanes, quarters: int) -> _Lanes:
        """sin(x + quarters pi / 2)."""
        b, t = self.k.b, self._table
        shifted = x.fma(2.0 / 3.141592653589793, self._shifter)
        n, r = shifted - self._shifter, x
        for part in t.split_half_pi:
            r = n.fma(-part, r)
        size = self._abs(x)
        r, n_bits = self._reduce_far(x, b.and_(size > t.half_pi_until, size < float("inf")), r, shifted.bits)
        n_bits = b.add(n_bits, self._integers(quarters))
        z = r * r
        sine = z.polynomial(t.sin).fma(z * r, r)
        cosine = z.polynomial(t.cos).fma(z * z, z.fma(-0.5, 1.0))
        odd = b.icmp_unsigned("!=", b.and_(n_bits, self._integers(1)), self._integers(0))
        bits = 8 * self.k.item - 2
        sign = b.shl(b.and_(n_bits, self._integers(2)), self._integers(bits))
        return self._from_bits(b.xor(sine.where(odd, cosine).bits, sign))

    def _reduce_far(self, x: _Lanes, far: ir.Value, r: _Lanes, n: ir.Value) -> tuple[_Lanes, ir.Value]:
        """Lane by lane, for those too far out for a split of pi / 2; all others are left as they are."""
        k = self.k
        stop = k.b.select(self._any(far), k.int(k.lanes), k.int(0))
        with k.carrying(0, stop, carry=[r.value, n]) as (lane, carried):
            here = k.b.trunc(lane, I32)
            number = k.b.extract_element(x.value, here)
            if k.dtype == "float32":
                number = k.b.fpext(number, ir.DoubleType())
            pair = k.b.call(self._far_reduction(), [number])
            rest, quarter = k.b.extract_value(pair, 0), k.b.extract_value(pair, 1)
            if k.dtype == "float32":
                rest, quarter = k.b.fptrunc(rest, k.real), k.b.trunc(quarter, I32)
            mine = k.b.extract_element(far, here)
            new_r, new_n = (
                k.b.insert_element(old, value, here) for old, value in zip(carried, (rest, quarter), strict=True)
            )
            carried[:] = k.b.select(mine, new_r, carried[0]), k.b.select(mine, new_n, carried[1])
        return _Lanes(k, carried[0]), carried[1]

    def _far_reduction(self) -> ir.Function:
        """A double x -> (r, n) with x = n pi / 2 + r, n modulo 4: the product of its mantissa and those places of 2 / pi
        that make quarters and their fractions (Payne and Hanek)."""
        k, name, double, wide = self.k, "far_reduction", ir.DoubleType(), ir.IntType(192)
        if found := k.defined(name):
            return found
        table = ir.Constant(ir.ArrayType(I8, 176), bytearray(_TWO_OVER_PI.to_bytes(176, "little")))
        places = ir.GlobalVariable(k.module, table.type, "two_over_pi")
        places.initializer, places.global_constant, places.linkage = table, True, "internal"
        pair = ir.LiteralStructType([double, I64])
        f = k.external(name, pair, [double])
        f.linkage = "internal"
        for attribute in ("noinline", "nounwind", "readnone"):
            f.attributes.add(attribute)
        b = ir.IRBuilder(f.append_basic_block("entry"))
        bits = b.bitcast(f.args[0], I64)
        exponent = b.and_(b.lshr(bits, I64(52)), I64(0x7FF))
        mantissa = b.or_(b.and_(bits, I64((1 << 52) - 1)), I64(1 << 52))
        # |x| = mantissa 2^(exponent - 1075); the window's first place counts 2 after the power is multiplied in.
        start = b.sub(I64(1216 + 1075 + 2 - 192), exponent)
        window = b.load(b.gep(places, [b.lshr(start, I64(3))], source_etype=I8), typ=ir.IntType(256))
        window.align = 1
        window = b.trunc(b.lshr(window, b.zext(b.and_(start, I64(7)), window.type)), wide)
        product = b.mul(window, b.zext(mantissa, wide))
        quarter = b.trunc(b.lshr(b.add(product, wide(1 << 189)), wide(190)), I64)
        fraction = b.shl(product, wide(2))  # signed, of 2^192
        below = b.icmp_signed("<", fraction, wide(0))
        size = b.select(below, b.sub(wide(0), fraction), fraction)
        zeros = b.call(k.external("llvm.ctlz.i192", wide, [wide, ir.IntType(1)]), [size, ir.IntType(1)(0)])
        top = b.sitofp(b.trunc(b.lshr(b.shl(size, zeros), wide(129)), I64), double)
        scale = b.bitcast(b.shl(b.sub(I64(1023 - 63), b.trunc(zeros, I64)), I64(52)), double)
        rest = b.fmul(b.fmul(top, scale), double(1.5707963267948966))
        negative = b.xor(below, b.icmp_signed("<", bits, I64(0)))
        rest = b.select(negative, b.fneg(rest), rest)
        quarter = b.select(b.icmp_signed("<", bits, I64(0)), b.sub(I64(0), quarter), quarter)
        b.ret(b.insert_value(b.insert_value(ir.Constant(pair, ir.Undefined), rest, 0), quarter, 1))
        return f

    # powers

    def _whole_power(self, base: ir.Value, exponent: ir.Value) -> ir.Value | None:
        """A power whose exponent is known to be small and whole."""
        if not isinstance(exponent, ir.Constant):
            return None
        x = _Lanes(self.k, base)
        short: dict[float, Callable[[], _Lanes]] = {
            1.0: lambda: x,
            2.0: lambda: x * x,
            3.0: lambda: x * x * x,
            -1.0: lambda: 1.0 / x,
        }
        for number, make in short.items():
            if exponent.constant == self.k.splat_constant(number).constant:
                return make().value
        return None

    def _pow(self, a: _Lanes, b: _Lanes) -> _Lanes:
        if self.k.dtype == "float64":
            return self._pow_double(a, b)
        # By halves in float64: the logarithm needs more places than float32 has.
        k, n = self.k, self.k.lanes
        doubles = Mathematics(k.sibling("float64"))
        halves = []
        for start in (0, n // 2):
            places = ir.Constant(ir.VectorType(I32, n // 2), list(range(start, start + n // 2)))
            wide = [k.b.fpext(k.b.shuffle_vector(v.value, v.value, places), doubles.k.vector) for v in (a, b)]
            halves.append(k.b.fptrunc(doubles.apply("pow", *wide), ir.VectorType(k.real, n // 2)))
        return _Lanes(k, k.b.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, n), list(range(n)))))

    def _pow_double(self, a: _Lanes, b: _Lanes) -> _Lanes:
        k, infinity = self.k, float("inf")
        size = self._abs(a)
        high, low = self._log_of_normal_in_two(size)
        y = b * high
        more = b.fma(high, -y) + b * low
        y = self._exp(y, more.where(k.b.not_(self._abs(y) < 1000.0), 0.0))
        y = y.where(size < self._table.tiny, self._choose(b > 0.0, 0.0, infinity))
        y = y.where(size.relation("==", infinity), self._choose(b > 0.0, infinity, 0.0))
        y = y.where(k.b.and_(size.relation("==", 1.0), self._abs(b).relation("==", infinity)), 1.0)
        broken = self._floor(b).relation("!=", b)
        half = b * 0.5
        odd = k.b.and_(k.b.not_(broken), self._floor(half).relation("!=", half))
        y = y.where(k.b.and_(odd, self._intrinsic("copysign", self._lanes(1.0), a) < 0.0), -y)
        y = y.where(k.b.and_(k.b.and_(broken, a < 0.0), size < infinity), float("nan"))
        y = y.where(a.relation("!=", a), a).where(b.relation("!=", b), b)
        return y.where(k.b.or_(b.relation("==", 0.0), a.relation("==", 1.0)), 1.0)

    def _log_of_normal_in_two(self, x: _Lanes) -> tuple[_Lanes, _Lanes]:
        """The logarithm as a sum of two numbers, to about 65 bits."""
        e, f = self._exponent(x)
        high, low = self._table.split_ln2
        d = f + 2.0
        s = f / d
        s_low = ((-s).fma(d, f) - s * (f - (d - 2.0))) / d
        z = s * s
        z_low = s.fma(s, -z) + s * s_low * 2.0
        cube = s * z
        cube_low = s.fma(z, -cube) + s.fma(z_low, s_low * z)
        third = cube * _TWO_THIRDS[0]
        third_low = cube.fma(_TWO_THIRDS[0], -third) + cube_low.fma(_TWO_THIRDS[0], cube * _TWO_THIRDS[1])
        rest = cube * z * z.polynomial(self._table.log)
        first, second = e * high, s + s
        one = first + second
        two = one + third
        lost = (second - (one - first)) + (third - (two - one))
        small = lost + (e.fma(low, s_low * 2.0) + third_low + rest)
        total = two + small
        return total, small - (total - two)
