"""What the trainer costs: useful tokens a second and memory against the official script's way and TRL, RTO's price, and
what a step in two halves side by side gains over all cores at one product.

    python benchmarks/trainer.py                            # two CPU cores, a few minutes
    pip install --no-deps --target FOLDER trl && python benchmarks/trainer.py --trl FOLDER

Same data, base, adapter and number of steps for all; the ways take turns, each in a process of its own, and the
median of the rounds counts. *Useful* tokens are those of the rows, never padding. The official way, as its script
does it: every row padded to a block of 512, logits at every position, the loss by the model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROWS, BLOCK = 8, 512
THREADS = os.environ.get("OMP_NUM_THREADS", "2")


def recipe(method: str, precision: str) -> Any:
    from harness.train.recipe import Recipe

    return Recipe(name=method, method=method, pairs=64, helpful=64, batch=ROWS, precision=precision)


def prepared(method: str, precision: str) -> tuple[Any, Any, list[Any], list[list[int]]]:
    """Recipe, model with its adapter, rows and the rows of every step: what all ways share."""
    from harness.train.data import load as load_data
    from harness.train.methods import draw, schedule
    from harness.train.model import Team, load
    from harness.train.trainer import locate

    chosen = recipe(method, precision)
    loaded = load(chosen, locate(chosen.base), Team.join())
    items = draw(chosen, load_data(chosen.data), loaded.encoder)
    return chosen, loaded, items, schedule(chosen, len(items))


def ours(method: str, precision: str, *, halves: bool = True) -> Iterator[int]:
    """One step at a time, by our loop, its halves side by side or all cores at one product; yields its rows' tokens."""
    import torch

    from harness.train.loop import one_step, two_threads
    from harness.train.objective import Whole

    chosen, loaded, items, plan = prepared(method, precision)
    optimizer = torch.optim.AdamW(loaded.trainable(), lr=chosen.lr)
    with two_threads(chosen, loaded) as threads:
        for number, step in enumerate(plan):
            rows = [items[i] for i in step]
            given = rows, [(0.0, 0.0)] * len(rows), Whole.of(rows, number, len(plan))
            yield one_step(chosen, loaded, optimizer, *given, threads if halves else None).tokens


def official(method: str, precision: str) -> Iterator[int]:
    """Rows padded to the block, logits everywhere, the loss by the model; bf16 by autocast, as its Trainer does it."""
    import torch

    chosen, loaded, items, plan = prepared(method, precision)
    loaded.model.get_base_model().set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(loaded.trainable(), lr=chosen.lr)
    for step in plan:
        rows = [items[i] for i in step]
        ids = torch.full((len(rows), BLOCK), loaded.encoder.end)
        labels, mask = torch.full((len(rows), BLOCK), -100), torch.zeros(len(rows), BLOCK, dtype=torch.long)
        for n, row in enumerate(rows):
            size = len(row.ids)
            ids[n, :size], mask[n, :size] = torch.tensor(row.ids), 1
            labels[n, 1 : size + 1] = torch.tensor(row.labels)  # the model shifts them back
        optimizer.zero_grad()
        with loaded.precision():
            loss = loaded.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(loaded.trainable(), 1.0)
        optimizer.step()
        yield sum(len(row.ids) for row in rows)


def child(way: str, steps: int, precision: str) -> None:
    """Runs one way: a step to warm up, then the timed ones. Prints tokens/s and the peak of resident memory."""
    import torch

    torch.set_num_threads(int(THREADS))
    ways: dict[str, Callable[[], Iterator[int]]] = {
        "ours": lambda: ours("derta", precision),
        "official": lambda: official("derta", precision),
        "vanilla": lambda: ours("vanilla", precision),
        "in turn": lambda: ours("derta", precision, halves=False),
    }
    run = ways[way]()
    next(run)
    began, tokens = time.perf_counter(), 0
    for _ in range(steps):
        tokens += next(run)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"tokens_per_second": tokens / seconds, "peak_gib": peak, "seconds": seconds / steps}))


