"""Safety evaluation of language models: attack, judge, measure, report, gate."""

__version__ = "0.1.0"
