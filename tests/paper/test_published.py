"""The published table: whole, and found by checkpoint and by file name."""

from __future__ import annotations

import pytest

from harness.paper.published import ATTACKS, TASKS, of_checkpoint, of_file, rows


def test_the_table_has_every_row_of_the_paper_once_and_only_percentages() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names)) == 17
    assert all(0 <= rate <= 100 for row in rows() for rate in row.rates.values())
    # 17 rows of nine columns, less what the paper leaves out: GPT-4 and ChatGPT lack Comp and Auto (4), four 70B
    # rows lack helpfulness (12), five 7B and 8B rows lack Code (5)
    assert sum(len(row.rates) for row in rows()) == 17 * len((*ATTACKS, *TASKS)) - 4 - 12 - 5


def test_a_checkpoint_finds_its_row_and_an_unknown_one_none() -> None:
    row = of_checkpoint("Youliang/llama3-8b-derta")
    assert row is not None
    assert (row.name, row.rates["completion"], row.rates["gsm8k"]) == ("8B DeRTa", 6.0, 46.4)
    assert "code" not in row.rates
    assert of_checkpoint("Youliang/llama3-8b-instruct-derta-100step") is None
    assert of_checkpoint("") is None


def test_a_rows_method_is_what_was_done_to_its_base() -> None:
    methods = {row.name: row.method for row in rows()}
    assert methods["8B DeRTa"] == methods["Mixtral DeRTa"] == "DeRTa"
    assert methods["70B-Instruct DeRTa"] == "Instruct DeRTa"
    assert methods["70B-Instruct"] == "Instruct"
    assert methods["70B + RTO"] == "+ RTO"
    assert methods["Mistral-7B vanilla"] == "vanilla"
    assert methods["GPT-4"] == "GPT-4"


def test_a_mean_needs_every_rate() -> None:
    row = of_checkpoint("Youliang/llama3-8b-derta")
    assert row is not None
    assert row.mean(TASKS) == pytest.approx((46.4 + 50.4 + 88.7) / 300)
    assert row.mean(ATTACKS) is None  # the paper has no CodeAttack for it


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Llama-3-8B_derta_eval_gsm8k_500", "8B DeRTa"),
        ("Llama-3-8B_vanill_eval_mmlu_500", "8B vanilla"),
        ("Llama-3-70B_dpo_eval_gsm8k_500", "70B DPO"),
        ("Llama-3-70B-Instruct_derta_eval_mmlu_500", "70B-Instruct DeRTa"),
        ("Llama-3-70B-Instruct_eval_mmlu_500", "70B-Instruct"),
        ("Mixtral-8x7B_derta_eval_mmlu_500", "Mixtral DeRTa"),
        ("Mistral-7B_vanilla_eval_mmlu_500", "Mistral-7B vanilla"),
        ("Llama-3-8B-recaug_eval_mmlu_500", None),
    ],
)
def test_a_result_file_finds_its_row_by_name(stem: str, name: str | None) -> None:
    row = of_file(stem)
    assert (row.name if row else None) == name
