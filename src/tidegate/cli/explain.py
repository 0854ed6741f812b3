"""`tidegate explain`: the kernels of a cell, as plan, LLVM IR or assembly, and the cost of a gradient rule."""

from typing import Annotated, Literal

import typer

from tidegate.cli.rule_costs import CostShape, rule_costs
from tidegate.errors import ArgumentError


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("explain")(explain)


def explain(
    name: Annotated[str, typer.Argument(help="A cell of `tidegate cells`.")],
    plan: Annotated[bool, typer.Option("--plan", help="The stages of both steps (the default).")] = False,
    ir: Annotated[bool, typer.Option("--ir", help="LLVM IR.")] = False,
    asm: Annotated[bool, typer.Option("--asm", help="Assembly for this machine.")] = False,
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="The type of numbers.")] = "float32",
    rule: Annotated[
        str | None, typer.Option(help="What a gradient rule, as rtrl or snap:1, keeps and computes; nothing is run.")
    ] = None,
    input_size: Annotated[int, typer.Option(min=1, help="Inputs, for --rule.")] = 8,
    hidden_size: Annotated[
        int, typer.Option(min=1, help="Units, for --rule; other sizes of a cell are the same.")
    ] = 32,
    layers: Annotated[int, typer.Option(min=1, help="Layers on top of each other, for --rule.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Rows of the batch, for --rule.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the sequences that bptt beside it goes back.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the costs of --rule as JSON.")] = False,
) -> None:
    """Show a cell's native kernels at one level, or at several one below the other. With --rule: the cost of a rule."""
    from tidegate.cells import get
    from tidegate.runtime import explain as text

    cell = get(name)
    if as_json and rule is None:
        raise ArgumentError("--json prints the costs of a rule: give one, as in --rule rtrl.")
    wanted = {"plan": plan or not (ir or asm or rule), "ir": ir, "asm": asm}
    for level in ("plan", "ir", "asm"):
        if wanted[level]:
            typer.echo(text(cell.graph, level, dtype).rstrip())
    if rule is not None:
        shape = CostShape(input_size, hidden_size, layers, batch, steps, dtype)
        typer.echo(rule_costs(cell, rule.lower(), shape, as_json))
