"""The measured parts of docs/forecasting.md: one marked block for each case; the rest of the page is prose."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.forecasting.peers import LACKS
from benchmarks.forecasting.setting import Outcome
from benchmarks.machine import ROOT, load_average, machine
from tidegate.errors import ArgumentError


def rewrite(page: Path, outcome: Outcome, command: str, seconds: float) -> None:
    """Replace the case's block of a page. Raises ArgumentError where the page has none."""
    if not page.is_file():
        raise ArgumentError(f"there is no page {page}")
    text = page.read_text("utf-8")
    block = re.compile(rf"(<!-- measured: {re.escape(outcome.case)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(block.findall(text)) != 1:
        raise ArgumentError(
            f"{page} must have one block for the case {outcome.case}: '<!-- measured: {outcome.case} -->', then "
            "'<!-- end -->'"
        )
    body = f"\n{outcome.markdown()}\n\n{provenance(command, seconds)}\n\n"
    page.write_text(block.sub(lambda found: found[1] + body + found[2], text), encoding="utf-8", newline="\n")


def provenance(command: str, seconds: float) -> str:
    """By which command, on what, in how long, and of which commit."""
    found = machine()
    peers = "" if LACKS else f", statsforecast {version('statsforecast')}"
    load = ", ".join(f"{value:.1f}" for value in load_average())
    return (
        f"`{command}`, {seconds:.0f} s on {found['processor']}, {found['threads']} of {found['cores']} cores, load "
        f"average {load}; tidegate {found['tidegate']}{_commit()}, torch {found['torch']}{peers}."
    )


def _commit() -> str:
    """The commit of the checkout, `-dirty` where files differ from it; nothing where there is no git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return "" if done.returncode else f" at {done.stdout.strip()}"
