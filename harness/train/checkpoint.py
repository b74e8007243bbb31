"""What a finished run leaves behind: weights or an adapter, a manifest, the log, a loss plot and a model card."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.models.hub import bare
from harness.train.data import TrainSet
from harness.train.methods import schedule
from harness.train.recipe import Recipe, change, find, names
from harness.train.rows import Item, Pair, rows_of
from harness.train.state import FILE, make_folder, replace, weights, written
from harness.types import sha

if TYPE_CHECKING:
    from harness.train.loop import Step
    from harness.train.model import Loaded


def save(
    folder: Path, recipe: Recipe, data: TrainSet, loaded: Loaded, items: Sequence[Item], log: Sequence[Step]
) -> dict[str, Any]:
    """Writes everything but the state file, which goes last. Returns the manifest. Every process must call it."""
    moved = weights(loaded)
    recipe = change(recipe, {"base": bare(recipe.base)})  # an address may hold a login
    manifest = describe(recipe, data, loaded, items, log)
    if loaded.team.rank:
        return manifest
    make_folder(folder)
    with written(folder):
        write_weights(folder, recipe, loaded, moved)
    write_text(folder / "log.jsonl", "".join(json.dumps(asdict(step)) + "\n" for step in log))
    write_text(folder / "loss.svg", plot(log))
    write_text(folder / "README.md", card(recipe, manifest))
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    (folder / FILE).unlink(missing_ok=True)
    return manifest


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one move."""
    replace(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


def write_weights(folder: Path, recipe: Recipe, loaded: Loaded, moved: dict[str, Any]) -> None:
    """An adapter in bf16, or the whole model; made beside the folder's files and moved in when it is whole."""
    import torch

    scratch = folder / ".writing"
    shutil.rmtree(scratch, ignore_errors=True)
    low = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in moved.items()}
    if recipe.tune == "lora":
        loaded.model.save_pretrained(scratch, state_dict=low, save_embedding_layers=False)
        settle_adapter(scratch / "adapter_config.json", recipe)
        (scratch / "README.md").unlink(missing_ok=True)  # ours says more
    else:
        loaded.model.save_pretrained(scratch, state_dict=low)
        settle_weights(scratch / "config.json")
        loaded.tokenizer.save_pretrained(scratch)
    for path in sorted(scratch.iterdir()):
        path.replace(folder / path.name)
    scratch.rmdir()


