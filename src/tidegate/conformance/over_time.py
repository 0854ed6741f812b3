"""Promises about steps, chunks, lengths, rows and resets."""

import torch
from torch import Tensor

from tidegate.conformance.subject import CheckedCell, H, expect, expect_near, expect_states
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, State
from tidegate.runtime import support

T, B = 5, 4
WHOLE, LENGTHS = [T] * B, [5, 2, 0, 3]
RESET = torch.zeros(T, B, dtype=torch.bool)
RESET[0, 0] = RESET[2, 0] = RESET[1, 1] = RESET[3, 2] = RESET[2, 3] = True  # the third row has ended by then
NEVER = torch.zeros(T, B, dtype=torch.bool)


def sequence(subject: CheckedCell) -> None:
    """A whole sequence gives what the reference computes step by step."""
    layer, x = subject.layer(), subject.inputs(T, B)
    state = subject.state(layer, B)
    for what, begin in (("from the own start", None), ("from a state", state)):
        right, ends = subject.slowly(layer, x, begin, WHOLE, NEVER)
        y, end = layer(x, begin)
        expect_near(f"output {what}", y, right)
        expect_states(what, end, ends)


def steps_and_chunks(subject: CheckedCell) -> None:
    """Steps, chunks and a stepper give what the whole sequence gives."""
    layer, x = subject.layer(), subject.inputs(T, B)
    with torch.no_grad():
        right, end = layer(x)
        ends = dict(end.layers[0][0])
        for what, cuts in (("steps", range(T)), ("chunks", (0, 2, 3))):
            state, parts = None, []
            for a, b in zip(cuts, [*list(cuts)[1:], T], strict=True):
                y, state = layer(subject.moving(x, slice(a, b)), state)
                parts.append(y)
            expect_near(what, torch.cat(parts), right)
            assert state is not None
            expect_states(what, state, ends)
        state, outputs = None, []
        for t in range(T):
            y, state = layer.step(subject.at(x, t), state)
            outputs.append(y)
        expect_near("layer.step", torch.stack(outputs), right)
        stepper, outputs = layer.stepper(B), []
        for t in range(T):
            given = {n: v.numpy() for n, v in subject.at(x, t).items()}
            outputs.append(torch.as_tensor(stepper(given if len(given) > 1 else next(iter(given.values())))).clone())
        expect_near("stepper", torch.stack(outputs), right)


def lengths(subject: CheckedCell) -> None:
    """A row with a length gives what it gives alone: zeros after its end, and the state at its end."""
    layer, x = subject.layer(), subject.inputs(T, B)
    state = subject.state(layer, B)
    right, ends = subject.slowly(layer, x, state, LENGTHS, NEVER)
    y, end = layer(x, state, lengths=LENGTHS)
    expect_near("output", y, right)
    expect_states("at the rows' ends", end, ends)
    for b, n in enumerate(LENGTHS):
        alone, _ = layer(subject.rows(subject.moving(x, slice(0, n)), slice(b, b + 1)), state.rows([b]))
        expect_near(f"row {b} alone", y[:n, b : b + 1], alone)


def backward_direction(subject: CheckedCell) -> None:
    """The backward direction reads each row from its own end; a bidirectional layer refuses steps and states."""
    layer, x = subject.layer(bidirectional=True), subject.inputs(T, B)
    one = Recurrent(subject.cell, subject.input_size, H, **subject.letters).double().eval()
    source = layer.state_dict()
    one.load_state_dict({k: source[k.replace("l0.", "l0_reverse.", 1)] for k in one.state_dict()})
    y, _ = layer(x, lengths=LENGTHS)
    width = y.shape[-1] // 2
    for b, n in enumerate(LENGTHS):
        row = subject.rows(subject.moving(x, slice(0, n)), slice(b, b + 1))
        turned, _ = one({k: v.flip(0) if v.dim() == 3 else v for k, v in row.items()})
        expect_near(f"backward direction of row {b}", y[:n, b : b + 1, width:], turned.flip(0))
    state = layer.initial_state(B)
    for what, call in (
        ("a carried state", lambda: layer(x, state)),
        ("step", lambda: layer.step(subject.at(x, 0))),
        ("stepper", lambda: layer.stepper(B)),
    ):
        try:
            call()
        except ArgumentError:
            continue
        expect(False, f"a bidirectional layer accepts {what}, but must refuse it")


