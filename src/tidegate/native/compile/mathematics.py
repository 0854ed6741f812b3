"""Vector mathematics: the pointwise operations of the op table on vectors, without a maths library.

Formulas, errors and speed: docs/decisions/0007-vector-mathematics.md. Denormal arguments and results may be treated
as 0.
"""

from collections.abc import Callable, Sequence

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I1, I8, I16, I32, I64, Builder
from tidegate.native.compile.coefficients import (
    DOUBLE,
    LOG2E,
    SINGLE,
    TANH_END,
    TANH_P,
    TANH_Q,
    TWO_OVER_PI,
    TWO_THIRDS,
)
from tidegate.native.compile.lanes import Lanes
from tidegate.native.target import AVX512

_INFINITY, _NAN = float("inf"), float("nan")
_OUTLINED = frozenset(("pow", "mod", "log", "log1p", "expm1", "softplus", "log_sigmoid", "sin", "cos"))


def _choose(where: ir.Value, yes: Lanes, no: Lanes) -> Lanes:
    return no.but(yes, where)


_INLINED: dict[str, Callable[..., Lanes]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": abs,
    "sqrt": lambda a: a.call("sqrt"),
    "floor": lambda a: a.call("floor"),
    "relu": lambda a: a.but(0.0, a < 0.0),
    "maximum": lambda a, b: _choose(a > b, a, b).but(a, a.is_nan()),
    "minimum": lambda a, b: _choose(a < b, a, b).but(a, a.is_nan()),
    "where": lambda c, a, b: _choose(c.relation("!=", 0.0), a, b),
    "stop": lambda a: a,
    "clip_gradient": lambda a, limit: a,
}
_RELATIONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
# constant exponents, as in torch
_POWERS: dict[float, Callable[[Lanes], Lanes]] = {
    1.0: lambda a: a,
    2.0: lambda a: a * a,
    3.0: lambda a: a * a * a,
    0.5: lambda a: a.call("sqrt"),
    -0.5: lambda a: 1.0 / a.call("sqrt"),
    -1.0: lambda a: 1.0 / a,
    -2.0: lambda a: 1.0 / (a * a),
}


