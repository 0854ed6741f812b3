"""Functions of the language: inlined for machines, shown as calls to people."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from tidegate.equations.names import check_name
from tidegate.equations.tracer import reading
from tidegate.equations.values import FunctionCall, Operand, Value, fail, finite, lift, show_size, shown
from tidegate.equations.weights import weight
from tidegate.equations.words import maximum, mean, minimum, sigmoid, sqrt, stop, vector


def named(name: str, value: Operand) -> Value:
    """Name a value by hand; otherwise it takes the name of the variable that first holds it."""
    tracer, v = reading("named()"), lift(value)
    check_name(name, "the name of a value")
    if v.is_leaf:
        what = {"old": "a state", "weight": "a weight", "input": "an input"}.get(v.op, "a number")
        fail(f"named({name!r}, ...) takes a computed value, got {what}, which prints by its own name or value")
    return tracer.rename(v, name)


@overload
def function(body: Callable[..., Any]) -> Callable[..., Any]: ...
@overload
def function(*, latex: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def function(body: Callable[..., Any] | None = None, *, latex: str | None = None) -> Callable[..., Any]:
    """Make a function of the language: inlined for machines, shown as a call to people."""

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isfunction(inner) or not inner.__name__.isidentifier():
            fail(f"@function takes a function defined with def, whose name is shown, got {shown(inner)}")

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(inner).bind(*args, **kwargs)
            visible = _arguments(bound.args)
            result = inner(*args, **kwargs)
            several = isinstance(result, list | tuple)
            for k, v in enumerate(result if several else [result]):
                if isinstance(v, Value) and not v.is_leaf and v.call is None and not any(v is a for a in visible):
                    v.call = FunctionCall(inner.__name__, visible, k if several else None, latex)
            return result

        return call

    return decorate if body is None else decorate(body)


def _arguments(args: tuple[Any, ...]) -> tuple[Value, ...]:
    """The arguments that people see: values and numbers, but no names or switches."""
    flat = [item for a in args for item in (a if isinstance(a, list | tuple) else (a,))]
    return tuple(lift(a) for a in flat if isinstance(a, Value) or finite(a) is not None)


@function(latex=r"\operatorname{SiLU}")
def silu(v: Value) -> Value:
    """v sigmoid(v) (Elfwing, Uchibe & Doya 2018, arXiv:1702.03118)."""
    return v * sigmoid(v)


@function(latex=r"\operatorname{hard}\sigma")
def hard_sigmoid(v: Value) -> Value:
    """min(max(v / 6 + 1/2, 0), 1), as torch has it."""
    return minimum(maximum(v / 6.0 + 0.5, 0.0), 1.0)


@function(latex=r"\operatorname{hard}\tanh")
def hard_tanh(v: Value) -> Value:
    """min(max(v, -1), 1)."""
    return minimum(maximum(v, -1.0), 1.0)


@function(latex=r"\operatorname{LN}")
def layer_norm(name: str, *vectors: Value, gain: float = 1.0, epsilon: float = 1e-5) -> Any:
    """Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) with one mean and one variance over all the
    vectors given, which must have the same size; each has its gain and shift. One vector in, one out; several, a list.
    """
    vectors = _to_normalise("layer_norm", name, vectors)
    centre = _mean_of(vectors)
    deviations = [v - centre for v in vectors]
    scale = 1.0 / sqrt(_mean_of([d * d for d in deviations]) + epsilon)
    results = []
    for k, (v, d) in enumerate(zip(vectors, deviations, strict=True)):
        suffix = str(k) if len(vectors) > 1 else ""
        scaled = weight(f"{name}.gain{suffix}", init=gain, size=str(v.size[0])) * (d * scale)
        results.append(scaled + weight(f"{name}.shift{suffix}", size=str(v.size[0])))
    return results if len(results) > 1 else results[0]


@function(latex=r"\operatorname{RMS}")
def rms_norm(name: str, vector: Value, gain: float = 1.0, epsilon: float = 1e-5) -> Value:
    """Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    (vector,) = _to_normalise("rms_norm", name, (vector,))
    scale = 1.0 / sqrt(mean(vector * vector) + epsilon)
    return weight(f"{name}.gain", init=gain, size=str(vector.size[0])) * (vector * scale)


@function(latex=r"\operatorname{ST}")
def straight_through(hard: Value, soft: Value) -> Value:
    """`hard` on the way forward, the gradient of `soft` on the way back (Bengio, Leonard & Courville 2013)."""
    return soft + stop(hard - soft)


def _to_normalise(word: str, name: object, given: tuple[object, ...]) -> tuple[Value, ...]:
    check_name(name, f"the name that {word}() begins with")
    vectors = tuple(vector(word, v) for v in given)
    if len({v.size for v in vectors}) != 1:
        found = ", ".join(show_size(v.size) for v in vectors) or "none"
        fail(f"{word}(name, ...) takes vectors of one size, got {found}")
    return vectors


def _mean_of(vectors: Any) -> Value:
    means = [mean(v) for v in vectors]
    return functools.reduce(lambda a, b: a + b, means) / float(len(means)) if len(means) > 1 else means[0]