def resets(subject: CheckedCell) -> None:
    """A reset starts a row afresh from the layer's own start; with lengths, both hold."""
    layer, x = subject.layer(), subject.inputs(T, B)
    state = subject.state(layer, B)
    for what, n in (("whole rows", WHOLE), ("rows with lengths", LENGTHS)):
        right, ends = subject.slowly(layer, x, state, n, RESET)
        y, end = layer(x, state, lengths=n, reset=RESET)
        expect_near(f"output, {what}", y, right)
        expect_states(what, end, ends)


def order_of_rows(subject: CheckedCell) -> None:
    """Rows are independent: in another order they give the same bits."""
    layer, x = subject.layer(), subject.inputs(T, B)
    state, order = subject.state(layer, B), [2, 0, 3, 1]
    with torch.no_grad():
        y, end = layer(x, state, reset=RESET)
        other, moved = layer(subject.rows(x, order), state.rows(order), reset=RESET[:, order])
    tolerance = 0.0 if support.enabled() else 1e-12
    expect_near("output in another order of rows", other, y[:, order], tolerance)
    expect_states("in another order of rows", moved, dict(end.rows(order).layers[0][0]), tolerance)


def nothing(subject: CheckedCell) -> None:
    """T=0, B=0 and lengths of 0 leave the state unchanged."""
    layer = subject.layer()
    state = subject.state(layer, B)
    y, end = layer(subject.inputs(0, B), state)
    expect(tuple(y.shape) == (0, B, layer.output_size), f"with T=0 the output is {list(y.shape)}")
    expect_states("T 0", end, dict(state.layers[0][0]))
    y, _ = layer(subject.inputs(T, 0))
    expect(tuple(y.shape) == (T, 0, layer.output_size), f"with B=0 the output is {list(y.shape)}")
    y, end = layer(subject.inputs(T, B), state, lengths=[0] * B)
    expect(not bool(y.any()), "rows of length 0 have an output that is not 0")
    expect_states("length 0", end, dict(state.layers[0][0]))


def threads(subject: CheckedCell) -> None:
    """Any number of threads gives the same bits, gradients included."""
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            layer, x = subject.layer(), subject.inputs(T, 6)
            y, end = layer(x)
            parameters = list(layer.parameters())
            gradients = torch.autograd.grad(y.sin().sum(), parameters, allow_unused=True)
            found.append([y, *end.layers[0][0].values(), *(g for g in gradients if g is not None)])
    finally:
        torch.set_num_threads(before)
    same = all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    if support.enabled():
        expect(same, "results with two threads differ from those with one")
    else:
        for a, b in zip(*found, strict=True):
            expect_near("with two threads", a, b)


def fresh_weights(subject: CheckedCell) -> None:
    """Weights are read at each call: changes in place, by `.data` or by loading take effect at once."""
    layer, x = subject.layer(), subject.inputs(T, B)
    other = subject.layer(seed=7)
    with torch.no_grad():
        for _ in range(3):
            layer(x)
        for what, change in (
            ("in place", lambda p, q: p.copy_(q)),
            ("by .data", lambda p, q: setattr(p, "data", q.detach().clone() * 0.9)),
        ):
            for p, q in zip(layer.parameters(), other.parameters(), strict=True):
                change(p, q)
            right, _ = subject.slowly(layer, x, None, WHOLE, NEVER)
            expect_near(f"after weights changed {what}", layer(x)[0], right)
        layer.load_state_dict(other.state_dict())
        expect_near("after weights were loaded", layer(x)[0], subject.slowly(layer, x, None, WHOLE, NEVER)[0])


def kernels(subject: CheckedCell) -> None:
    """Native kernels agree with the reference path: values and gradients, with lengths and resets."""
    layer, x = subject.layer(), subject.inputs(T, B)
    state = subject.state(layer, B)
    ours = _everything(layer, x, state)
    with support.disabled():
        theirs = _everything(layer, x, state)
    for name, value in theirs.items():
        expect_near(name, ours[name], value, 1e-10)


def _everything(layer: Recurrent, x: dict[str, Tensor], state: State) -> dict[str, Tensor]:
    given = {n: v.clone().requires_grad_(v.is_floating_point()) for n, v in x.items()}
    y, end = layer(given, state, lengths=LENGTHS, reset=RESET)
    found = {"output": y, **{f"state {n!r}": v for n, v in end.layers[0][0].items()}}
    moving = [v for v in found.values() if v.requires_grad]
    wanted = {**given, **dict(layer.named_parameters())}
    taken = torch.autograd.grad(sum(v.sin().sum() for v in moving), list(wanted.values()), allow_unused=True)
    gradients = {f"gradient of {n!r}": g for n, g in zip(wanted, taken, strict=True) if g is not None}
    return {**found, **gradients}
