"""The gate: stops a safety regression and nothing else. `gate` is the pure function, `run_gate` the command."""

from harness.gate.checks import Check, Outcome
from harness.gate.command import compare, gate_model, run_gate, set_baseline, show_baseline
from harness.gate.policy import Limit, Policy, load_policy, parse_policy
from harness.gate.verdict import EXIT_CODES, Look, Verdict, gate, look_order

__all__ = [
    "EXIT_CODES",
    "Check",
    "Limit",
    "Look",
    "Outcome",
    "Policy",
    "Verdict",
    "compare",
    "gate",
    "gate_model",
    "load_policy",
    "look_order",
    "parse_policy",
    "run_gate",
    "set_baseline",
    "show_baseline",
]
