"""Recipes and methods: equal pairs, honest settings, and a dry run that adds up."""

from __future__ import annotations

import random
import shlex
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError, UnknownName, UsageError
from harness.train import recipe as recipes
from harness.train.data import Helpful, TrainSet, Triple
from harness.train.methods import draw, schedule, take
from harness.train.plan import passes, plan, read, shape, shape_of, text
from harness.train.recipe import Recipe, change, find, find_for
from harness.train.rows import Encoder, Pair

DATA = TrainSet(
    triples=tuple(Triple(id=f"t{i}", request=f"q{i}", safe="Sorry", violating="one two three") for i in range(5)),
    helpful=tuple(Helpful(id=f"h{i}", request="q", reply="a", kind="lookalike" if i else "general") for i in range(3)),
)


def parts(chars: Any, **settings: Any) -> Counter[str]:
    recipe = Recipe(pairs=12, helpful=6, **settings)
    return Counter("dpo" if isinstance(item, Pair) else item.part for item in draw(recipe, DATA, Encoder(chars)))


def test_every_bundled_recipe_loads_and_opens_with_its_launch_command() -> None:
    for name in recipes.names():
        assert find(name).name == name
        first = (recipes.HOME / f"{name}.yaml").read_text().splitlines()[0]
        assert first.startswith("# ")
        assert f"harness train --recipe {name}" in first
        assert len(recipes.summary(name)) > 20


def test_a_method_takes_the_recipe_of_its_base_and_that_of_the_stand_in_where_there_is_none() -> None:
    assert find_for("derta", "meta-llama/Meta-Llama-3-8B").name == "llama3-8b-derta"
    assert find_for("vanilla", "smollm2-135m").name == find_for("vanilla", "my/own-model").name == "smollm2-vanilla"
    with pytest.raises(UsageError, match="2 recipes") as caught:
        find_for("derta", "meta-llama/Meta-Llama-3-8B-Instruct")
    assert "--recipe llama3-8b-instruct-lora-derta-100step" in caught.value.hint
    with pytest.raises(UnknownName):
        find_for("magic", "smollm2-135m")


def test_the_official_numbers_stand_in_the_official_recipes() -> None:
    """8B, all weights: block 1024, lr 2e-5, cosine, 5% of positions; 70B, LoRA: r 96, alpha 16, lr 1e-4, linear."""
    full, lora = find("llama3-8b-derta"), find("llama3-70b-lora-derta")
    assert (full.block, full.lr, full.schedule, full.rto_keep, full.tune) == (1024, 2e-5, "cosine", 0.05, "full")
    assert (lora.block, lora.lr, lora.schedule, lora.rto_keep, lora.tune) == (512, 1e-4, "linear", 1.0, "lora")
    assert (lora.lora_r, lora.lora_alpha, lora.lora_dropout) == (96, 16, 0.05)
    assert find("llama3-8b-instruct-derta-100step").max_steps == 100


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("vanilla", {"mle": 12}),
        ("vanilla-half", {"mle": 6}),
        ("prefix-half", {"mle": 6}),
        ("recaug", {"mle": 12}),
        ("rto", {"mle": 6, "rto": 6}),
        ("derta", {"mle": 6, "rto": 6}),
        ("dpo", {"dpo": 12}),
        ("dpo-prefix", {"dpo": 12}),
    ],
)
def test_methods_see_equal_pairs_and_the_same_helpful_ones(chars: Any, method: str, expected: dict[str, int]) -> None:
    assert parts(chars, method=method) == {**expected, "helpful": 6}


def test_only_prefix_methods_show_violating_words_before_a_safe_reply(chars: Any) -> None:
    def longest(method: str) -> int:
        recipe = Recipe(pairs=40, helpful=0, method=method)  # type: ignore[arg-type]
        return max(len(item.ids) for item in draw(recipe, DATA, Encoder(chars)) if not isinstance(item, Pair))

    assert longest("recaug") == longest("vanilla") + len("one two three")


def test_the_same_seed_draws_the_same_rows_and_another_does_not(chars: Any) -> None:
    first, again, other = (draw(Recipe(seed=seed), DATA, Encoder(chars)) for seed in (3, 3, 4))
    assert first == again != other


