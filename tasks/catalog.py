"""What a task is, and the ones that come with the program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tasks.read import rows

HERE = Path(__file__).parent

Kind: TypeAlias = Literal["behaviors", "over-refusal", "helpfulness", "pairwise"]
"""What a task is for. `pairwise`: open requests, each reply compared with a reference by a language model."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A named set of items. `description` is one line, and becomes the docstring of the instance.

    `path` is the data; None where it is public and pulled (`pinned`), or where lm-eval fetches it. A helpfulness
    task is known to lm-eval by the same name, and where it is bundled its YAML lies beside the data.
    """

    name: str
    kind: Kind
    description: str
    path: Path | None = None
    pinned: bool = False  # a public set of the same name: harness data pull NAME

    def __post_init__(self) -> None:
        # `registry.summary` reads a plugin's docstring; here the plugin is an instance.
        object.__setattr__(self, "__doc__", self.description)

    @property
    def n(self) -> int | None:
        """How many items the task holds; None where the data is not on this machine."""
        return None if self.path is None else len(rows(self.path))


MAGIC = Task(
    name="magic",
    kind="behaviors",
    description="Stand-in policy: questions for the method of a stage trick, to be refused.",
    path=HERE / "behaviors" / "magic.jsonl",
)

MAGIC_LOOKALIKES = Task(
    name="magic-lookalikes",
    kind="over-refusal",
    description="Harmless questions that look like the stand-in policy's, to be answered.",
    path=HERE / "overrefusal" / "magic_lookalikes.jsonl",
)

GENERAL = Task(
    name="general",
    kind="over-refusal",
    description="Everyday questions with nothing about the stand-in policy in them, to be answered.",
    path=HERE / "overrefusal" / "general.jsonl",
)

ARITHMETIC = Task(
    name="arithmetic",
    kind="helpfulness",
    description="Word problems of one or two steps; the last number of the reply counts.",
    path=HERE / "helpfulness" / "arithmetic.jsonl",
)

KNOWLEDGE = Task(
    name="knowledge",
    kind="helpfulness",
    description="General knowledge, four options; the likeliest one counts.",
    path=HERE / "helpfulness" / "knowledge.jsonl",
)

INSTRUCTIONS = Task(
    name="instructions",
    kind="helpfulness",
    description="Instructions whose following a program can check.",
    path=HERE / "helpfulness" / "instructions.jsonl",
)

GSM8K = Task(
    name="gsm8k",
    kind="helpfulness",
    description="Grade-school word problems, as in lm-eval; needs the Hugging Face hub.",
)

MMLU = Task(
    name="mmlu",
    kind="helpfulness",
    description="57 exam subjects, four options, as in lm-eval; needs the Hugging Face hub.",
)

OPEN_ENDED = Task(
    name="open-ended",
    kind="pairwise",
    description="Everyday requests with a reference reply each; the share of comparisons won.",
    path=HERE / "helpfulness" / "open_ended.jsonl",
)

DERTA_GSM8K = Task(
    name="derta-gsm8k",
    kind="helpfulness",
    description="Public: the DeRTa paper's 500 GSM8K problems, marked its way (harness data pull derta-gsm8k).",
    pinned=True,
)

DERTA_MMLU = Task(
    name="derta-mmlu",
    kind="helpfulness",
    description="Public: the DeRTa paper's 500 MMLU questions, marked its way (harness data pull derta-mmlu).",
    pinned=True,
)

DERTA_ALPACA = Task(
    name="derta-alpaca",
    kind="pairwise",
    description="Public: the DeRTa paper's 300 AlpacaEval requests (harness data pull derta-alpaca alpaca-eval).",
    pinned=True,
)

ALPACA_EVAL = Task(
    name="alpaca-eval",
    kind="pairwise",
    description="Public: AlpacaEval's 805 requests, text-davinci-003 as reference (harness data pull alpaca-eval).",
    pinned=True,
)

DERTA_200 = Task(
    name="derta-200",
    kind="behaviors",
    description="Public: the 200 questions of the DeRTa paper (harness data pull derta-200).",
    pinned=True,
)

HARMBENCH = Task(
    name="harmbench",
    kind="behaviors",
    description="Public: 400 behaviors of HarmBench, copyright ones among them (harness data pull harmbench).",
    pinned=True,
)

JAILBREAKBENCH = Task(
    name="jailbreakbench",
    kind="behaviors",
    description="Public: 100 behaviors of JailbreakBench (harness data pull jailbreakbench).",
    pinned=True,
)

ADVBENCH = Task(
    name="advbench",
    kind="behaviors",
    description="Public: 520 behaviors of AdvBench (harness data pull advbench).",
    pinned=True,
)

STRONGREJECT = Task(
    name="strongreject",
    kind="behaviors",
    description="Public: 313 forbidden prompts of StrongREJECT (harness data pull strongreject).",
    pinned=True,
)

DO_NOT_ANSWER = Task(
    name="do-not-answer",
    kind="behaviors",
    description="Public: 939 questions of Do-Not-Answer (harness data pull do-not-answer).",
    pinned=True,
)

XSTEST = Task(
    name="xstest",
    kind="over-refusal",
    description="Public: 250 safe prompts and 200 unsafe contrasts of XSTest (harness data pull xstest).",
    pinned=True,
)

OR_BENCH = Task(
    name="or-bench",
    kind="over-refusal",
    description="Public: OR-Bench's hard prompts, and toxic ones as contrast (harness data pull or-bench).",
    pinned=True,
)

JAILBREAKBENCH_BENIGN = Task(
    name="jailbreakbench-benign",
    kind="over-refusal",
    description="Public: 100 benign twins of JailbreakBench's (harness data pull jailbreakbench-benign).",
    pinned=True,
)
