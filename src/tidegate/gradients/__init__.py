"""How a gradient goes back through time: in full, truncated with the state carried on, or step by step."""

from tidegate.gradients.online import Memory, Online, online
from tidegate.gradients.rules import BPTT, Rule, Segment, TruncatedBPTT, rule_from_text
from tidegate.gradients.sweep import gradient, sweep

__all__ = [
    "BPTT",
    "Memory",
    "Online",
    "Rule",
    "Segment",
    "TruncatedBPTT",
    "gradient",
    "online",
    "rule_from_text",
    "sweep",
]
