"""How a gradient goes back through time: in full, or truncated with the state carried on; and what becomes of it."""

from tidegate.gradients.diagnosis import Diagnosis, diagnose
from tidegate.gradients.rules import BPTT, Rule, Segment, TruncatedBPTT, rule_from_text
from tidegate.gradients.sweep import gradient, sweep

__all__ = [
    "BPTT",
    "Diagnosis",
    "Rule",
    "Segment",
    "TruncatedBPTT",
    "diagnose",
    "gradient",
    "rule_from_text",
    "sweep",
]
