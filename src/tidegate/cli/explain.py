"""`tidegate explain`: what becomes of a cell's equations, from the plan to the machine's language."""

from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("explain")(explain)


def explain(
    name: Annotated[str, typer.Argument(help="A cell of `tidegate cells`.")],
    plan: Annotated[bool, typer.Option("--plan", help="The stages of both steps (the default).")] = False,
    ir: Annotated[bool, typer.Option("--ir", help="LLVM's language.")] = False,
    asm: Annotated[bool, typer.Option("--asm", help="The machine's language, for this machine.")] = False,
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="The type of numbers.")] = "float32",
) -> None:
    """Show a cell's native kernels at one level, or at several one below the other."""
    from tidegate.cells import get
    from tidegate.native.explain import explain as text

    cell = get(name)
    wanted = {"plan": plan or not (ir or asm), "ir": ir, "asm": asm}
    for level in ("plan", "ir", "asm"):
        if wanted[level]:
            typer.echo(text(cell.graph, level, dtype).rstrip())
