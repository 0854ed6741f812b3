"""Faults that layers once had, each with its kind: forks, empty batches, wrong weights and states, late changes."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tidegate as tg
from tidegate.errors import ArgumentError
from tidegate.gradients import RTRL, gradient, sweep
from tidegate.nn import Recurrent, State
from tidegate.runtime import support

T, B, I, H = 5, 3, 4, 6  # noqa: E741 - the project's word for the input size


# a fork while another thread is inside LLVM


@pytest.mark.kernels
@pytest.mark.parametrize("held", [True, False])
def test_a_forked_child_computes(held: bool) -> None:
    """The child has LLVM only if no other thread was inside it; either way its answers are right."""
    script = f"""
        import os, threading, warnings
        import torch
        import tidegate as tg
        from tidegate.native import _llvm

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        layer, other, x = tg.Recurrent("lstm", 3, 5), tg.Recurrent("gru", 3, 5), torch.randn(4, 2, 3)
        y = layer(x)[0]
        inside, leave = threading.Event(), threading.Event()

        def compile():
            with _llvm._llvm_errors("compile"), _llvm._one_at_a_time:
                inside.set()
                leave.wait()

        if {held}:
            threading.Thread(target=compile, daemon=True).start()
            inside.wait()
        child = os.fork()
        if child == 0:
            right = torch.equal(layer(x)[0], y) and other(x)[0].shape == (4, 2, 5)
            fresh = tg.Recurrent("elman", 3, 5)(x)[0]
            os._exit(0 if right and fresh.isfinite().all() and bool(_llvm._broken) == {held} else 1)
        leave.set()
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=100)


# nothing to compute


def empty(made: nn.Module, how: str) -> tuple[Tensor, list[Tensor]]:
    if how == "no steps":
        y, state = made(torch.randn(0, B, I))
    elif how == "no rows":
        y, state = made(torch.randn(T, 0, I))
    else:
        y, state = made(torch.randn(T, B, I), lengths=[0] * B)
    found = state.layers[0][0].values() if isinstance(state, State) else state
    return y, list(found)


@pytest.mark.parametrize("how", ["no steps", "no rows", "no lengths"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Recurrent("lstm", I, H),
        lambda: Recurrent("lstm", I, H, num_layers=2, bidirectional=True),
        lambda: tg.LSTM(I, H, num_layers=2),
    ],
    ids=["lstm", "deep", "drop-in"],
)
@pytest.mark.parametrize("native", [True, False])
def test_an_empty_batch_has_zero_gradients(how: str, make: Callable[[], nn.Module], native: bool) -> None:
    made = make()
    for _ in range(3):
        made.zero_grad()
        if native:
            y, ends = empty(made, how)
        else:
            with support.disabled():
                y, ends = empty(made, how)
        (y.sum() + sum(e.sum() for e in ends)).backward()
        assert all(p.grad is not None and not p.grad.any() for p in made.parameters())


