"""What leaves a call on the reference path: right answers all the same, and one notice with the reason."""

import errno
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from native_layers import counted_runs
from tidegate.errors import NativeError, TidegateNotice
from tidegate.native import _llvm
from tidegate.native.run import cache, kernel
from tidegate.nn import Recurrent
from tidegate.runtime import support

T, B, I, H = 4, 3, 2, 5  # noqa: E741 - the project's word for the input size

pytestmark = pytest.mark.kernels


@pytest.fixture
def layer() -> Recurrent:
    return Recurrent("gru", I, H)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(T, B, I)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As in a new process of a user who never had a kernel."""
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_warned", [])
    forget()
    yield
    forget()


def forget() -> None:
    for cached in (support.warn_once, support.compiled, kernel.kernel):
        cached.cache_clear()


def notices(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(w.category is TidegateNotice for w in caught)
    return caught


def said(call: Callable[[], Any]) -> list[str]:
    return [str(w.message) for w in notices(call)]


def refused(reason: str) -> list[str]:
    return [f"cell 'gru' computes on the reference path: {reason}"]


def assert_on_reference(layer: Recurrent, x: Tensor, reason: str) -> None:
    """A layer says once why it has no kernels, and computes, forward and backward, what it does without."""
    assert said(lambda: layer(x)) == refused(reason)
    with support.disabled():
        expected = results(layer, x)
    with counted_runs() as runs:
        assert not said(lambda: Recurrent("gru", I, H)(x))
        found = results(layer, x)
    assert not runs
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def results(layer: Recurrent, x: Tensor) -> list[Tensor]:
    y, state = layer(x)
    return [y, state["h"], *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]


# types


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_other_types_of_numbers(layer: Recurrent, x: Tensor, kind: torch.dtype, forgotten: None) -> None:
    reason = f"kernels are for float32 and float64, got weights of {kind}"
    assert said(lambda: layer.to(kind)(x.to(kind))) == refused(reason)
    assert not said(lambda: layer(x.to(kind)))


def test_autocast(layer: Recurrent, x: Tensor, forgotten: None) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert said(lambda: layer(x)) == refused("autocast is on, under which kernels do not run")
        assert not said(lambda: layer(x.bfloat16()))
    assert not said(lambda: layer(x))


def test_tensors_of_several_types(layer: Recurrent, x: Tensor, forgotten: None) -> None:
    layer.get_submodule("l0.n").double()
    with pytest.warns(TidegateNotice) as caught, pytest.raises(RuntimeError, match="same dtype"):
        layer(x)
    reason = "its tensors have several types: torch.float32, torch.float64"
    assert [str(w.message) for w in caught] == refused(reason)


def test_a_notice_points_at_the_callers_line(layer: Recurrent, x: Tensor, forgotten: None) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        (notice,) = notices(lambda: layer(x))
    assert notice.filename == __file__


def test_each_cell_says_it(layer: Recurrent, x: Tensor, forgotten: None) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert len(said(lambda: [Recurrent(name, I, H)(x) for name in ("gru", "lstm", "gru")])) == 2


# by design


def test_what_is_asked_for_or_documented_needs_no_notice(layer: Recurrent, x: Tensor, forgotten: None) -> None:
    def all_of_it() -> None:
        with support.disabled():
            assert not support.enabled()
            layer(x)
        torch.vmap(lambda r: layer(x, reset=r)[0])(torch.rand(2, T, B) < 0.5)
        Recurrent("gru", I, H, device="meta")(x.to("meta"))
        layer(x[:0])

    with counted_runs() as runs:
        assert not said(all_of_it)
    assert not runs


def test_disabled_may_be_nested() -> None:
    with support.disabled():
        with support.disabled():
            pass
        assert not support.enabled()
    assert support.enabled()
    with pytest.raises(KeyError), support.disabled():
        raise KeyError
    assert support.enabled()


# no kernels


def test_a_compiler_that_fails(layer: Recurrent, x: Tensor, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> bytes:
        raise NativeError("LLVM could not compile a module: it is too deep.")

    monkeypatch.setattr(_llvm, "compile_object", fails)
    assert_on_reference(layer, x, "LLVM could not compile a module: it is too deep.")


def test_no_steppers_kernel(x: Tensor, layer: Recurrent, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> bytes:
        raise NativeError("LLVM could not compile a module: it is too deep.")

    monkeypatch.setattr(_llvm, "compile_object", fails)
    stepper = layer.stepper(B)
    assert said(lambda: stepper(x[0])) == refused("LLVM could not compile a module: it is too deep.")
    assert not said(lambda: stepper(x[1]))
    with support.disabled():
        assert torch.allclose(stepper(x[2]), layer(x[:3])[0][2], rtol=0, atol=1e-6)


def test_an_unknown_target(layer: Recurrent, x: Tensor, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TARGET", "avx1024")
    with pytest.raises(NativeError) as caught:
        kernel.kernel(layer.graph, "float32")
    assert str(caught.value).startswith("TIDEGATE_TARGET must be ")
    assert_on_reference(layer, x, str(caught.value))


def stderr_of(program: str, **environment: str) -> list[str]:
    """The lines that a process of its own writes while it computes; it must not fail."""
    run = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stderr.splitlines()


def test_without_llvmlite() -> None:
    notice, *others = stderr_of(
        "import sys\n"
        "sys.modules['llvmlite'] = None\n"
        "import torch, tidegate\n"
        "layer, x = tidegate.Recurrent('gru', 2, 5), torch.randn(4, 3, 2)\n"
        "found = [layer(x)[0], *torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))]\n"
        "layer.stepper(3)(x[0])\n"
        "with tidegate.runtime.support.disabled():\n"
        "    expected = [layer(x)[0], *torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))]\n"
        "assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))\n"
    )
    assert notice.partition("TidegateNotice: ")[2] == (
        "cell 'gru' computes on the reference path: Native kernels need llvmlite, which cannot be imported: "
        "import of llvmlite halted; None in sys.modules. Layers use the reference path; to repair it: "
        "pip install --force-reinstall --no-deps llvmlite"
    )
    assert not [line for line in others if "Notice" in line]


@pytest.mark.slow
def test_the_switch_in_the_environment() -> None:
    assert not stderr_of(
        "import torch, tidegate\n"
        "from tidegate.native.run import kernel\n"
        "def fails(*_): raise AssertionError\n"
        "kernel.Kernel.__init__ = fails\n"
        "assert not tidegate.runtime.support.enabled()\n"
        "tidegate.GRU(2, 5)(torch.randn(4, 3, 2))\n",
        TIDEGATE_NATIVE="0",
    )


# a disk that does not keep


def no_room(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    ("fault", "reason"), [(no_room, "No space left on device"), (read_only, "Read-only file system")]
)
def test_kernels_that_cannot_be_kept(
    layer: Recurrent,
    x: Tensor,
    fault: Any,
    reason: str,
    forgotten: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """They run all the same."""
    monkeypatch.setattr(tempfile, "mkstemp", fault)
    expected = (
        f"Compiled kernels cannot be cached on disk ({tmp_path / 'kernels'}: {reason}), so each process compiles them "
        "again. Set TIDEGATE_CACHE to a folder that only you can write to."
    )
    with counted_runs() as runs:
        assert said(lambda: layer(x)) == [expected]
        assert not said(lambda: Recurrent("lstm", I, H)(x))
    assert runs == ["forward", "forward"]
    assert cache.held() == (0, 0)


def test_a_damaged_entry_is_made_again(layer: Recurrent, x: Tensor, forgotten: None, tmp_path: Path) -> None:
    first, _ = layer(x)
    (entry,) = (tmp_path / "kernels").iterdir()
    whole = entry.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2), b""):
        entry.write_bytes(damaged)
        forget()
        again = Recurrent("gru", I, H)
        again.load_state_dict(layer.state_dict())
        assert torch.equal(again(x)[0], first)
        assert entry.read_bytes() == whole
