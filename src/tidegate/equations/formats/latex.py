r"""A cell's equations as LaTeX, one row for each named value.

`latex(graph)` gives the rows of an `aligned` body, in what KaTeX, MathJax and latex2mathml all read. Rows of values
that depend on weights only come first, then the step in the order in which it was written. A state is $h_t$, before the
step $h_{t-1}$; a linear is $W_i x_t + U_i h_{t-1} + b_i$, with $W$ on inputs and $U$ on what depends on the state; an
earlier value of a name bound again is $s_t^{(1)}$. Values without a name stand where they are used, and so do
pre-activations; a call of an @function stays a call.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS
from tidegate.equations.values import SCALAR, Rate, Value

# fmt: off
GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ",
    "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ",
    "tau": "τ", "upsilon": "υ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ",
    "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Upsilon": "Υ", "Phi": "Φ", "Psi": "Ψ",
    "Omega": "Ω",
}
# fmt: on
_WORDS = {"lam": r"\lambda", "eps": r"\epsilon", "dt": r"\Delta t"}
_SPECIAL = {c: "\\" + c for c in "{}$&#_%"}
_SPECIAL |= {"\\": r"\backslash ", "~": r"\sim ", "^": r"\wedge ", "<": r"\lt ", ">": r"\gt "}
_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
_SUBSCRIPTED = re.compile(r"(?P<base>[^_^]*)_\{(?P<sub>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")


def latex(graph: Graph) -> str:
    r"""The rows of an `aligned` block, `left &= right`, joined by `\\`."""
    return " \\\\\n".join(f"{left} &= {right}" for left, right in _Formulas(graph).rows())


def legend(graph: Graph) -> list[tuple[str, str]]:
    """The meaning of named values, from comments at the ends of the user's lines: (LaTeX symbol, text)."""
    formulas = _Formulas(graph)
    return [(formulas.symbol(v), v.legend) for v in formulas.named if v.legend]


def symbol(name: str, symbols: Mapping[str, str] | None = None) -> str:
    r"""A name as a LaTeX symbol: `alpha_1` is $\alpha_{1}$, `h0` $h_{0}$, `log_f` $\log f$, `on` $\mathrm{on}$."""
    if symbols and name in symbols:
        return symbols[name]
    base, *rest = [piece for piece in re.split(r"[_.]+", name) if piece] or [r"\_"]
    if base == "log" and rest:
        return r"\log " + symbol("_".join(rest), symbols)
    numbered = re.fullmatch(r"([^\W\d]+)(\d+)", base)
    if numbered:
        base, rest = numbered[1], [numbered[2], *rest]
    below = ",".join(_word(piece) for piece in rest)
    return _word(base) + (f"_{{{below}}}" if below else "")


def upright(text: str) -> str:
    r"""A word in upright letters, `\mathrm{...}`, with LaTeX escaped."""
    return rf"\mathrm{{{''.join(_SPECIAL.get(c, c) for c in text)}}}"


def visible(graph: Graph) -> set[Value]:
    """The values that people see: all except those inside @function calls."""
    seen: set[Value] = set()
    stack = list(graph.roots)
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack.extend(shown_args(value))
    return seen


def shown_args(value: Value) -> tuple[Value, ...]:
    """The operands that people see: those of the call, if the value is one."""
    return value.call.args if value.call else value.args


def call_prefix(value: Value) -> str | None:
    """The name that the weights inside a call share: `nx` for a layer norm with `nx.gain` and `nx.shift`."""
    assert value.call is not None
    outside, stack, names = set(value.call.args), list(value.args), set()
    while stack:
        inner = stack.pop()
        if inner in outside:
            continue
        if inner.op == "weight":
            names.add(str(inner.name).partition(".")[0])
        stack.extend(inner.args)
    return names.pop() if len(names) == 1 else None


def is_shown(value: Value) -> bool:
    """Whether the value has its own row: it has a name and is neither given nor a pre-activation."""
    return value.name is not None and not value.is_leaf and "." not in value.name


def number(value: float) -> str:
    """A number in LaTeX, all its digits: `0.05`, `10^{-6}`, `1.5 \\cdot 10^{-7}`."""
    digits, _, exponent = repr(value).partition("e")
    digits = digits.removesuffix(".0")
    if not exponent:
        return digits
    power = f"10^{{{int(exponent)}}}"
    return power if digits == "1" else f"-{power}" if digits == "-1" else rf"{digits} \cdot {power}"