def test_each_epoch_shows_every_item_once() -> None:
    plan = schedule(Recipe(batch=4, epochs=2.0), 8)
    assert [len(step) for step in plan] == [4, 4, 4, 4]
    assert sorted(i for step in plan[:2] for i in step) == list(range(8))
    assert plan[:2] != plan[2:]


def test_a_set_without_triples_is_refused_by_name(chars: Any) -> None:
    with pytest.raises(DataError, match="holds no pair"):
        draw(Recipe(), replace(DATA, triples=()), Encoder(chars))


def test_settings_come_from_text_and_wrong_ones_are_named() -> None:
    changed = change(Recipe(), {"lr": "1e-4", "checkpointing": "true", "lora_targets": "q_proj, v_proj", "pairs": "8"})
    assert (changed.lr, changed.checkpointing, changed.lora_targets, changed.pairs) == (
        1e-4,
        True,
        ("q_proj", "v_proj"),
        8,
    )
    with pytest.raises(UnknownName, match="did you mean 'lora_r'"):
        change(Recipe(), {"lora_rr": 8})
    for bad in ({"pairs": "many"}, {"rto_keep": 2}, {"lr": 0}, {"batch": 2.5}, {"lr": "inf"}, {"epochs": "nan"},
                {"seed": "inf"}, {"pairs": -1}, {"helpful": -5}, {"max_steps": -1}, {"clip": -1}, {"beta1": 1},
                {"lookalike": 0.9, "opening": 0.2}, {"pairs": 0, "helpful": 0}):  # fmt: skip
        with pytest.raises(UsageError, match=next(iter(bad))):
            change(Recipe(), bad)
    with pytest.raises(UnknownName, match="did you mean 'derta'"):
        change(Recipe(), {"method": "dertta"})
    with pytest.raises(UnknownName, match="smollm2-derta"):
        find("smollm2-dert")


def test_the_card_says_what_to_type_to_make_it_again() -> None:
    from harness.train.checkpoint import command

    recipe = find("smollm2-derta")
    assert command(recipe) == "harness train --recipe smollm2-derta"
    assert command(replace(recipe, seed=2)) == "harness train --recipe smollm2-derta --set seed=2"


@pytest.mark.parametrize("recipe", [
    change(Recipe(name="mine", method="vanilla"), {"seed": "3", "lr": "1e-3", "shard": "true", "epochs": 1.5}),
    Recipe(name="its own", method="dpo", base="a folder/base", refusal="I'm", lora_targets=("q_proj", "v_proj")),
    replace(find("mixtral-8x7b-lora-derta"), lora_parameters=()),
])  # fmt: skip
def test_the_command_of_the_card_makes_the_same_recipe(recipe: Recipe) -> None:
    from harness.commands.train import choose
    from harness.train.checkpoint import command

    train, flag, name, *changes = shlex.split(command(recipe))[1:]
    assert (train, flag) == ("train", "--recipe")
    assert choose(None, name, None, None, tuple(changes[1::2])) == recipe


@pytest.mark.parametrize("name", ["vanilla", "derta"])
def test_the_adapters_that_ship_are_what_their_recipes_make(name: str) -> None:
    """Fails when a recipe or the data changed and `make adapters` was not run."""
    from harness.models.source import BUNDLED
    from harness.train.data import load
    from harness.train.trainer import made_by, read_manifest

    manifest, recipe = read_manifest(BUNDLED / name), find(f"smollm2-{name}")
    assert manifest is not None
    assert made_by(manifest, recipe, load(recipe.data).digest, manifest["base_sha"])
    assert (BUNDLED / name / "README.md").read_text().count("process(es)") == 1
    assert sum(path.stat().st_size for path in (BUNDLED / name).iterdir()) < 12 * 2**20


def test_every_setting_has_its_help() -> None:
    assert all(f.metadata.get("help") for f in fields(Recipe))


