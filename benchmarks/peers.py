"""Against whom we are measured: one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

from benchmarks import diagonal, loops, ort, published, rtrl
from benchmarks.contestants import Contestant, module
from benchmarks.problem import Problem
from benchmarks.rows import FORWARD, MATRIX, RFLO, SNAP, TRAINING
from tidegate.errors import ArgumentError

INSTALL = "pip install 'tidegate[bench]'"


@dataclass(frozen=True)
class Peer:
    """Who it is, what of it is timed, which problems it can solve, and how it is made for one.

    Where `whats` compute different things, it is made for one of them.
    `lacks` says what is not installed of what it needs, and `install` how it would be.
    A peer that is `patient` takes minutes to get ready: it comes
    only where it is asked for by name.
    """

    stands_for: str
    whats: tuple[str, ...]
    can: Callable[[Problem], bool]
    make: Callable[..., Any]
    lacks: str | None = None
    patient: bool = False
    install: str = INSTALL


def _of_torch(problem: Problem) -> Contestant:
    return module(problem, nn)


def _has_loop(problem: Problem) -> bool:
    loop = loops.LOOPS.get(problem.cell.name)
    return loop is not None and all(name in problem.weights for stack in loop.stacks for name in stack)


def _has_step(problem: Problem) -> bool:
    return problem.mode is None and problem.cell.name in rtrl.STEPS


BOTH = (FORWARD, TRAINING)
PEERS: Mapping[str, Peer] = {
    "torch": Peer("torch.nn.LSTM, GRU and RNN", BOTH, lambda p: p.mode is not None, _of_torch),
    "eager": Peer("a loop over time in Python", BOTH, _has_loop, loops.eager),
    "compile": Peer("that loop with torch.compile", BOTH, _has_loop, loops.compiled, patient=True),
    "torchrecurrent": Peer(
        "published cells in PyTorch",
        BOTH,
        lambda p: p.cell.name in published.MODULES,
        published.layer,
        None if published.torchrecurrent else "torchrecurrent",
    ),
    "onnxruntime": Peer(
        "its LSTM, GRU and RNN, for inference",
        (FORWARD,),
        lambda p: p.cell.name in ort.NODES and p.lengths is None,
        ort.Session,
        ort.LACKS,
    ),
    "torch.func": Peer("RTRL with the Jacobians of a plain step", (MATRIX,), _has_step, rtrl.ByTorch),
    "jax": Peer(
        "RTRL of a plain step, compiled",
        (MATRIX,),
        _has_step,
        rtrl.ByJax,
        None if rtrl.jax else "jax",
        install="pip install jax",
    ),
    "braintrace": Peer(
        "its eligibility traces of a tanh layer, compiled",
        (SNAP, RFLO),
        lambda p: p.cell.name == "elman" and p.x.shape[1] == 1,
        diagonal.ByBraintrace,
        diagonal.LACKS,
        install="pip install braintrace",
    ),
}


def absent(names: Iterable[str]) -> list[str]:
    """A sentence for each of these peers that is not installed."""
    return [
        f"{name} is left out because {PEERS[name].lacks} cannot be imported: {PEERS[name].install}"
        for name in names
        if PEERS[name].lacks
    ]


def check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ArgumentError for a name that is not among the known ones."""
    every = list(known)
    for name in names:
        if name not in every:
            near = get_close_matches(name.lower(), every, n=1, cutoff=0.5)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ArgumentError(f"there is no {what} {name!r}{hint} The {what}s are {', '.join(every)}")
