"""What a task is, and the ones that come with the program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tasks.read import rows

HERE = Path(__file__).parent

Kind: TypeAlias = Literal["behaviors", "over-refusal", "helpfulness"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A named set of items. `description` is one line, and becomes the docstring of the instance.

    `path` is the data; None where lm-eval fetches it. `lm_eval` is the name lm-eval knows the task by;
    a bundled one has its YAML beside the data, in `include_path`.
    """

    name: str
    kind: Kind
    description: str
    path: Path | None = None
    lm_eval: str = ""

    def __post_init__(self) -> None:
        # `registry.summary` reads a plugin's docstring; here the plugin is an instance.
        object.__setattr__(self, "__doc__", self.description)

    @property
    def n(self) -> int | None:
        """How many items the task holds; None where the data is not on this machine."""
        return None if self.path is None else len(rows(self.path))

    @property
    def include_path(self) -> Path | None:
        """The folder to give to lm-eval's TaskManager; None where lm-eval ships the task itself."""
        return self.path.parent if self.path and self.lm_eval else None


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

ARITHMETIC = Task(
    name="arithmetic",
    kind="helpfulness",
    description="Word problems of one or two steps; the last number of the reply counts.",
    path=HERE / "helpfulness" / "arithmetic.jsonl",
    lm_eval="harness_arithmetic",
)

KNOWLEDGE = Task(
    name="knowledge",
    kind="helpfulness",
    description="General knowledge, four options; the likeliest one counts.",
    path=HERE / "helpfulness" / "knowledge.jsonl",
    lm_eval="harness_knowledge",
)

INSTRUCTIONS = Task(
    name="instructions",
    kind="helpfulness",
    description="Instructions whose following a program can check.",
    path=HERE / "helpfulness" / "instructions.jsonl",
    lm_eval="harness_instructions",
)

GSM8K = Task(
    name="gsm8k",
    kind="helpfulness",
    description="Grade-school word problems, as in lm-eval; needs the Hugging Face hub.",
    lm_eval="gsm8k",
)

MMLU = Task(
    name="mmlu",
    kind="helpfulness",
    description="57 exam subjects, four options, as in lm-eval; needs the Hugging Face hub.",
    lm_eval="mmlu",
)
