"""Rules as text: the values of the option `gradient`, as `str(rule)` writes them."""

from collections.abc import Callable
from typing import Any

from tidegate.errors import ArgumentError
from tidegate.gradients.forward_rules import KFRTRL, RFLO, RTRL, UORO, EProp, SnAp
from tidegate.gradients.rules import BPTT, Rule, TruncatedBPTT

FORMS = (
    "'bptt', 'bptt:STATES', 'bptt:MEMORY' as in 'bptt:64MiB', 'truncated:K1,K2' with whole numbers K1 <= K2, 'rtrl', "
    "'snap:N', 'uoro', 'kfrtrl', 'rflo' or 'eprop'; the last six take the steps from update to update as one number "
    "more, as in 'rtrl:8' or 'snap:1,8'"
)
_RULES: dict[str, tuple[Callable[..., Any], tuple[str, ...], int]] = {  # with their numbers, and how many are needed
    "bptt": (BPTT, ("checkpoint",), 0),
    "truncated": (TruncatedBPTT, ("k1", "k2"), 2),
    "snap": (SnAp, ("n", "every"), 1),
    **{rule.word: (rule, ("every",), 0) for rule in (RTRL, UORO, KFRTRL, RFLO, EProp)},
}


def rule_from_text(text: str) -> Rule:
    """Parse the text that `str(rule)` writes. Raises ArgumentError for other text."""
    word, _, rest = text.partition(":")
    if word == "bptt" and rest and not rest.isdecimal():
        return BPTT(checkpoint=rest)
    numbers = rest.split(",") if rest else []
    make, names, least = _RULES.get(word, (BPTT, (), 1))
    if least <= len(numbers) <= len(names) and all(n.isdecimal() for n in numbers):
        rule: Rule = make(**dict(zip(names, map(int, numbers), strict=False)))
        return rule
    raise ArgumentError(f"unknown gradient rule {text!r}: expected {FORMS}.")