@pytest.mark.parametrize("reset", [False, True])
def test_a_row_without_steps_may_start_anywhere(reset: bool) -> None:
    """Its state may be NaN: it comes back as it was, and nothing else is NaN, as on kernels."""
    layer, x = Recurrent("lstm", I, H).double(), torch.randn(T, B, I, dtype=torch.float64)
    begin = layer.initial_state(B).map(lambda t: t.clone().index_fill_(0, torch.tensor(1), torch.nan))
    flags = torch.rand(T, B) < 0.3 if reset else None
    found = []
    for native in (True, False):
        layer.zero_grad()
        if native:
            y, end = layer(x, begin, lengths=[T, 0, 2], reset=flags)
            (y.sum() + end["c"][0, [0, 2]].sum()).backward()
        else:
            with support.disabled():
                y, end = layer(x, begin, lengths=[T, 0, 2], reset=flags)
                (y.sum() + end["c"][0, [0, 2]].sum()).backward()
        assert end["h"][0, 1].isnan().all()
        found.append([y.detach(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    for a, b in zip(*found, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# what a caller changes afterwards


@pytest.mark.parametrize("what", ["reset", "lengths"])
def test_flags_and_lengths_may_change_after_the_call(what: str) -> None:
    layer, x = Recurrent("lstm", I, H).double(), torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    given: dict[str, Tensor] = {
        "reset": torch.rand(T, B) < 0.5,
        "lengths": torch.tensor([T, 2, 3]),
    }
    second = []
    for change in (False, True):
        option = {what: given[what].clone()}
        y, _ = layer(x, **option)
        if change:
            option[what].zero_()
        (first,) = torch.autograd.grad(y.sin().sum(), [x], create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), [x])[0])
    assert torch.equal(*second)


def test_a_forward_rule_refuses_inputs_that_changed_before_its_backward_pass() -> None:
    layer, x = Recurrent("elman", I, H), torch.randn(T, B, I)

    def score(y: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return y.square().sum(), torch.ones(())

    ((loss, _),) = sweep(RTRL(), layer, T, lambda a, b, state: layer(x[a:b], state), score)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# weights and states of other shapes and types


def replaced(module: nn.Module, name: str, value: Tensor) -> None:
    holder, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(holder), leaf, nn.Parameter(value))


WRONG: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "lstm": (lambda: Recurrent("lstm", I, H), "l0.i.x", "weight 'i.x' of cell 'lstm' must be [6, 4], got [2, 2]"),
    "second layer": (
        lambda: Recurrent("gru", I, H, num_layers=2),
        "l1.z.h",
        "weight 'z.h' of cell 'gru' must be [6, 6], got [2, 2]",
    ),
    "drop-in": (lambda: tg.LSTM(I, H), "weight_ih_l0", "weight_ih_l0 must be [24, 4], got [2, 2]"),
    "deep drop-in": (lambda: tg.GRU(I, H, 2), "weight_hh_l1", "weight_hh_l1 must be [18, 6], got [2, 2]"),
    "both directions": (
        lambda: tg.LSTM(I, H, 2, bidirectional=True),
        "weight_ih_l1_reverse",
        "weight_ih_l1_reverse must be [24, 12], got [2, 2]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_weight_of_another_shape_is_refused(name: str, calls: int) -> None:
    make, weight, text = WRONG[name]
    made, x = make(), torch.randn(T, B, I)
    for _ in range(calls):
        made(x)
    replaced(made, weight, torch.zeros(2, 2))
    for _ in range(3):
        with pytest.raises(ArgumentError) as error:
            made(x)
        assert str(error.value).startswith(text)


@pytest.mark.parametrize("cell", ["lstm", "indrnn", "lru"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_state_of_another_type_is_refused(cell: str, dtype: torch.dtype) -> None:
    layer = Recurrent(cell, I, I, **({"N": I} if cell == "lru" else {}))
    state = layer.initial_state(B).to(dtype)
    name = next(iter(state.layers[0][0]))
    uses: list[Callable[[], Any]] = [
        lambda: layer(torch.randn(T, B, I), state),
        lambda: layer.step(torch.randn(B, I), state),
        lambda: layer.stepper(B, state),
        lambda: layer.trace(torch.randn(T, B, I), state),
    ]
    for use in uses:
        with pytest.raises(ArgumentError) as error:
            use()
        assert str(error.value) == (
            f"state {name!r} of layer 0 must be torch.float32 as the weights are, got {dtype}: "
            "convert it with .to(torch.float32)"
        )


def test_a_drop_ins_state_of_another_type_is_refused() -> None:
    layer, state = tg.LSTM(I, H), (torch.zeros(1, B, H), torch.zeros(1, B, H, dtype=torch.float64))
    for _ in range(3):
        with pytest.raises(ArgumentError, match=r"c_0 must be torch.float32 as the weights are, got torch.float64"):
            layer(torch.randn(T, B, I), state)


# other devices, and torch.compile


def test_a_drop_in_on_the_meta_device_takes_lengths() -> None:
    x = torch.empty(T, B, I, device="meta")
    y, (h, c) = tg.LSTM(I, H, bidirectional=True, device="meta")(x, lengths=[T, 0, 2])
    assert (y.shape, h.shape, c.shape) == ((T, B, 2 * H), (2, B, H), (2, B, H))
    assert y.is_meta


@pytest.mark.parametrize("first", ["layer", "dynamo"])
def test_torch_compile_takes_drop_ins(first: str) -> None:
    """Made before or after dynamo was loaded, alone and in a model; in a process that has not loaded it yet."""
    imports = ["import tidegate as tg; layer = tg.LSTM(3, 5)", "import torch._dynamo"]
    script = "\n".join(
        [
            "import sys, warnings, torch",
            *(imports if first == "layer" else imports[::-1]),
            "warnings.simplefilter('ignore')",
            "x = torch.randn(4, 2, 3)",
            "for module in (layer, torch.nn.Sequential(tg.GRU(3, 5))):",
            "    y = torch.compile(module, fullgraph=True, backend='aot_eager')(x)",
            "    assert torch.allclose(y[0], module(x)[0], atol=1e-6)",
        ]
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_making_a_drop_in_does_not_load_dynamo() -> None:
    script = "import sys, tidegate as tg; tg.LSTM(3, 5); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_gradient_of_nothing_by_a_forward_rule() -> None:
    layer = Recurrent("min_gru", I, H)
    found = gradient(layer, torch.randn(0, B, I), torch.zeros(0, B, H), lambda y, _: y.sum(), rule=RTRL())
    assert all(not g.any() for g in found.values())
