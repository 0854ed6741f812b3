"""The choice of a target: supported targets, TIDEGATE_TARGET, and the errors where they disagree."""

import re

import pytest

from tidegate.errors import NativeError
from tidegate.native import cpu
from tidegate.native.target import AVX2, AVX512, TARGETS, Target

NARROW = frozenset({"sse4.2", "avx", "avx2", "fma", "bmi2", "f16c"})
WIDE = NARROW | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cpu.CHOICE, raising=False)


def has(features: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "host_features", lambda: features)


@pytest.mark.parametrize(
    ("features", "target"),
    [(WIDE, AVX512), (NARROW, AVX2), (WIDE - {"avx512dq"}, AVX2), (WIDE | {"amx-tile"}, AVX512)],
)
def test_the_widest_that_is_whole(features: frozenset[str], target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    has(features, monkeypatch)
    assert cpu.host() is target


@pytest.mark.parametrize("name", ["avx512", "avx2"])
def test_a_narrower_one_can_be_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has(WIDE, monkeypatch)
    monkeypatch.setenv(cpu.CHOICE, name)
    assert cpu.host() is TARGETS[name]


@pytest.mark.parametrize(
    ("wanted", "features", "message"),
    [
        (
            "avx512",
            WIDE - {"avx512dq", "avx512vl"},
            "TIDEGATE_TARGET must be avx2 on this machine, got 'avx512', which needs avx512dq, avx512vl.",
        ),
        ("neon", WIDE, "TIDEGATE_TARGET must be avx512 or avx2 on this machine, got 'neon'."),
        (
            "",
            NARROW - {"avx2", "fma"},
            "Native kernels need a processor with avx512 or avx2, and this one supports neither: avx512 lacks avx512f, "
            "avx512bw, avx512cd, avx512dq, avx512vl, fma; avx2 lacks avx2, fma. Layers use the reference path.",
        ),
    ],
)
def test_what_cannot_be(wanted: str, features: frozenset[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has(features, monkeypatch)
    monkeypatch.setenv(cpu.CHOICE, wanted)
    with pytest.raises(NativeError, match=f"^{re.escape(message)}$"):
        cpu.host()


def test_the_choice_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    has(WIDE, monkeypatch)
    for wanted, target in (("", AVX512), ("avx2", AVX2), ("", AVX512)):
        monkeypatch.setenv(cpu.CHOICE, wanted)
        assert cpu.host() is target


def test_this_machine_is_described_by_what_targets_need(monkeypatch: pytest.MonkeyPatch) -> None:
    has(NARROW, monkeypatch)
    monkeypatch.setattr(cpu, "host_name", lambda: "haswell")
    assert cpu.described() == "haswell avx2 fma bmi2 f16c"


def test_vectors_hold_what_they_say() -> None:
    lanes = {name: (t.lanes("float32"), t.lanes("float64")) for name, t in TARGETS.items()}
    assert lanes == {"avx512": (16, 8), "avx2": (8, 4)}
