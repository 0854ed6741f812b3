"""A cell's kernels as text: the plan, the LLVM IR or the assembly."""

from typing import Literal

from tidegate.equations.graph import Graph
from tidegate.native import _llvm, cpu
from tidegate.native.compile.lower import lower
from tidegate.native.compile.plan import make_plan
from tidegate.native.target import DType

Level = Literal["plan", "ir", "asm"]


def explain(graph: Graph, level: Level = "plan", dtype: DType = "float32") -> str:
    """The text of one level, for this machine's target. Raises NativeError if the cell has no kernels."""
    plan = make_plan(graph)
    if level == "plan":
        return str(plan)
    target = cpu.host()
    text = lower(plan, target, dtype)
    return text if level == "ir" else _llvm.assembly(text, target)
