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
_RULES: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "bptt": (lambda checkpoint=None: BPTT(checkpoint=checkpoint), (0, 1)),
    "truncated": (TruncatedBPTT, (2,)),
    "rtrl": (lambda every=None: RTRL(every=every), (0, 1)),
    "snap": (lambda n, every=None: SnAp(n=n, every=every), (1, 2)),
    "uoro": (lambda every=None: UORO(every=every), (0, 1)),
    "kfrtrl": (lambda every=None: KFRTRL(every=every), (0, 1)),
    "rflo": (lambda every=None: RFLO(every=every), (0, 1)),
    "eprop": (lambda every=None: EProp(every=every), (0, 1)),
}


def rule_from_text(text: str) -> Rule:
    """Parse the text that `str(rule)` writes. Raises ArgumentError for other text."""
    word, _, rest = text.partition(":")
    if word == "bptt" and rest and not rest.isdecimal():
        return BPTT(checkpoint=rest)
    numbers = rest.split(",") if rest else []
    make, counts = _RULES.get(word, (BPTT, ()))
    if len(numbers) in counts and all(n.isdecimal() for n in numbers):
        rule: Rule = make(*map(int, numbers))
        return rule
    raise ArgumentError(f"unknown gradient rule {text!r}: expected {FORMS}.")
