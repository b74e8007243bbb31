"""What is asked of a model: behaviors to refuse, look-alikes to answer, tasks to be good at.

`PLUGINS` maps a name to a `tasks.catalog.Task`, imported only when it is asked for. Another package adds
a task of its own with an entry point in the group `harness.tasks`.
"""

PLUGINS: dict[str, str] = {
    "magic": "tasks.catalog:MAGIC",
    "magic-lookalikes": "tasks.catalog:MAGIC_LOOKALIKES",
    "general": "tasks.catalog:GENERAL",
    "arithmetic": "tasks.catalog:ARITHMETIC",
    "knowledge": "tasks.catalog:KNOWLEDGE",
    "instructions": "tasks.catalog:INSTRUCTIONS",
    "gsm8k": "tasks.catalog:GSM8K",
    "mmlu": "tasks.catalog:MMLU",
    "open-ended": "tasks.catalog:OPEN_ENDED",
    "derta-gsm8k": "tasks.catalog:DERTA_GSM8K",
    "derta-mmlu": "tasks.catalog:DERTA_MMLU",
    "derta-alpaca": "tasks.catalog:DERTA_ALPACA",
    "alpaca-eval": "tasks.catalog:ALPACA_EVAL",
    "derta-200": "tasks.catalog:DERTA_200",
    "harmbench": "tasks.catalog:HARMBENCH",
    "jailbreakbench": "tasks.catalog:JAILBREAKBENCH",
    "advbench": "tasks.catalog:ADVBENCH",
    "strongreject": "tasks.catalog:STRONGREJECT",
    "do-not-answer": "tasks.catalog:DO_NOT_ANSWER",
    "xstest": "tasks.catalog:XSTEST",
    "or-bench": "tasks.catalog:OR_BENCH",
    "jailbreakbench-benign": "tasks.catalog:JAILBREAKBENCH_BENIGN",
}