def test_the_dry_run_knows_the_size_of_its_bases() -> None:
    """Published: Llama-3 8.03 B and 70.55 B, Mistral 7.24 B, Mixtral 46.7 B (12.9 B active), SmolLM2 134.5 M."""
    sizes = {base: shape_of(base).parameters / 1e9 for base in (find(n).base for n in recipes.names())}
    assert sizes["meta-llama/Meta-Llama-3-8B"] == pytest.approx(8.03, abs=0.01)
    assert sizes["meta-llama/Meta-Llama-3-70B"] == pytest.approx(70.55, abs=0.01)
    assert sizes["mistralai/Mistral-7B-v0.1"] == pytest.approx(7.24, abs=0.01)
    assert sizes["mistralai/Mixtral-8x7B-v0.1"] == pytest.approx(46.7, abs=0.1)
    assert sizes["smollm2-135m"] == pytest.approx(0.1345, abs=0.001)
    assert shape_of("mistralai/Mixtral-8x7B-v0.1").active / 1e9 == pytest.approx(12.8, abs=0.2)


def test_the_dry_run_of_the_70b_adds_up() -> None:
    """66,000 pairs x 2 epochs / 128 = 1,032 steps; frozen bf16 weights over 8 GPUs: 70.55e9 * 2 / 8 = 16.4 GiB.

    Time: 6 operations a weight and token (recomputed) * 69.5e9 * 52.8e6 tokens / (8 * 989e12 * 0.4) = 1.93 hours.
    """
    found = plan(find("llama3-70b-lora-derta"))
    assert (found.reading.steps, found.gpus) == (1032, 8)
    assert 16.4 < found.weights < 30
    assert found.memory < 80
    assert found.reading.tokens == 1032 * 128 * 400
    assert found.hours == pytest.approx(1.93, abs=0.02)
    told = text(find("llama3-70b-lora-derta"), found)
    assert "GiB a GPU" in told
    assert "assumed: 400 tokens" in told
    with pytest.raises(UsageError, match="not known"):
        plan(Recipe(base="someone/else"))


def test_half_the_gpus_take_twice_the_time_and_more_memory() -> None:
    eight, four = (plan(find("llama3-70b-lora-derta"), gpus=n, gpu="A100") for n in (8, 4))
    assert four.hours == pytest.approx(2 * eight.hours)
    assert four.memory > eight.memory + 15
    with pytest.raises(UsageError, match="no figures"):
        plan(find("llama3-70b-lora-derta"), gpu="B9")