class _Formulas:
    """Writes one graph as LaTeX."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rates = {i.name: i.rate for i in graph.inputs}
        seen = visible(graph)
        self.results = {graph.output_name: graph.output} | dict(graph.new)
        self.bound = Counter(v.name for v in seen if not v.is_leaf)
        self.finals: dict[Value, str] = {}
        for name, value in self.results.items():
            if not value.is_leaf and (value.name is None or "." in value.name):
                self.finals.setdefault(value, name)
        self.shared = self._shared_calls(seen)
        shown = [v for v in seen if is_shown(v) or v in self.finals or v in self.shared]
        self.named = sorted(shown, key=lambda v: (v.rate > Rate.WEIGHTS, v.order))

    def _shared_calls(self, seen: set[Value]) -> dict[Value, list[Value]]:
        """For calls that return several values, each value's list of all of them, in order."""
        groups: dict[tuple[str, tuple[Value, ...]], list[Value]] = {}
        for value in sorted(seen, key=lambda v: v.order):
            if value.call and value.call.index is not None:
                groups.setdefault((value.call.function, value.call.args), []).append(value)
        whole = [g for g in groups.values() if len(g) > 1 and [_index(v) for v in g] == list(range(len(g)))]
        return {v: group for group in whole for v in group}

    def rows(self) -> Iterable[tuple[str, str]]:
        """The left and right side of each row."""
        written = []
        for value in self.named:
            group = self.shared.get(value, [value])
            written += [self.symbol(v) for v in group if value is group[0]]
            if len(group) == 1:
                yield written[-1], self.expression(value)
            elif value is group[0]:
                yield rf"\left({', '.join(written[-len(group) :])}\right)", self._call(value, whole=True)
        for name, value in self.results.items():
            left = self._timed(name, "t")
            if left not in written:
                written.append(left)
                yield left, self.term(value)

    def symbol(self, value: Value) -> str:
        """The symbol of a named value."""
        name = self.finals.get(value) or value.name or self._call_item(value)
        tex, timed = symbol(name, self.graph.symbols), value.rate > Rate.SEQUENCE
        if not timed and (name in self.graph.weights or name in self.graph.options):
            tex = rf"\bar{{{tex}}}"
        if not value.version and self.results.get(name, value) is not value:
            tex = rf"\tilde{{{tex}}}"
        tex = _at(tex, "t") if timed else tex
        return rf"{tex}^{{({value.version})}}" if value.version and self.bound[name] > 1 else tex

    def _call_item(self, value: Value) -> str:
        assert value.call is not None
        return f"{call_prefix(value) or value.call.function}_{_index(value) + 1}"

    def _timed(self, name: str, time: str) -> str:
        return _at(symbol(name, self.graph.symbols), time)

    def term(self, value: Value, need: int = 0, leading: bool = True) -> str:
        """The value inside a formula: its symbol or its expression, in parentheses if it binds less than `need`, or if
        it begins with a minus sign and is not `leading`."""
        if is_shown(value) or value in self.finals or value in self.shared:
            tex, level = self.symbol(value), 4
        else:
            tex, level = self.expression(value), self._level(value)
        if level < need or (not leading and tex.startswith("-")):
            return rf"\left[{tex}\right]" if value.op in _COMPARISONS else rf"\left({tex}\right)"
        return tex

    def expression(self, value: Value) -> str:
        """The expression that computes the value."""
        if value.call:
            return self._call(value)
        special: Callable[[Value], str] | None = getattr(self, f"_{value.op}", None)
        return special(value) if special else self._templated(value)

    def _level(self, value: Value) -> int:
        if value.call:
            return 4
        if value.op == "constant":
            return 4 if "name" in value.attrs else _number_level(value.attrs["value"])
        if value.op == "where":
            return 0
        if value.op == "linear":
            return 1 if len(value.args) > 2 else 2
        return OPS[value.op].level if value.op in OPS else 4

    def _templated(self, value: Value) -> str:
        row = OPS[value.op]
        if not row.latex:
            return rf"{upright(value.op)}\left({', '.join(self.term(a) for a in value.args)}\right)"
        needs = (*row.binds, *(0,) * (len(value.args) - len(row.binds)))
        first = row.latex.startswith("{0}")
        operands = enumerate(zip(value.args, needs, strict=True))
        return row.latex.format(*(self.term(a, n, leading=n == 0 or (first and k == 0)) for k, (a, n) in operands))

    def _call(self, value: Value, whole: bool = False) -> str:
        call = value.call
        assert call is not None
        prefix = call_prefix(value)
        name = (call.latex or upright(call.function)) + (f"_{{{symbol(prefix)}}}" if prefix else "")
        tex = rf"{name}\left({', '.join(self.term(a) for a in call.args)}\right)"
        return tex if whole or call.index is None else rf"{tex}_{{{call.index + 1}}}"

    def _input(self, value: Value) -> str:
        name = value.attrs["name"]
        return symbol(name, self.graph.symbols) if self.rates[name] == Rate.SEQUENCE else self._timed(name, "t")

    def _old(self, value: Value) -> str:
        return self._timed(value.attrs["name"], "t-1")

    def _weight(self, value: Value) -> str:
        name = str(value.name)
        group, _, last = name.rpartition(".")
        return f"b_{{{self._subscript(group)}}}" if group and last == "bias" else symbol(name, self.graph.symbols)

    def _constant(self, value: Value) -> str:
        name = value.attrs.get("name")
        return number(value.attrs["value"]) if name is None else symbol(name, self.graph.symbols)

    def _linear(self, value: Value) -> str:
        labels = value.attrs["labels"]
        vectors = value.args[1 : 2 * len(labels) : 2]
        letters = ["U" if v.rate == Rate.STATE else "W" for v in vectors]
        name = self._subscript(value.attrs["linear"])
        terms = []
        for label, letter, vector in zip(labels, letters, vectors, strict=True):
            below = f"{name},{self._subscript(label)}" if letters.count(letter) > 1 else name
            terms.append(rf"{letter}_{{{below}}}\, {self.term(vector, 3, leading=False)}")
        bias = [self.term(value.args[-1], 1, leading=False)] if value.attrs["bias"] else []
        return " + ".join(terms + bias)

    def _subscript(self, name: str) -> str:
        """A name as a subscript: its parts side by side, `i_x` as i,x."""
        if name in self.graph.symbols:
            return self.graph.symbols[name]
        return ",".join(_word(piece) for piece in re.split(r"[_.]+", name) if piece) or r"\_"

    def _mul(self, value: Value) -> str:
        a, b = value.args
        left, right = self.term(a, 1 if a.op == "neg" else 2), self.term(b, 2, leading=False)
        if right[0].isdigit():
            return rf"{left} \cdot {right}"
        return left + (r"\, " if SCALAR in (a.size, b.size) else r" \odot ") + right

    def _pow(self, value: Value) -> str:
        return f"{self._raised(value.args[0])}^{{{self.term(value.args[1])}}}"

    def _transpose(self, value: Value) -> str:
        return rf"{self._raised(value.args[0])}^{{\top}}"

    def _raised(self, base: Value) -> str:
        tex = self.term(base, 4, leading=False)
        bare = tex.startswith(r"\log ") or ("^" in tex and not tex.startswith(r"\left("))
        return rf"\left({tex}\right)" if bare else tex

    def _where(self, value: Value) -> str:
        rows: list[str] = []
        while value.op == "where" and not (rows and is_shown(value)):
            condition, then, value = value.args
            rows.append(f"{self.term(then)} & {self.term(condition)}")
        rows.append(rf"{self.term(value)} & \text{{otherwise}}")
        return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"

    def _concat(self, value: Value) -> str:
        parts = r";\, ".join(self.term(a) for a in value.args)
        return rf"\left[{parts}\right]"

    def _total(self, value: Value) -> str:
        below = "" if value.size == SCALAR else f"_{{{value.size[0]}}}"
        return rf"\operatorname{{sum}}{below}\left({self.term(value.args[0])}\right)"


def _at(tex: str, time: str) -> str:
    """A symbol with a time subscript, beside the subscripts it has."""
    match = _SUBSCRIPTED.fullmatch(tex)
    if match:
        return f"{match['base']}_{{{match['sub']},{time}}}"
    return f"{{{tex}}}_{{{time}}}" if "^" in tex or "_" in tex else f"{tex}_{{{time}}}"


def _word(piece: str) -> str:
    if piece in GREEK:
        return "\\" + piece
    return _WORDS.get(piece) or (piece if re.fullmatch(r"[A-Za-z]?\d*|\\_", piece) else upright(piece))


def _index(value: Value) -> int:
    assert value.call is not None
    return value.call.index or 0


def _number_level(value: float) -> int:
    tex = number(value)
    return 2 if r"\cdot" in tex else 3 if "^" in tex or value < 0 else 4
