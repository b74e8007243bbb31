"""The loop as a user meets it: the same curve whatever the processes and kills, and clear words when it must stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from harness.errors import DataError, UsageError
from harness.train.recipe import Recipe, change

pytestmark = pytest.mark.slow
DRIVER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from harness.train.recipe import Recipe, change
from harness.train.trainer import train
values = dict(pair.split("=", 1) for pair in sys.argv[2:])
train(change(Recipe(name="toy"), values), Path(sys.argv[1]))
"""


@pytest.fixture
def recipe(tiny: Path, toy: Path) -> Recipe:
    return Recipe(
        name="toy", base=str(tiny), data=str(toy), pairs=8, helpful=8, batch=4, lr=2e-2, precision="fp32", save_every=2,
        micro_tokens=64, epochs=2.0, lora_r=4, lora_alpha=8, lora_dropout=0.1,
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def arguments(recipe: Recipe, **other: Any) -> list[str]:
    keys = ("base", "data", "pairs", "helpful", "batch", "lr", "precision", "save_every", "micro_tokens", "epochs",
            "lora_r", "lora_alpha", "lora_dropout", "method", "tune", "shard")  # fmt: skip
    values = {key: getattr(recipe, key) for key in keys} | other
    return [f"{key}={value}" for key, value in values.items()]


def start(out: Path, recipe: Recipe, *, processes: int = 1) -> subprocess.Popen[bytes]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    driver = out.with_suffix(".py")
    driver.write_text(DRIVER)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    command = [sys.executable, *torchrun, str(driver), str(out), *arguments(recipe)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("method", ["vanilla", "recaug", "rto", "derta", "dpo", "dpo-prefix", "circuit-breaker"])
def test_every_method_lowers_its_loss_and_says_what_it_saw(recipe: Recipe, tmp_path: Path, method: Any) -> None:
    from harness.train.trainer import train

    result = train(replace(recipe, method=method, epochs=5.0), tmp_path / "out")
    curve = losses(result.folder)
    assert sum(curve[-3:]) < sum(curve[:3])
    assert result.manifest["pairs"] == 8
    assert result.manifest["pairs_by_part"]["helpful"] == 8
    assert result.manifest["refusal_token"] == {"word": "Sorry", "id": 4}
    assert {p.name for p in result.folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md", "log.jsonl", "loss.svg",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["derta", "dpo", "r2d2"])
def test_two_threads_make_the_gradients_of_one(recipe: Recipe, method: Any) -> None:
    import torch

    from harness.train.data import load as load_data
    from harness.train.loop import gradients, two_threads
    from harness.train.methods import draw
    from harness.train.model import Team, load
    from harness.train.objective import Whole

    recipe = replace(recipe, method=method, lora_dropout=0.0, micro_tokens=4096)
    loaded = load(recipe, recipe.base, Team())
    items = draw(recipe, load_data(recipe.data), loaded.encoder)[3:12]
    whole = Whole.of(items, 0, 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def found(threads: Any) -> tuple[dict[str, float], list[Any]]:
        for parameter in loaded.trainable():
            parameter.grad = None
            if parameter.dim() == 2 and not parameter.any():
                torch.nn.init.constant_(parameter, 0.01)  # LoRA's second matrices: else the first have no gradient
        sums = gradients(recipe, loaded, items, [(-1.0, -2.0)] * len(items), whole, threads)
        return sums.means(), [parameter.grad.clone() for parameter in loaded.trainable()]

    try:
        with two_threads(recipe, loaded) as threads:
            assert threads is not None
            (one, plain), *side_by_side = found(None), found(threads), found(threads)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for parts, grads in side_by_side:
        assert parts == pytest.approx(one, abs=1e-5)
        for ours, theirs in zip(grads, plain, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for ours, again in zip(side_by_side[0][1], side_by_side[1][1], strict=True):
        assert torch.equal(ours, again)  # a sum of two is the same in either order


def test_draws_are_not_left_to_threads(recipe: Recipe) -> None:
    import torch

    from harness.train.loop import two_threads
    from harness.train.model import Team, load

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with two_threads(recipe, load(recipe, recipe.base, Team())) as threads:
            assert threads is None  # its adapter has dropout
    finally:
        torch.set_num_threads(before)


def test_halves_are_about_as_large() -> None:
    from harness.train.loop import halves

    assert halves([10, 70, 20, 60, 30]) == [[0, 1, 2], [3, 4]]  # 100 and 90
    assert halves([5, 5]) == [[0], [1]]


def test_the_card_says_each_thing_once(recipe: Recipe, tmp_path: Path) -> None:
    from harness.train.trainer import train

    lines = (train(recipe, tmp_path / "out").folder / "README.md").read_text().splitlines()
    told = [line for line in lines if line not in ("", "---")]
    assert len(told) == len(set(told))
    assert sum("process(es)" in line for line in told) == 1


def test_full_tuning_leaves_a_checkpoint_that_loads(recipe: Recipe, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.train.trainer import train

    out = train(replace(recipe, tune="full", lr=1e-2), tmp_path / "out").folder
    AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert sum(p.numel() for p in model.parameters()) > 10_000
    assert model.dtype == torch.bfloat16, "the config says what the weights lie in, not what they were trained in"


def test_training_in_bf16_comes_near_the_curve_of_fp32(recipe: Recipe, tmp_path: Path) -> None:
    from harness.train.trainer import train

    for tune in ("lora", "full"):
        one, other = (
            losses(train(replace(recipe, tune=tune, precision=precision), tmp_path / f"{tune}-{precision}").folder)
            for precision in ("fp32", "bf16")
        )
        assert other == pytest.approx(one, rel=0.02)
        assert other != one


@pytest.mark.parametrize("method", ["dpo", "circuit-breaker", "r2d2"])
def test_every_sort_of_loss_in_bf16_starts_as_in_fp32(recipe: Recipe, tmp_path: Path, method: str) -> None:
    from harness.train.trainer import train

    recipe = change(recipe, {"method": method, "max_steps": 2, "suffix_width": 4, "lora_dropout": 0.0})
    one, other = (
        losses(train(replace(recipe, precision=precision), tmp_path / precision).folder)
        for precision in ("fp32", "bf16")
    )
    assert other == pytest.approx(one, rel=0.05)


@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_micro_batches_and_checkpointing_do_not_change_the_curve(
    recipe: Recipe, tmp_path: Path, precision: Literal["fp32", "bf16"], off: float
) -> None:
    from harness.train.trainer import train

    recipe = replace(recipe, lora_dropout=0.0, precision=precision)
    whole = losses(train(replace(recipe, micro_tokens=4096), tmp_path / "a").folder)
    split = losses(train(replace(recipe, micro_tokens=16, checkpointing=True), tmp_path / "b").folder)
    assert split == pytest.approx(whole, abs=off)


def test_dropout_is_the_same_when_activations_are_recomputed_in_bf16(recipe: Recipe, tmp_path: Path) -> None:
    from harness.train.trainer import train

    recipe = replace(recipe, precision="bf16")
    kept = losses(train(recipe, tmp_path / "kept").folder)
    again = losses(train(replace(recipe, checkpointing=True), tmp_path / "again").folder)
    assert again == pytest.approx(kept, abs=0.02)


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_give_the_same_losses_as_one(recipe: Recipe, tmp_path: Path, shard: bool) -> None:
    recipe = replace(recipe, lora_dropout=0.0, shard=shard)
    assert start(tmp_path / "one", recipe).wait(400) == 0
    assert start(tmp_path / "two", recipe, processes=2).wait(400) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_a_killed_run_goes_on_to_the_same_curve(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, epochs=30.0)
    unbroken, out = tmp_path / "unbroken", tmp_path / "killed"
    assert start(unbroken, recipe).wait(400) == 0
    for _ in range(2):
        run = start(out, recipe)
        before = state_time(out)
        while state_time(out) == before and run.poll() is None:
            time.sleep(0.002)
        time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait(30)
        assert not (out / "manifest.json").exists(), "the run ended before it was killed: make it longer"
    assert start(out, recipe).wait(400) == 0
    assert losses(out) == losses(unbroken)
    assert (out / "adapter_model.safetensors").read_bytes() == (unbroken / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_killed_run_of_two_processes_with_sharded_weights_goes_on_to_the_same_curve(
    recipe: Recipe, tmp_path: Path, tune: Any
) -> None:
    from harness.train.trainer import train

    recipe, out = replace(recipe, epochs=30.0, lora_dropout=0.0, tune=tune, lr=1e-3), tmp_path / "killed"
    run = start(out, replace(recipe, shard=True), processes=2)
    while not state_time(out) and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)  # torchrun takes its workers with it
    run.wait(60)
    assert not (out / "manifest.json").exists(), "the run ended before it was killed: make it longer"
    assert start(out, replace(recipe, shard=True), processes=2).wait(400) == 0
    assert losses(out) == pytest.approx(losses(train(recipe, tmp_path / "unbroken").folder), abs=1e-4)


def test_a_state_holds_the_weights_that_move_and_no_frozen_head(recipe: Recipe, tmp_path: Path) -> None:
    """The head of `tiny` shares the embeddings, so that torch counts it among no parameters."""
    import torch

    from harness.train import loop
    from harness.train.data import load

    loop.run(recipe, load(recipe.data), recipe.base, tmp_path)
    held = torch.load(tmp_path / "state.pt", weights_only=True)["weights"]
    assert held
    assert all("lora_" in name for name in held)


def state_time(out: Path) -> float:
    path = out / "state.pt"
    return path.stat().st_mtime if path.exists() else 0.0


def test_the_state_of_another_recipe_is_not_gone_on_from(recipe: Recipe, tmp_path: Path) -> None:
    from harness.train import loop
    from harness.train.data import load

    data = load(recipe.data)
    loop.run(recipe, data, recipe.base, tmp_path)
    with pytest.raises(UsageError, match="another recipe"):
        loop.run(replace(recipe, lr=1e-4), data, recipe.base, tmp_path)


def test_a_run_does_not_go_on_once_its_base_has_changed(recipe: Recipe, tmp_path: Path) -> None:
    """A state of an older version does not say what its base was: it goes on as it did then."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.train import loop
    from harness.train.data import load

    base, data, state = tmp_path / "base", load(recipe.data), tmp_path / "state.pt"
    shutil.copytree(recipe.base, base)
    recipe = replace(recipe, base=str(base))
    log, _, _ = loop.run(recipe, data, str(base), tmp_path)
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig.from_pretrained(base)).save_pretrained(base)
    with pytest.raises(UsageError, match=f"on other weights than {base} holds now") as told:
        loop.run(recipe, data, str(base), tmp_path)
    assert f"rm {state}" in told.value.hint
    older = torch.load(state, weights_only=True)
    del older["base_sha"]
    torch.save(older, state)
    assert len(loop.run(recipe, data, str(base), tmp_path)[0]) == len(log)


def test_the_base_is_identified_once(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are read for it."""
    from harness.models import weights
    from harness.train import model
    from harness.train.trainer import train

    plain, calls = weights.fingerprint, []

    def counted(folder: Path) -> str:
        calls.append(folder)
        return plain(folder)

    for module in (weights, model):
        monkeypatch.setattr(module, "fingerprint", counted)
    told = train(replace(recipe, max_steps=1), tmp_path / "out").manifest
    assert calls == [Path(recipe.base)]
    assert told["base_sha"] == plain(Path(recipe.base))


@pytest.mark.parametrize("content", [b"", b"no state at all", b"PK\x03\x04cut short"])
def test_a_broken_state_says_how_to_start_over(recipe: Recipe, tmp_path: Path, content: bytes) -> None:
    from harness.train import loop
    from harness.train.data import load

    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(DataError, match="broken") as told:
        loop.run(recipe, load(recipe.data), recipe.base, tmp_path)
    assert told.value.hint == f"remove it to start over: rm {tmp_path / 'state.pt'}"


def test_a_loss_that_is_no_number_stops_and_the_last_good_checkpoint_goes_on_to_the_same_curve(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.train import model, state
    from harness.train.trainer import train

    plain, calls = model.Loaded.score, []

    def broken(self: Any, batch: Any) -> Any:
        calls.append(batch)
        return plain(self, batch) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(model.Loaded, "score", broken)
    with pytest.raises(UsageError, match=r"step \d+: the loss .* is not a finite number in rows [th]\d") as caught:
        train(recipe, tmp_path / "out")
    assert "a lower lr" in caught.value.hint
    assert (tmp_path / "out" / state.FILE).exists()
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()
    resumed = losses(train(recipe, tmp_path / "out").folder)
    assert resumed == losses(train(recipe, tmp_path / "unbroken").folder)


def test_a_finite_loss_with_a_gradient_that_is_not_stops_before_it_spoils_the_weights(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the square root of 0 is infinite, its value is 0."""
    from harness.train import model
    from harness.train.trainer import train

    plain = model.Loaded.score

    def broken(self: Any, batch: Any) -> Any:
        found = plain(self, batch)
        return found + ((found - found.detach()) ** 2).sqrt()

    monkeypatch.setattr(model.Loaded, "score", broken)
    with pytest.raises(UsageError, match=r"step 0: the loss or its gradient is not a finite number in rows"):
        train(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_what_torch_says_when_memory_runs_out_is_recognised(recipe: Recipe) -> None:
    import torch

    from harness.train.loop import memory_advice
    from harness.train.model import Team

    with pytest.raises(UsageError, match="the model does not fit"), memory_advice(recipe, Team(), "the model"):
        torch.empty(2**58)
    with pytest.raises(RuntimeError, match="not of memory"), memory_advice(recipe, Team(), "a batch"):
        raise RuntimeError("this one is not of memory")
    alone = Team(device="cuda:0")
    with pytest.raises(UsageError) as caught, memory_advice(replace(recipe, shard=True), alone, "the model"):
        raise torch.OutOfMemoryError
    assert "shard: true on several GPUs (torchrun" in caught.value.hint


@pytest.mark.parametrize("where", ["score", "step"])
def test_out_of_memory_says_which_setting_to_lower(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the forward pass, and where AdamW makes its moments."""
    import torch

    from harness.train import model
    from harness.train.trainer import train

    def full(*_: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(model.Loaded if where == "score" else torch.optim.AdamW, where, full)
    with pytest.raises(UsageError, match="does not fit") as caught:
        train(recipe, tmp_path / "out")
    assert "micro_tokens (now 64)" in caught.value.hint


def test_the_losses_of_the_card_are_means_over_the_last_tenth_of_the_steps() -> None:
    from harness.train.checkpoint import last_losses
    from harness.train.loop import Step

    def step(number: int, **parts: float) -> Step:
        return Step(step=number, loss=9.0, parts=parts, lr=0.0, norm=0.0, tokens=1, supervised=1, seconds=0.0)

    log = [step(i, mle=9.0) for i in range(18)] + [step(18, mle=1.0, rto=0.5), step(19, mle=2.0)]
    assert last_losses(log) == {"mle": 1.5, "rto": 0.5}
    assert last_losses([]) == {}