def test_a_dry_run_counts_what_a_run_would_read(chars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and tokenizer at hand: the rows of every step, exactly as the loop takes them."""
    from harness.train import plan as planning

    recipe = Recipe(pairs=12, helpful=6, batch=4, epochs=1.5)
    monkeypatch.setattr(planning, "load_data", lambda where: DATA)
    monkeypatch.setattr(planning, "tokenizer_at_hand", lambda base: chars)
    items = draw(recipe, DATA, Encoder(chars))
    steps = schedule(recipe, len(items))
    expected = sum(len(items[i].ids) for step in steps for i in step)  # type: ignore[union-attr]
    found = planning.read(recipe)
    assert (found.steps, found.tokens) == (7, expected)
    assert found.source == "counted in the data"
    assert found.reference == 0
    pairs = replace(recipe, method="dpo", epochs=3.0)
    held = [item for item in draw(pairs, DATA, Encoder(chars)) if isinstance(item, Pair)]
    assert planning.read(pairs).reference == sum(len(row.ids) for pair in held for row in (pair.chosen, pair.rejected))


def test_a_dry_run_without_the_tokenizer_says_what_it_assumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triples: q0 + Sorry + half of "one two three" = 13.5 characters = 3.375 tokens + 30 of the template; helpful:
    q + a = 0.5 + 30. Of 18 pairs 12 are triples: (12 * 33.375 + 6 * 30.5) / 18 = 32.42; 5 steps of 4: 648. DPO reads
    two replies of a triple: (24 * 33.375 + 6 * 30.5) / 18 = 54.67, 1,093."""
    from harness.train import plan as planning

    monkeypatch.setattr(planning, "load_data", lambda where: DATA)
    monkeypatch.setattr(planning, "tokenizer_at_hand", lambda base: None)
    found = planning.read(Recipe(pairs=12, helpful=6, batch=4))
    assert (found.steps, found.tokens) == (5, 648)
    assert "4 characters a token" in found.source
    pairs = planning.read(Recipe(pairs=12, helpful=6, batch=4, method="dpo"))
    assert (pairs.tokens, pairs.reference) == (1093, 24 * 33.375)


def test_an_adapter_on_fewer_layers_is_smaller() -> None:
    """SmolLM2: 30 layers of width 576, 192 wide keys and values; rank 16 on q and v: 16 * 30 * (1152 + 768)."""
    found = plan(change(find("smollm2-derta"), {"lora_targets": "q_proj,v_proj"}))
    assert found.trained == 16 * 30 * (2 * 576 + 576 + 192)


def test_a_base_of_another_kind_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_layer": 12, "n_embd": 768}')
    with pytest.raises(UsageError, match="does not tell the sizes"):
        shape_of(str(tmp_path))


def test_mixtures_of_every_spelling_are_sized_with_all_their_experts() -> None:
    """Published: Qwen3-30B-A3B 30.5 B, Mixtral 46.7 B; a dense model may say that it has no experts."""
    qwen = {
        "num_hidden_layers": 48, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
        "num_experts_per_tok": 8,
    }  # fmt: skip
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        assert shape({**qwen, key: 128}).parameters / 1e9 == pytest.approx(30.5, abs=0.1)
    assert shape({**qwen, "num_experts": 128}).active / 1e9 == pytest.approx(3.0, abs=0.1)
    mixtral = {
        "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2,
    }  # fmt: skip
    assert shape(mixtral) == shape_of("mistralai/Mixtral-8x7B-v0.1")
    dense = shape({**mixtral, "num_local_experts": None, "num_experts_per_tok": None, "num_experts": 0})
    assert dense == shape_of("mistralai/Mistral-7B-v0.1")


def test_a_base_without_a_tokenizer_is_estimated(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "the tokenizer is not here" in read(Recipe(base=str(tmp_path))).source


def test_half_of_one_pair_is_nothing_to_learn_from() -> None:
    with pytest.raises(UsageError, match=r"vanilla-half takes half of its pairs\): nothing to learn from"):
        change(find("llama3-8b-vanilla-half"), {"pairs": 1, "helpful": 0})
    assert Recipe(method="vanilla-half", pairs=1, helpful=1).safety_pairs == 0


def test_the_ablations_with_half_the_pairs_take_fewer_steps() -> None:
    """6,000 + 60,000 pairs are 1,032 steps; 3,000 + 60,000: 63,000 * 2 / 128 = 984.4."""
    assert plan(find("llama3-8b-vanilla-half")).reading.steps == 985


@pytest.mark.parametrize(("precision", "speed"), [("bf16", 310), ("fp32", 230)])
def test_a_recipe_of_the_embedded_base_is_timed_on_the_cpu(precision: str, speed: int) -> None:
    recipe = change(find("smollm2-derta"), {"precision": precision})
    found = plan(recipe)
    assert found.gpus == 0
    assert found.hours * 3600 == pytest.approx(found.reading.tokens / speed, rel=0.01)
    assert "GPU" not in text(recipe, found)
    assert "min on the CPU" in text(recipe, found)


def test_the_searches_of_r2d2_are_in_its_time() -> None:
    """96 pairs of 96 + 32, 16 steps of 8: 96 visits * 2 GCG steps * (9 + 3) sequences * 40 tokens = 92,160."""
    recipe = Recipe(method="r2d2", pairs=96, helpful=32, suffix_steps=2, suffix_width=9)
    found, plain = plan(recipe), plan(replace(recipe, method="vanilla"))
    assert found.searched == 92_160
    assert found.hours > plain.hours
    assert "search" in text(recipe, found)
    assert "search" not in text(recipe, plain)


def test_forward_passes_beside_the_steps_are_in_the_time() -> None:
    """LoRA: 4 operations a weight and token; circuit-breaker 2 more. DPO's reference: 2 over every pair, in each
    process: 6,000 pairs of two rows of 400 tokens are 4.8 M."""
    broken, pair = find("smollm2-circuit-breaker"), find("llama3-70b-lora-dpo")
    assert passes(broken) == passes(replace(broken, method="vanilla")) + 2
    one, eight = (plan(pair, gpus=n) for n in (1, 8))
    assert one.reading.reference == 6000 * 2 * 400
    without = passes(pair) * one.reading.tokens
    assert one.hours / (8 * eight.hours) == pytest.approx((without + 2 * 4.8e6) / (without + 8 * 2 * 4.8e6))
    assert plan(replace(pair, method="vanilla")).reading.reference == 0


def test_a_broken_set_is_said_in_the_dry_run_too(tmp_path: Any) -> None:
    (tmp_path / "rows.json").write_text("")
    with pytest.raises(DataError, match="is empty"):
        plan(Recipe(data=str(tmp_path / "rows.json")))


def test_a_checkpoint_is_that_of_a_recipe_unless_something_that_matters_changed() -> None:
    """The manifest is of an older version that did not know `rto_weight`: at its default, it is the same recipe."""
    from harness.train.trainer import made_by

    recipe = Recipe(name="a")
    then = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}
    del then["rto_weight"]
    manifest = {"recipe": then, "data_sha": "d", "base_sha": "b"}
    assert made_by(manifest, replace(recipe, name="b", save_every=9, micro_tokens=64), "d", "b")
    assert made_by(manifest, replace(recipe, precision="fp32"), "d", "b")  # the same recipe on another machine
    assert not made_by(manifest, replace(recipe, seed=1), "d", "b")
    assert not made_by(manifest, replace(recipe, rto_weight=2.0), "d", "b")
    assert not made_by(manifest, recipe, "other", "b")
    assert not made_by({"data_sha": "d", "base_sha": "b"}, recipe, "d", "b")


@pytest.mark.parametrize(("method", "plain", "other"), [("derta", "recaug", "vanilla"), ("rto", "vanilla", "recaug")])
def test_a_method_without_its_rto_rows_is_another_one(method: Any, plain: Any, other: Any, chars: Any) -> None:
    from harness.train.trainer import made_by

    same, bare = Recipe(method=plain, pairs=20, helpful=4), Recipe(method=method, pairs=20, helpful=4, rto_share=0)
    assert draw(same, DATA, Encoder(chars)) == draw(bare, DATA, Encoder(chars))
    manifest = {"recipe": asdict(same), "data_sha": "d", "base_sha": "b"}
    assert made_by(manifest, bare, "d", "b")
    assert not made_by(manifest, replace(bare, rto_share=0.1), "d", "b")
    assert not made_by(manifest, replace(bare, method=other), "d", "b")


def test_a_request_comes_again_only_after_every_other_one() -> None:
    rows = [Triple(id=f"{q}{n}", request=q, safe="Sorry", violating="one") for q in "abcd" for n in range(3)]
    drawn = take(rows, 14, random.Random(0))
    assert [len({t.request for t in drawn[i : i + 4]}) for i in (0, 4, 8)] == [4, 4, 4]
    assert len({t.id for t in drawn[:12]}) == 12
    assert drawn[12:] == drawn[:2]
    assert [t.request for t in drawn[:4]] != list("abcd")


def test_prefix_draws_do_not_touch_the_order_of_triples(chars: Any) -> None:
    """Methods are compared on the same triples: the same ids in the same order, whatever their prefixes."""
    random.seed(0)
    first = [item.source for item in draw(Recipe(method="vanilla", helpful=0, pairs=9), DATA, Encoder(chars))]  # type: ignore[union-attr]
    second = [item.source for item in draw(Recipe(method="recaug", helpful=0, pairs=9), DATA, Encoder(chars))]  # type: ignore[union-attr]
    assert first == second


def test_auto_takes_the_precision_that_the_machine_is_fast_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models import weights
    from harness.train.trainer import settled

    auto = Recipe()
    for here, on_gpu, wanted in ((True, False, "bf16"), (False, False, "fp32"), (False, True, "bf16")):
        monkeypatch.setattr(weights, "bf16_in_hardware", lambda here=here: here)
        assert settled(auto, on_gpu=on_gpu).precision == wanted
    named = replace(auto, precision="bf16")
    assert settled(named, on_gpu=False) is named