def settle_adapter(path: Path, recipe: Recipe) -> None:
    """The adapter's settings with the base by its name (no path of this machine) and in a fixed order."""
    settings = json.loads(path.read_text())
    settings["base_model_name_or_path"] = recipe.base
    settings["target_modules"] = sorted(settings["target_modules"])
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def settle_weights(path: Path) -> None:
    """The precision the weights were written in, in the place of that they were trained in."""
    settings = json.loads(path.read_text())
    settings["dtype"] = "bfloat16"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def describe(
    recipe: Recipe, data: TrainSet, loaded: Loaded, items: Sequence[Item], log: Sequence[Step]
) -> dict[str, Any]:
    """What was trained, on what, and how much of it the model saw."""
    import peft
    import torch
    import transformers

    seconds = sum(step.seconds for step in log)
    tokens = sum(step.tokens for step in log)
    return {
        "recipe": asdict(recipe),
        "recipe_sha": sha({**asdict(recipe), "name": ""}),
        "data_sha": data.digest,
        "base": recipe.base,
        "base_sha": loaded.base_sha,
        "refusal_token": {"word": recipe.refusal, "id": loaded.encoder.refusal},
        "end_of_turn": loaded.encoder.end,
        **count(seen(recipe, items, len(log))),
        "steps": len(log),
        "tokens_seen": tokens,
        "supervised_seen": sum(step.supervised for step in log),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / max(1e-9, seconds), 1),
        "last_losses": last_losses(log),
        "processes": loaded.team.size,
        "device": loaded.team.device.partition(":")[0],
        "versions": {
            "harness": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def seen(recipe: Recipe, items: Sequence[Item], steps: int) -> list[Item]:
    """The items that some step read: fewer than were drawn where a recipe ends before its first pass does."""
    return [items[i] for i in sorted({i for step in schedule(recipe, len(items))[:steps] for i in step})]


def count(items: Sequence[Item]) -> dict[str, Any]:
    """Pairs and supervised positions by part; `pairs` counts all but the helpful ones."""
    kinds = Counter(item.chosen.part if isinstance(item, Pair) else item.part for item in items)
    places: Counter[str] = Counter()
    for item in items:
        for row in rows_of(item):
            places[row.part] += row.supervised
    return {
        "pairs": sum(n for part, n in kinds.items() if part != "helpful"),
        "pairs_by_part": dict(sorted(kinds.items())),
        "positions_by_part": dict(sorted(places.items())),
    }


def plot(log: Sequence[Step]) -> str:
    """The loss of each part by step, as SVG, smoothed over ten steps."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "harness"}):  # the same file from the same log
        figure, axes = plt.subplots(figsize=(6, 3.2))
        for part in sorted({part for step in log for part in step.parts}):
            points = [(step.step + 1, step.parts[part]) for step in log if part in step.parts]
            values = [value for _, value in points]
            windows = [values[max(0, i - 9) : i + 1] for i in range(len(values))]
            smooth = [sum(window) / len(window) for window in windows]
            axes.plot([at for at, _ in points], smooth, label=part)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (mean of 10 steps)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


def last_losses(log: Sequence[Step]) -> dict[str, float]:
    """Each part's mean loss over those of the last tenth of the steps that it occurred in: one step holds few pairs."""
    found: dict[str, list[float]] = {}
    for step in log[-max(1, len(log) // 10) :]:
        for part, loss in step.parts.items():
            found.setdefault(part, []).append(loss)
    return {part: round(sum(losses) / len(losses), 4) for part, losses in sorted(found.items())}


def command(recipe: Recipe) -> str:
    """What to type to make it again: the bundled recipe of its name, else of its method, and what differs from it."""
    bundled = recipe.name if recipe.name in names() else f"smollm2-{recipe.method}"
    usual, mine = asdict(find(bundled)), asdict(recipe)
    told = {k: ",".join(v) if isinstance(v, tuple) else str(v) for k, v in mine.items() if v != usual[k]}
    changes = [f"--set {shlex.quote(f'{k}={v}')}" for k, v in told.items()]
    return " ".join([f"harness train --recipe {bundled}", *changes])


def card(recipe: Recipe, manifest: dict[str, Any]) -> str:
    """The model card: what it is, how to make it again, what it saw, what it is not."""
    last = {part: f"{loss:.3f}" for part, loss in manifest["last_losses"].items()}
    rows = "\n".join(
        f"| {part} | {manifest['pairs_by_part'].get(part, 0)} | {n} | {last.get(part, '')} |"
        for part, n in manifest["positions_by_part"].items()
    )
    settings = "\n".join(f"- `{key}`: {value}" for key, value in manifest["recipe"].items())
    kind = "LoRA adapter" if recipe.tune == "lora" else "Full weights"
    header = "---\nbase_model: {}\nlibrary_name: {}\ntags: [harness, safety, {}]\n---\n".format(
        recipe.base, "peft" if recipe.tune == "lora" else "transformers", recipe.method
    )
    speed = f"{manifest['seconds']:.0f} s at {manifest['tokens_per_second']:.0f} tokens/s"
    return f"""{header}
# {recipe.name}

{kind} for `{recipe.base}` trained with the method `{recipe.method}`{" (experimental)" if recipe.experimental else ""}.

    {command(recipe)}

Refusal token: `{recipe.refusal}` = {manifest["refusal_token"]["id"]}. Base {manifest["base_sha"]}, data
{manifest["data_sha"]}, recipe {manifest["recipe_sha"]}.

| part | pairs | labelled positions | loss, last tenth of the steps |
|---|---|---|---|
{rows}

{manifest["steps"]} steps, {manifest["tokens_seen"]} tokens read, {manifest["supervised_seen"]} labelled,
{speed}, {manifest["processes"]} process(es), {manifest["device"]}.

![loss](loss.svg)

What it does under attack is not said here: run `harness run` on it, with its over-refusal beside it.

## Settings
{settings}
"""
