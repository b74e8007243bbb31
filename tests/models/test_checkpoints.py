"""The registry: what each of the paper's checkpoints is, and rows of one's own."""

from pathlib import Path

import pytest

from harness.errors import DataError, UnknownName, UsageError
from harness.models.checkpoints import checkpoint, checkpoints, known

EIGHT = {
    "Youliang/llama3-8b-derta": ("full", "meta-llama/Meta-Llama-3-8B", "derta"),
    "Youliang/llama3-70b-lora-derta": ("lora", "meta-llama/Meta-Llama-3-70B", "derta"),
    "Youliang/llama3-70b-instruct-lora-derta-100step": ("lora", "meta-llama/Meta-Llama-3-70B-Instruct", "llama3"),
    "Youliang/llama3-8b-instruct-derta-100step": ("full", "meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
    "Youliang/llama3-8b-instruct-lora-derta-100step": ("lora", "meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
    "RichardErkhov/Youliang_-_llama3-8b-derta-4bits": ("bnb-4bit", "meta-llama/Meta-Llama-3-8B", "derta"),
    "RichardErkhov/Youliang_-_llama3-8b-instruct-derta-100step-4bits": (
        "bnb-4bit",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "llama3",
    ),
    "RichardErkhov/Youliang_-_llama3-8b-instruct-derta-100step-8bits": (
        "bnb-8bit",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "llama3",
    ),
}


@pytest.mark.parametrize("id", EIGHT)
def test_every_checkpoint_of_the_paper_is_known_with_its_base_and_form(id: str) -> None:
    row = checkpoint(id)
    assert (row.kind, row.base, row.format) == EIGHT[id]
    assert row.chat is not None
    assert row.base in checkpoints()
    assert row.licence
    assert row.gpus == (4 if "70b" in id else 1)


def test_the_name_after_the_slash_is_enough_and_a_misspelt_one_gets_a_suggestion() -> None:
    assert checkpoint("llama3-8b-derta").id == "Youliang/llama3-8b-derta"
    assert known("owner/unheard-of") is None
    with pytest.raises(UnknownName, match="did you mean 'Youliang/llama3-8b-derta'"):
        checkpoint("Youliang/llama3-8b-dreta")


def test_ones_own_rows_win_and_their_paths_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "form.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "rows.yaml").write_text(
        "mine/one: {kind: lora, at: weights, base: smollm2-135m, format: form.jinja, stop: ['</s>']}\n"
        "Youliang/llama3-8b-derta: {format: llama3}\n"
    )
    row = checkpoint("mine/one", str(tmp_path / "rows.yaml"))
    assert (row.source, row.base, row.stop) == (str(tmp_path / "weights"), "smollm2-135m", ("</s>",))
    assert row.chat is not None
    assert checkpoint("llama3-8b-derta", str(tmp_path / "rows.yaml")).format == "llama3"


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("mine/one: {knd: full}", UnknownName, "did you mean 'kind'"),
        ("mine/one: {kind: lra}", UnknownName, "did you mean 'lora'"),
        ("mine/one: {kind: lora}", DataError, "without a base"),
        ("mine/one: {gpus: many}", DataError, "gpus of mine/one is not int"),
        ("mine/one: {gpus: true}", DataError, "gpus of mine/one is not int"),
        ("- a list", DataError, "holds no rows"),
        ("a: [b", DataError, "not YAML"),
    ],
)
def test_a_bad_row_is_said(tmp_path: Path, text: str, error: type[Exception], why: str) -> None:
    (tmp_path / "rows.yaml").write_text(text)
    with pytest.raises(error, match=why):
        checkpoints(str(tmp_path / "rows.yaml"))


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match="No such file"):
        checkpoints("/nowhere/rows.yaml")


def test_an_adapter_is_labelled_by_its_folder_wherever_it_lies(tmp_path: Path) -> None:
    from harness.models.options import ModelOptions
    from harness.models.source import find_adapter

    folder = tmp_path / "derta-s0"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    assert find_adapter(str(folder), ModelOptions()) == ("derta-s0", folder)  # absolute, as a lab names it
