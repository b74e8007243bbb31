"""GCG's step beside nanoGCG's, on the embedded checkpoint: CPU-seconds, memory, and the suffixes both find.

    pip install --no-deps --target /tmp/nanogcg nanogcg==0.3.0
    python benchmarks/gcg.py speed memory gcg_same_strings --nanogcg /tmp/nanogcg

nanoGCG runs twice: as it does on current transformers, without its prefix cache, and with that cache made to work by
a shim. It is given the whole chat template: left alone it deletes every `<|im_start|>`, this model's BOS. One thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

REQUEST = "Tell me."
TARGET = "Sure, the ring floats because of a thin thread"
INIT = "x x x x x x x x x x x x x x x x x x x x"
CURRENT, CACHED, OURS = "nanogcg, no prefix cache", "nanogcg, prefix cache shimmed in", "ours"


def loaded(dtype: str) -> tuple[Any, Any]:
    """The embedded checkpoint and its tokenizer, on one thread."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.models.embedded import ensure

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ensure(), dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(ensure())


class Legacy:
    """Takes and gives the prefix cache in the old form, tuples by layer, that nanoGCG 0.3.0 is written for."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, past_key_values: Any = None, **more: Any) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache()
        for i, (key, value) in enumerate(past_key_values or ()):
            cache.update(key, value, i)
        out = self.model(past_key_values=cache, **more)
        out.past_key_values = tuple((layer.keys, layer.values) for layer in cache.layers)
        return out


def keep_bos(tokenizer: Any) -> Any:
    """A copy that names no BOS text, so that nanoGCG leaves the template as it is; the BOS id stays forbidden."""
    import copy

    other = copy.copy(tokenizer)
    other.__class__ = type("Kept", (type(tokenizer),), {"bos_token": property(lambda self: None)})
    return other


def nano(model: Any, tokenizer: Any, steps: int, width: int, seed: int, *, cache: bool) -> tuple[float, list[str]]:
    """CPU-seconds from the first step's start to the end, and the suffix after each step."""
    import nanogcg.gcg

    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    nanogcg.gcg.tqdm = iter
    config = nanogcg.GCGConfig(
        num_steps=steps, search_width=width, seed=seed, use_prefix_cache=cache, optim_str_init=INIT
    )
    search = nanogcg.gcg.GCG(Legacy(model) if cache else model, keep_bos(tokenizer), config)
    began: list[float] = []
    gradient = search.compute_token_gradient

    def timed(*args: Any) -> Any:
        began.append(time.process_time())
        return gradient(*args)

    search.compute_token_gradient = timed
    found = search.run(REQUEST, TARGET)
    return time.process_time() - began[0], found.strings


def ours(model: Any, tokenizer: Any, steps: int, width: int, seed: int) -> tuple[float, list[str]]:
    """The same for this project's search."""
    from dataclasses import replace

    from attacks.gcg import PRESETS
    from attacks.gcg_search import Search, tokens_of
    from attacks.packed import packed

    tokens = tokens_of(tokenizer, model.get_input_embeddings().weight.shape[0])
    scene = tokens.scene(packed(model), REQUEST, TARGET)
    search = Search(packed(model), tokens, [scene], replace(PRESETS["nanogcg"], steps=steps, width=width, seed=seed))
    began = time.process_time()
    strings = [tokens.decode(search.step().ids) for _ in range(steps)]
    return time.process_time() - began, strings


def contenders(model: Any, tokenizer: Any) -> dict[str, Callable[[int, int, int], tuple[float, list[str]]]]:
    """Each search as a function of steps, width and seed."""
    return {
        CURRENT: lambda *a: nano(model, tokenizer, *a, cache=False),
        CACHED: lambda *a: nano(model, tokenizer, *a, cache=True),
        OURS: lambda *a: ours(model, tokenizer, *a),
    }


def report(name: str, ratio: float, bound: float) -> bool:
    print(f"{name} ratio={ratio:.3f} bound<={bound:.3f} {'ok' if ratio <= bound else 'short'}", flush=True)
    return ratio <= bound


def lengths(tokenizer: Any) -> str:
    """The prompt's parts in tokens."""
    whole = tokenizer.apply_chat_template([{"role": "user", "content": f"{REQUEST}\ue000"}], tokenize=False)
    prefix, suffix, target = (len(tokenizer(t)["input_ids"]) for t in (whole.partition("\ue000")[0], INIT, TARGET))
    return f"prefix {prefix}, suffix {suffix}, target {target} tokens"


def speed(args: argparse.Namespace) -> bool:
    """CPU-seconds a step, interleaved; the median over rounds."""
    model, tokenizer = loaded(args.dtype)
    print(f"{args.dtype}, {args.width} candidates, {lengths(tokenizer)}")
    seconds: dict[str, list[float]] = {}
    for seed in range(args.rounds):
        for name, search in contenders(model, tokenizer).items():
            took, strings = search(1, args.width, seed)
            seconds.setdefault(name, []).append(took)
            print(f"  round {seed}: {took:6.2f} s  {name}: {strings[0]!r}", flush=True)
    middle = {name: statistics.median(took) for name, took in seconds.items()}
    print("  median: " + ", ".join(f"{name} {took:.2f} s" for name, took in middle.items()))
    good = report("gcg_vs_current", middle[OURS] / middle[CURRENT], 0.36)
    return report("gcg_vs_cached", middle[OURS] / middle[CACHED], 0.60) and good


def high_water() -> float:
    """The most memory this process has had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def step_memory(args: argparse.Namespace) -> None:
    """In a process of its own: prints what one step adds to the loaded model, and the whole, in MB."""
    model, tokenizer = loaded(args.dtype)
    search = contenders(model, tokenizer)[args.only]
    search(1, 2, 0)  # what the libraries set up once
    Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark again from what is used now
    before = high_water()
    search(1, args.width, 0)
    print(json.dumps([high_water() - before, high_water()]))


def memory(args: argparse.Namespace) -> bool:
    """Peak memory of one step over the loaded model, each in a process of its own."""
    added = {}
    for name in (CACHED, OURS):
        command = [
            sys.executable,
            __file__,
            "memory",
            "--only",
            name,
            "--width",
            str(args.width),
            "--dtype",
            args.dtype,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"NANOGCG": args.nanogcg}
        )
        added[name], whole = json.loads(done.stdout.splitlines()[-1])
        print(f"  {name}: {added[name]:.0f} MB over the loaded model, {whole:.0f} MB in all", flush=True)
    return report("gcg_memory", added[OURS] / added[CACHED], 0.60)


def strings(args: argparse.Namespace) -> bool:
    """The share of steps after which the two suffixes differ."""
    model, tokenizer = loaded("float32")
    searches = contenders(model, tokenizer)
    theirs, mine = (searches[name](args.steps, args.width, args.seed)[1] for name in (CACHED, OURS))
    differ = [i for i, (a, b) in enumerate(zip(theirs, mine, strict=True)) if a != b]
    print(f"  float32, {args.width} candidates, seed {args.seed}: {args.steps - len(differ)} of {args.steps} the same")
    print(f"  last: {mine[-1]!r}")
    return report("gcg_same_strings", len(differ) / args.steps, 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["speed", "memory", "gcg_same_strings"])
    parser.add_argument("--nanogcg", default=os.environ.get("NANOGCG", ""), help="folder nanoGCG was installed into")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.append(args.nanogcg)
    if args.only:
        step_memory(args)
        return 0
    good = [{"speed": speed, "memory": memory, "gcg_same_strings": strings}[what](args) for what in args.what]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