class Mathematics:
    """Emits the pointwise operations at the position of `k`; long ones become functions of its module, once each."""

    def __init__(self, k: Builder) -> None:
        self.k = k
        self._table = SINGLE if k.dtype == "float32" else DOUBLE
        self._wide = k.target is AVX512
        self._tiny = 2.0 ** (1 - self._table.bias)  # the smallest normal number

    def apply(self, op: str, *args: ir.Value) -> ir.Value:
        """Apply an operation of the op table to vectors."""
        if op == "pow" and isinstance(args[1], ir.Constant):
            for exponent, power in _POWERS.items():
                if str(args[1]) == str(self.k.splat_constant(exponent)):
                    return power(Lanes(self.k, args[0])).value
        return self._outlined(op, args) if op in _OUTLINED else self._inline(op, args)

    def _inline(self, op: str, args: Sequence[ir.Value]) -> ir.Value:
        lanes = [Lanes(self.k, a) for a in args]
        if op in _RELATIONS:
            return self._splat(0.0).but(1.0, lanes[0].relation(_RELATIONS[op], lanes[1])).value
        formula: Callable[..., Lanes] = _INLINED[op] if op in _INLINED else getattr(self, f"_{op}")
        return formula(*lanes).value

    def _outlined(self, op: str, args: Sequence[ir.Value]) -> ir.Value:
        k, name = self.k, f"{op}_{self.k.suffix}"
        if not (f := k.defined(name)):
            f = self._internal(name, k.vector, [k.vector] * len(args))
            outer, k.b = k.b, ir.IRBuilder(f.append_basic_block("entry"))
            k.b.ret(self._inline(op, f.args))
            k.b = outer
        return k.b.call(f, args)

    def _internal(self, name: str, returns: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
        f = self.k.external(name, returns, arguments)
        f.linkage = "internal"
        for attribute in ("noinline", "nounwind", "readnone"):
            f.attributes.add(attribute)
        return f

    def _sign(self, x: Lanes) -> Lanes:
        return self._splat(0.0).but(1.0, x > 0.0).but(-1.0, x < 0.0)

    # pieces

    def _splat(self, value: float) -> Lanes:
        return Lanes(self.k, self.k.splat_constant(value))

    def _integers(self, value: int) -> ir.Constant:
        return self.k.lanes_constant(self.k.integer, (value,) * self.k.lanes)

    def _from_bits(self, bits: ir.Value) -> Lanes:
        return Lanes(self.k, self.k.b.bitcast(bits, self.k.vector))

    def _any(self, mask: ir.Value) -> ir.Value:
        bits = ir.IntType(self.k.lanes)
        return self.k.b.icmp_unsigned("!=", self.k.b.bitcast(mask, bits), bits(0))

    def _halvings(self, x: Lanes, offset: int = 0) -> tuple[Lanes, ir.Value, Lanes]:
        """n, the bits of n + offset as an exponent, and r, with x = n ln 2 + r, n whole and |r| <= ln 2 / 2."""
        t = self._table
        # A sum this large has no fraction: the nearest integer is in its lowest bits.
        shift = 1.5 * 2.0**t.mantissa + offset
        shifted = x.fma(LOG2E, shift)
        n = shifted - shift
        high, low = t.split_ln2
        return n, self.k.b.shl(shifted.bits, self._integers(t.mantissa)), n.fma(-low, n.fma(-high, x))

    def _exp(self, x: Lanes, more: Lanes | None = None) -> Lanes:
        """exp(x + more), where more is small."""
        t = self._table
        n, bits, r = self._halvings(x.clamp(1.25 * t.lowest, t.highest + 1.0) if self._wide else x)
        y = (r if more is None else r + more).polynomial((1.0, 1.0, *t.exp))
        if self._wide:
            kind, mask = ("ps", I16) if self.k.dtype == "float32" else ("pd", I8)
            rest = (self.k.splat_constant(0.0), mask(-1), I32(4))
            name = f"llvm.x86.avx512.mask.scalef.{kind}.512"
            return Lanes(self.k, self.k.call(name, self.k.vector, y.value, n.value, *rest))
        scaled = self._from_bits(self.k.b.add(y.bits, bits))
        return _choose(x <= t.highest, scaled, x + _INFINITY).but(0.0, x < t.lowest)

    def _expm1_of_small(self, r: Lanes) -> Lanes:
        return r.polynomial(self._table.exp).fma(r * r, r)

    def _sigmoid(self, x: Lanes) -> Lanes:
        k, t = self.k, self._table
        end = (t.bias + 0.49) * 0.6931471805599453  # beyond it 2^n would be infinite
        _, bits, r = self._halvings(-x.clamp(-end, end), t.bias)
        d = r.polynomial(t.exp_rough).fma(self._from_bits(bits), 1.0)
        if not self._wide or k.dtype == "float64":
            return 1.0 / d
        guess = Lanes(k, k.call("llvm.x86.avx512.rcp14.ps.512", k.vector, d.value, k.splat_constant(0.0), I16(-1)))
        return (-d).fma(guess, 1.0).fma(guess, guess)

    def _tanh(self, x: Lanes) -> Lanes:
        if self.k.dtype == "float32":
            # by tanh(x / 2): its error shrinks as the result approaches 1
            x = x.clamp(-TANH_END, TANH_END)
            z = x * x
            k = z.polynomial(TANH_P).fma(x * z, x)
            h = z * z.polynomial(TANH_Q)
            return k.fma(h, k) / h.fma(h + 2.0, (k * 0.25).fma(k, 1.0))
        twice = abs(x) * 2.0
        _, bits, r = self._halvings(twice.clamp(0.0, 2.0 * self._table.gone), self._table.bias)
        power = self._from_bits(bits)
        y = self._expm1_of_small(r).fma(power, power - 1.0)
        return (y / (y + 2.0)).call("copysign", x)

    def _expm1(self, x: Lanes) -> Lanes:
        t = self._table
        # Half the power of two, which is finite wherever the result is.
        _, bits, r = self._halvings(x.clamp(-2.0 * t.gone, t.highest + 0.125), t.bias - 1)
        half = self._from_bits(bits)
        y = self._expm1_of_small(r).fma(half, half - 0.5) * 2.0
        return y.but(x, abs(x) < 4.0 * self._tiny)

    # logarithms

    def _exponent(self, x: Lanes) -> tuple[Lanes, Lanes]:
        """e and f with x = 2^e (1 + f) and 1 + f between sqrt(1/2) and sqrt(2), for normal x > 0."""
        b, t = self.k.b, self._table
        root = self._integers(t.root_half)
        shifted = b.add(b.sub(x.bits, root), self._integers(t.bias << t.mantissa))
        biased = b.lshr(shifted, self._integers(t.mantissa))
        whole = self._from_bits(b.or_(biased, self._integers((t.bias + t.mantissa) << t.mantissa)))
        fraction = b.and_(shifted, self._integers((1 << t.mantissa) - 1))
        return whole - (2.0**t.mantissa + t.bias), self._from_bits(b.add(fraction, root)) - 1.0

    def _log_of_normal(self, x: Lanes, more: Lanes | float = 0.0) -> Lanes:
        """log(x) + more, where more is small."""
        e, f = self._exponent(x)
        high, low = self._table.split_ln2
        s = f / (f + 2.0)
        z = s * s
        rest = z.polynomial((TWO_THIRDS[0], *self._table.log)) * z
        half = f * f * 0.5
        return e.fma(high, f - (half - s.fma(half + rest, e.fma(low, more))))

    def _log_of_normal_in_two(self, x: Lanes) -> tuple[Lanes, Lanes]:
        """The logarithm as a sum of two numbers, with a dozen extra bits."""
        e, f = self._exponent(x)
        high, low = self._table.split_ln2
        d = f + 2.0
        s = f / d
        s_low = ((-s).fma(d, f) - s * (f - (d - 2.0))) / d
        z = s * s
        z_low = s.fma(s, -z) + s * s_low * 2.0
        cube = s * z
        cube_low = s.fma(z, -cube) + s.fma(z_low, s_low * z)
        third = cube * TWO_THIRDS[0]
        third_low = cube.fma(TWO_THIRDS[0], -third) + cube_low.fma(TWO_THIRDS[0], cube * TWO_THIRDS[1])
        first, second = e * high, s + s
        one = first + second
        two = one + third
        lost = (second - (one - first)) + (third - (two - one))
        rest = cube * z * z.polynomial(self._table.log)
        small = lost + (e.fma(low, s_low * 2.0) + third_low + rest)
        total = two + small
        return total, small - (total - two)

    def _log_corners(self, y: Lanes, x: Lanes, pole: ir.Value) -> Lanes:
        return _choose(x < _INFINITY, y, x).but(_NAN, x < 0.0).but(-_INFINITY, pole)

    def _log(self, x: Lanes) -> Lanes:
        return self._log_corners(self._log_of_normal(x), x, abs(x) < self._tiny)

    def _log1p(self, x: Lanes) -> Lanes:
        u = x + 1.0
        back = u - 1.0
        lost = (1.0 - (u - back)) + (x - back)
        y = self._log_corners(self._log_of_normal(u, lost / u), u, u.is_(0.0))
        return y.but(x, abs(x) < 4.0 * self._tiny)

    def _softplus(self, x: Lanes) -> Lanes:
        return x.but(0.0, x < 0.0) + self._log1p(self._exp(-abs(x)))

    def _log_sigmoid(self, x: Lanes) -> Lanes:
        return -self._softplus(-x)

    # powers and remainders

    def _pow(self, a: Lanes, b: Lanes) -> Lanes:
        if self.k.dtype == "float64":
            return self._pow_double(a, b)
        # In float64, half a vector at a time: the logarithm needs more digits than float32 has.
        k, n = self.k, self.k.lanes
        doubles = Mathematics(k.sibling("float64"))
        halves = []
        for start in (0, n // 2):
            places = ir.Constant(ir.VectorType(I32, n // 2), list(range(start, start + n // 2)))
            wide = [k.b.fpext(k.b.shuffle_vector(v.value, v.value, places), doubles.k.vector) for v in (a, b)]
            halves.append(k.b.fptrunc(doubles.apply("pow", *wide), ir.VectorType(k.real, n // 2)))
        return Lanes(k, k.b.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, n), list(range(n)))))

    def _pow_double(self, a: Lanes, b: Lanes) -> Lanes:
        both, either, size = self.k.b.and_, self.k.b.or_, abs(a)
        high, low = self._log_of_normal_in_two(size)
        y = b * high
        more = _choose(abs(y) < 1000.0, b.fma(high, -y) + b * low, self._splat(0.0))
        zero, infinity = self._splat(0.0), self._splat(_INFINITY)
        y = self._exp(y, more)
        y = y.but(_choose(b > 0.0, zero, infinity), size < self._tiny)
        y = y.but(_choose(b > 0.0, infinity, zero), size.is_(_INFINITY))
        y = y.but(1.0, both(size.is_(1.0), abs(b).is_(_INFINITY)))
        half, broken = b * 0.5, b.call("floor").relation("!=", b)
        odd = both(self.k.b.not_(broken), half.call("floor").relation("!=", half))
        y = y.but(-y, both(odd, self._splat(1.0).call("copysign", a) < 0.0))
        y = y.but(_NAN, both(both(broken, a < 0.0), size < _INFINITY)).but(a, a.is_nan()).but(b, b.is_nan())
        return y.but(1.0, either(b.is_(0.0), a.is_(1.0)))

    def _mod(self, a: Lanes, b: Lanes) -> Lanes:
        """The remainder, with the sign of the divisor."""
        # The remainder of a quotient rounded to nearest is exact, and smaller than a by the bits of a mantissa.
        k, before = self.k, self.k.b.block
        head, body, after = (k.b.append_basic_block(name) for name in ("head", "body", "after"))
        k.b.branch(head)
        k.b.position_at_end(head)
        r = Lanes(k, k.b.phi(k.vector))
        r.value.add_incoming(a.value, before)
        large = abs(r) >= abs(b)
        k.b.cbranch(self._any(large), body, after)
        k.b.position_at_end(body)
        step = b.but(b * 2.0**self._table.bias, abs(r / b).is_(_INFINITY))  # the quotient overflows
        nearer = r.but((-(r / step).call("rint")).fma(step, r), large)
        r.value.add_incoming(nearer.value, k.b.block)
        k.b.branch(head)
        k.b.position_at_end(after)
        other_side = k.b.xor(r < 0.0, b < 0.0)
        return r.but(r + b, k.b.and_(other_side, r.relation("!=", 0.0))).but(b, b.is_nan())

    # sine and cosine

    def _sin(self, x: Lanes) -> Lanes:
        return self._wave(x, 0).but(x, x.is_(0.0))  # keeps the sign of zero

    def _cos(self, x: Lanes) -> Lanes:
        return self._wave(x, 1)

    def _wave(self, x: Lanes, quarters: int) -> Lanes:
        """sin(x + quarters pi / 2)."""
        b, t = self.k.b, self._table
        shift = 1.5 * 2.0**t.mantissa
        shifted = x.fma(2.0 / 3.141592653589793, shift)
        n, r = shifted - shift, x
        for part in t.split_half_pi:
            r = n.fma(-part, r)
        size = abs(x)
        r, n_bits = self._reduce_far(x, b.and_(size > t.far, size < _INFINITY), r, shifted.bits)
        n_bits = b.add(n_bits, self._integers(quarters))
        z = r * r
        sine = z.polynomial(t.sin).fma(z * r, r)
        cosine = z.polynomial(t.cos).fma(z * z, z.fma(-0.5, 1.0))
        odd = b.icmp_unsigned("!=", b.and_(n_bits, self._integers(1)), self._integers(0))
        bits = 8 * self.k.item - 2
        sign = b.shl(b.and_(n_bits, self._integers(2)), self._integers(bits))
        return self._from_bits(b.xor(sine.but(cosine, odd).bits, sign))

    def _reduce_far(self, x: Lanes, far: ir.Value, r: Lanes, n: ir.Value) -> tuple[Lanes, ir.Value]:
        """Reduce lanes that are too large for the split of pi / 2, one by one; others are unchanged."""
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
        return Lanes(k, carried[0]), carried[1]

    def _far_reduction(self) -> ir.Function:
        """A double x -> (r, n) with x = n pi / 2 + r, n modulo 4.

        Only those digits of x * 2 / pi are computed that give the quarters and their fractions:
        Payne & Hanek, Radian reduction for trigonometric functions, SIGNUM Newsletter 18, 1983.
        """
        k, name, double, wide = self.k, "far_reduction", ir.DoubleType(), ir.IntType(192)
        if found := k.defined(name):
            return found
        table = ir.Constant(ir.ArrayType(I8, 176), bytearray(TWO_OVER_PI.to_bytes(176, "little")))
        places = ir.GlobalVariable(k.module, table.type, "two_over_pi")
        places.initializer, places.global_constant, places.linkage = table, True, "internal"
        pair = ir.LiteralStructType([double, I64])
        f = self._internal(name, pair, [double])
        b = ir.IRBuilder(f.append_basic_block("entry"))
        bits = b.bitcast(f.args[0], I64)
        exponent = b.and_(b.lshr(bits, I64(52)), I64(0x7FF))
        mantissa = b.or_(b.and_(bits, I64((1 << 52) - 1)), I64(1 << 52))
        # |x| = mantissa 2^(exponent - 1075); the window's first bit has weight 2 after scaling by the power.
        start = b.sub(I64(1216 + 1075 + 2 - 192), exponent)
        window = b.load(b.gep(places, [b.lshr(start, I64(3))], source_etype=I8), typ=ir.IntType(256))
        window.align = 1
        window = b.trunc(b.lshr(window, b.zext(b.and_(start, I64(7)), window.type)), wide)
        product = b.mul(window, b.zext(mantissa, wide))
        quarter = b.trunc(b.lshr(b.add(product, wide(1 << 189)), wide(190)), I64)
        fraction = b.shl(product, wide(2))  # signed, of 2^192
        below = b.icmp_signed("<", fraction, wide(0))
        size = b.select(below, b.sub(wide(0), fraction), fraction)
        zeros = b.call(k.external("llvm.ctlz.i192", wide, [wide, I1]), [size, I1(0)])
        top = b.sitofp(b.trunc(b.lshr(b.shl(size, zeros), wide(129)), I64), double)
        scale = b.bitcast(b.shl(b.sub(I64(1023 - 63), b.trunc(zeros, I64)), I64(52)), double)
        rest = b.fmul(b.fmul(top, scale), double(1.5707963267948966))
        negative = b.xor(below, b.icmp_signed("<", bits, I64(0)))
        rest = b.select(negative, b.fneg(rest), rest)
        quarter = b.select(b.icmp_signed("<", bits, I64(0)), b.sub(I64(0), quarter), quarter)
        b.ret(b.insert_value(b.insert_value(ir.Constant(pair, ir.Undefined), rest, 0), quarter, 1))
        return f
