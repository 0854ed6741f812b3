"""Builder of an LLVM module: arithmetic, memory, loops and functions, for one target and dtype."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from tidegate.native._llvm import ir
from tidegate.native.target import ITEM_BYTES, DType, Target

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
POINTER, VOID = ir.PointerType(), ir.VoidType()
Known: TypeAlias = int  # alias, because `int` is a method of the class
Int: TypeAlias = ir.Value | int


class Builder:
    """Emits instructions at the position of `b`; `function` opens a function, `loop` a loop.

    `real` is the element type, `vector` a vector of `lanes` elements, `integers` and `mask` vectors of as many integers
    and bits. Offsets count elements, not bytes.
    """

    def __init__(self, name: str, target: Target, dtype: DType) -> None:
        self.module = ir.Module(name)
        self.target, self.dtype, self.lanes = target, dtype, target.lanes(dtype)
        self.item = ITEM_BYTES[dtype]
        self.real: ir.Type = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.integer = I32 if dtype == "float32" else I64  # as wide as an element
        self.vector = ir.VectorType(self.real, self.lanes)
        self.integers = ir.VectorType(self.integer, self.lanes)
        self.mask = ir.VectorType(I1, self.lanes)
        self.suffix = f"v{self.lanes}{'f32' if dtype == 'float32' else 'f64'}"  # suffix of vector intrinsics
        self.b: ir.IRBuilder = ir.IRBuilder()
        self._functions: dict[str, ir.Function] = {}
        self._constants: dict[tuple[str, tuple[str, ...]], ir.Constant] = {}

    def sibling(self, dtype: DType) -> "Builder":
        """A builder for other numbers that goes on where this one stands, in the same module."""
        other = Builder(self.module.name, self.target, dtype)
        other.module, other.b, other._functions = self.module, self.b, self._functions
        return other

    # functions

    def external(self, name: str, returns: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
        """Declare a function of another module, or an intrinsic."""
        if name not in self._functions:
            self._functions[name] = ir.Function(self.module, ir.FunctionType(returns, arguments), name)
        return self._functions[name]

    def call(self, name: str, returns: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Call an intrinsic or an external function by its name."""
        return self.b.call(self.external(name, returns, [a.type for a in arguments]), arguments)

    @contextmanager
    def function(self, name: str, arguments: Sequence[ir.Type], *, public: bool = False) -> Iterator[ir.Function]:
        """Open a void function; inside the block, `b` is positioned in it."""
        f = ir.Function(self.module, ir.FunctionType(VOID, arguments), name)
        self._functions[name] = f
        if not public:
            f.linkage = "internal"
            f.attributes.add("noinline")
        f.attributes.add("nounwind")
        outer, self.b = self.b, ir.IRBuilder(f.append_basic_block("entry"))
        yield f
        self.b.ret_void()
        self.b = outer

    def defined(self, name: str) -> ir.Function | None:
        """A function of this module, if it exists."""
        return self._functions.get(name)

    # integers

    def int(self, value: Int) -> ir.Value:
        """A 64-bit integer."""
        return value if isinstance(value, ir.Value) else ir.Constant(I64, value)

    def add(self, *terms: Int) -> ir.Value:
        """The sum of integers; constants are folded."""
        known = sum(t for t in terms if isinstance(t, int))
        moving = [t for t in terms if not isinstance(t, int)]
        if not moving:
            return self.int(known)
        total = moving[0]
        for t in moving[1:]:
            total = self.b.add(total, t)
        return self.b.add(total, self.int(known)) if known else total

    def sub(self, a: Int, b: Int) -> ir.Value:
        """The difference of integers."""
        return self.int(a - b) if isinstance(a, int) and isinstance(b, int) else self.b.sub(self.int(a), self.int(b))

    def mul(self, a: Int, b: Int) -> ir.Value:
        """The product of integers."""
        if isinstance(a, int) and isinstance(b, int):
            return self.int(a * b)
        if isinstance(a, int):
            a, b = b, a
        if isinstance(b, int) and b == 1:
            return self.int(a)
        return self.b.mul(self.int(a), self.int(b))

    def div(self, a: Int, b: Int) -> ir.Value:
        """The quotient of non-negative integers, rounded down."""
        return self.int(a // b) if isinstance(a, int) and isinstance(b, int) else self.b.udiv(self.int(a), self.int(b))

    def rem(self, a: Int, b: Int) -> ir.Value:
        """The remainder of non-negative integers."""
        return self.int(a % b) if isinstance(a, int) and isinstance(b, int) else self.b.urem(self.int(a), self.int(b))

    def ceil(self, a: Int, b: Int) -> ir.Value:
        """a / b, rounded up."""
        return self.div(self.add(a, b - 1 if isinstance(b, int) else self.sub(b, 1)), b)

    def least(self, a: Int, b: Int) -> ir.Value:
        """The smaller of two integers."""
        a, b = self.int(a), self.int(b)
        return self.b.select(self.compare("<", a, b), a, b)

    def compare(self, relation: str, a: Int, b: Int) -> ir.Value:
        """A comparison of signed integers."""
        return self.b.icmp_signed(relation, self.int(a), self.int(b))

    # numbers

    def number(self, value: float) -> ir.Constant:
        """A scalar constant."""
        return ir.Constant(self.real, value)

    def splat_constant(self, value: float) -> ir.Constant:
        """The same number in every lane."""
        return self.lanes_constant(self.real, (value,) * self.lanes)

    def lanes_constant(self, kind: ir.Type, values: tuple[float, ...]) -> ir.Constant:
        """A vector constant; cached, so that its text is made once."""
        key = str(kind), tuple(map(repr, values))
        if key not in self._constants:
            self._constants[key] = ir.Constant(ir.VectorType(kind, self.lanes), list(values))
        return self._constants[key]

    def splat(self, number: ir.Value) -> ir.Value:
        """The same run-time number in every lane."""
        wide = ir.VectorType(number.type, self.lanes)
        undefined = ir.Constant(wide, ir.Undefined)
        one = self.b.insert_element(undefined, number, I32(0))
        return self.b.shuffle_vector(one, undefined, self.lanes_constant(I32, (0,) * self.lanes))

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once."""
        return self.call(f"llvm.fma.{self.suffix}", self.vector, a, b, c)

    # memory

    def at(self, pointer: ir.Value, *offsets: Int) -> ir.Value:
        """The address that many elements further."""
        return self.b.gep(pointer, [self.add(*offsets)], source_etype=self.real) if offsets else pointer

    def at_int(self, pointer: ir.Value, *offsets: Int) -> ir.Value:
        """The address that many 64-bit integers or pointers further."""
        return self.b.gep(pointer, [self.add(*offsets)], source_etype=I64)

    def load_int(self, pointer: ir.Value, *offsets: Int) -> ir.Value:
        """A 64-bit integer from memory."""
        return self.b.load(self.at_int(pointer, *offsets), typ=I64)

    def load_pointer(self, pointer: ir.Value, *offsets: Int) -> ir.Value:
        """A pointer from memory."""
        return self.b.load(self.at_int(pointer, *offsets), typ=POINTER)

    def scalar(self, pointer: ir.Value, *offsets: Int) -> ir.Value:
        """One number from memory."""
        return self.b.load(self.at(pointer, *offsets), typ=self.real)

    def load(self, pointer: ir.Value, *offsets: Int, mask: ir.Value | None = None) -> ir.Value:
        """Load a vector, aligned to its elements; lanes outside the mask are not read, and 0."""
        if mask is not None:
            name = f"llvm.masked.load.{self.suffix}.p0"
            return self.call(name, self.vector, self.at(pointer, *offsets), mask, self.splat_constant(0.0))
        found = self.b.load(self.at(pointer, *offsets), typ=self.vector)
        found.align = self.item
        return found

    def store(self, value: ir.Value, pointer: ir.Value, *offsets: Int, mask: ir.Value | None = None) -> None:
        """Store a vector, aligned to its elements; lanes outside the mask are not written."""
        if mask is not None:
            self.call(f"llvm.masked.store.{self.suffix}.p0", VOID, value, self.at(pointer, *offsets), mask)
        else:
            self.b.store(value, self.at(pointer, *offsets)).align = self.item

    def store_past_caches(self, value: ir.Value, pointer: ir.Value, *offsets: Int) -> None:
        """Store a vector, aligned to a vector, bypassing the caches; `fence` makes it visible to other threads."""
        store = self.b.store(value, self.at(pointer, *offsets))
        store.align = self.target.bytes
        store.set_metadata("nontemporal", self.module.add_metadata([I32(1)]))

    def fence(self) -> None:
        """Order stores that bypass the caches before all later ones."""
        self.call("llvm.x86.sse.sfence", VOID)

    def lanes_below(self, count: Int) -> ir.Value:
        """The mask of the lanes below `count`, which may be negative or beyond the last lane."""
        limit = self.splat(self.b.trunc(self.int(count), I32))
        return self.b.icmp_signed("<", self.lanes_constant(I32, tuple(range(self.lanes))), limit)

    def stack_array(self, kind: ir.Type, count: Known) -> ir.Value:
        """Allocate `count` values on the open function's stack, aligned to a vector."""
        with self.b.goto_entry_block():
            found = self.b.alloca(ir.ArrayType(kind, count))
        found.align = self.target.bytes
        found.type = POINTER  # llvmlite gives it a typed pointer, which would not match what is stored
        return found

    # control

    @contextmanager
    def loop(self, start: Int, stop: Int, step: Int = 1) -> Iterator[ir.Value]:
        """Loop over index = start, start + step, ... below stop."""
        with self.carrying(start, stop, step) as (index, _):
            yield index

    @contextmanager
    def carrying(
        self, start: Int, stop: Int, step: Int = 1, carry: Sequence[ir.Value] = ()
    ) -> Iterator[tuple[ir.Value, list[Any]]]:
        """A loop with carried values: the body replaces the items of the list, which holds the last ones afterwards."""
        b, function, before = self.b, self.b.function, self.b.block
        head, body, after = (function.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(self.int(start), before)
        phis = [b.phi(value.type) for value in carry]
        for phi, value in zip(phis, carry, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", index, self.int(stop)), body, after)
        b.position_at_end(body)
        carried = list(phis)
        yield index, carried
        index.add_incoming(self.add(index, step), b.block)
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        carried[:] = phis

    @contextmanager
    def when(self, condition: ir.Value) -> Iterator[None]:
        """Run the block only if the condition holds."""
        with self.b.if_then(condition):
            yield
