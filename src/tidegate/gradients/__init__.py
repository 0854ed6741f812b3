"""Rules for gradients through time: backward in full or truncated, or forward, exact or approximate; and their
diagnosis."""

from tidegate.gradients.costs import Costs, costs
from tidegate.gradients.diagnosis import Diagnosis, diagnose
from tidegate.gradients.forward_rules import KFRTRL, RFLO, RTRL, UORO, EProp, Forward, SnAp, Support
from tidegate.gradients.online import Memory, Online, online
from tidegate.gradients.rules import BPTT, Rule, Segment, TruncatedBPTT
from tidegate.gradients.sweep import gradient, sweep
from tidegate.gradients.texts import rule_from_text

__all__ = [
    "BPTT",
    "KFRTRL",
    "RFLO",
    "RTRL",
    "UORO",
    "Costs",
    "Diagnosis",
    "EProp",
    "Forward",
    "Memory",
    "Online",
    "Rule",
    "Segment",
    "SnAp",
    "Support",
    "TruncatedBPTT",
    "costs",
    "diagnose",
    "gradient",
    "online",
    "rule_from_text",
    "sweep",
]