TRL = """
import json, resource, sys, time
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer
base, rows, steps, precision, scratch, threads = sys.argv[1:7]
steps = int(steps)
torch.set_num_threads(int(threads))
rows = [json.loads(line) for line in open(rows)]
class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        times.append(time.perf_counter())
times = []
dtype = torch.bfloat16 if precision == "bf16" else torch.float32
model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
tokens = sum(len(row["input_ids"]) for row in rows)
length = 1024
config = SFTConfig(output_dir=scratch, packing=True, max_length=length, per_device_train_batch_size=1,
    max_steps=steps + 1, report_to=[], use_cpu=True, bf16=False, learning_rate=6e-4, save_strategy="no",
    gradient_checkpointing=False, disable_tqdm=True, logging_strategy="no")
lora = LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", target_modules=["q_proj", "k_proj", "v_proj", "o_proj",
    "gate_proj", "up_proj", "down_proj"])
trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), peft_config=lora,
    callbacks=[Clock()])
packed = sum(len(row["input_ids"]) for row in trainer.train_dataset) / len(trainer.train_dataset)
trainer.train()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
speed = packed * steps / (times[-1] - times[0])
print(json.dumps({"tokens_per_second": speed, "peak_gib": peak, "packed": packed}))
"""


def trl_rows(path: Path) -> str:
    """The same rows as ids and completion mask, for TRL; returns the base's folder."""
    _, _, items, _ = prepared("derta", "fp32")
    from harness.train.trainer import locate

    with path.open("w") as file:
        for row in items:
            mask = [0, *(int(label != -100) for label in row.labels[:-1])]
            file.write(json.dumps({"input_ids": list(row.ids), "completion_mask": mask}) + "\n")
    return locate("smollm2-135m")


def last_json(command: list[str], **environment: str) -> dict[str, float]:
    """The last line a child process prints."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1:4]} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def told(way: str, found: dict[str, float]) -> dict[str, float]:
    """Shows a result as soon as it is there: a benchmark that is cut off has not been for nothing."""
    line = f"  {way}: {found['tokens_per_second']:.0f} tokens/s, peak {found['peak_gib']:.2f} GiB"
    print(line, file=sys.stderr, flush=True)
    return found


def figure(name: str, ratio: float, bound: float, *, at_least: bool) -> None:
    """One line a figure, as every benchmark here ends."""
    good = ratio >= bound if at_least else ratio <= bound
    print(f"{name} ratio={ratio:.2f} bound{'>=' if at_least else '<='}{bound:g} {'ok' if good else 'short'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of 8 rows in each round")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--trl", type=Path, help="folder that trl was installed into; without it that figure is left out"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.steps, args.precision)
    ways = ["ours", "official", "vanilla", "in turn"]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in [*ways, "trl"]}
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        base = trl_rows(rows) if args.trl else ""
        for _ in range(args.rounds):
            for way in ways:
                again = [sys.executable, __file__, "--child", way, "--steps", str(args.steps)]
                found[way].append(told(way, last_json([*again, "--precision", args.precision])))
            if args.trl:
                command = [
                    sys.executable,
                    "-c",
                    TRL,
                    base,
                    str(rows),
                    str(args.steps),
                    args.precision,
                    scratch,
                    THREADS,
                ]
                path = os.pathsep.join([str(args.trl.resolve()), os.environ.get("PYTHONPATH", "")])
                found["trl"].append(told("trl", last_json(command, PYTHONPATH=path)))
    report(found)
    return None


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians, then the figures."""

    def median(way: str, key: str = "tokens_per_second") -> float:
        return statistics.median(row[key] for row in found[way])

    for way, rows in found.items():
        if rows:
            peak = f", peak {median(way, 'peak_gib'):.2f} GiB" if "peak_gib" in rows[0] else ""
            print(f"{way}: {median(way):.0f} useful tokens/s{peak}")
    figure("trainer_vs_official", median("ours") / median("official"), 4.0, at_least=True)
    if found["trl"]:
        figure("trainer_vs_trl", median("ours") / median("trl"), 1.0, at_least=True)
    else:
        print("trainer_vs_trl left out: no --trl FOLDER")
    figure("trainer_memory", median("ours", "peak_gib") / median("official", "peak_gib"), 0.4, at_least=False)
    figure("trainer_halves", median("ours") / median("in turn"), 1.0, at_least=True)
    # A step of derta reads longer rows than one of vanilla: the price is per token read.
    figure("rto_cost", median("vanilla") / median("ours"), 1.05, at_least=False)


if __name__ == "__main__":
    main()
