"""Targets: the instruction sets that kernels are compiled for."""

from dataclasses import dataclass
from typing import Literal

DType = Literal["float32", "float64"]
ITEM_BYTES: dict[DType, int] = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class Target:
    """An instruction set: `registers` vector registers of `bytes` each; `cpu` and `features` are LLVM's names."""

    name: str
    bytes: int
    registers: int
    cpu: str
    features: str
    needs: tuple[str, ...]

    def lanes(self, dtype: DType) -> int:
        """Elements in a vector."""
        return self.bytes // ITEM_BYTES[dtype]

    def missing(self, features: frozenset[str]) -> list[str]:
        """Features that the target needs and that are not among these."""
        return [need for need in self.needs if need not in features]


AVX512 = Target(
    "avx512",
    64,
    32,
    "x86-64-v4",
    "-prefer-256-bit",
    ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "fma", "bmi2"),
)
AVX2 = Target("avx2", 32, 16, "x86-64-v3", "", ("avx2", "fma", "bmi2", "f16c"))
TARGETS: dict[str, Target] = {t.name: t for t in (AVX512, AVX2)}
