"""How a gradient goes back through time: in full, or truncated with the state carried on."""

from tidegate.gradients.rules import BPTT, Rule, Segment, TruncatedBPTT, rule_from_text
from tidegate.gradients.sweep import gradient, sweep

__all__ = ["BPTT", "Rule", "Segment", "TruncatedBPTT", "gradient", "rule_from_text", "sweep"]
