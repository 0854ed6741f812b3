"""The arguments of trace kernels and their working memory."""

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import Builder
from tidegate.native.eligibility.form import TraceForm

STEPS = 64  # of a block: what it reads fits into L1; constant, because sums are split there
_POINTERS = ("reset", "start", "end", "g", "work")
_NUMBERS = ("threads", "T", "B", "K", "V", "bias", "forget", "reset.step", "ld.work", *_POINTERS, "pieces")


def argument_names(form: TraceForm, pieces: int) -> tuple[str, ...]:
    """The kernels' arguments in order; those of the pieces of v come last, so their number may vary."""
    coefficients = (f"{kind}{name}" for name in form.coefficients for kind in ("", "ld."))
    columns = (f"{kind}.{i}" for i in range(pieces) for kind in ("v", "ld.v", "width"))
    return (*_NUMBERS, *coefficients, *columns)


def read(k: Builder, form: TraceForm, arguments: ir.Value) -> dict[str, ir.Value]:
    """Load all arguments except those of the pieces."""
    pointers = {*_POINTERS, *form.coefficients}
    return {
        name: (k.load_pointer if name in pointers else k.load_int)(arguments, i)
        for i, name in enumerate(argument_names(form, 0))
    }


def line_numbers(V: int, lanes: int) -> int:
    """The leading dimension of gathered v: an odd number of vectors, to use all sets of a cache."""
    return (-(-V // lanes) | 1) * lanes


def work_numbers(form: TraceForm, T: int, V: int, lanes: int) -> int:
    """Elements of working memory per thread: a block's v, what is multiplied with it, what is carried over
    the block, and the traces from before it."""
    outputs = 1 + form.states
    factors = max(len(form.coefficients), outputs)
    return min(T, STEPS) * (line_numbers(V, lanes) + factors * lanes) + (outputs * outputs + form.states * V) * lanes
