"""Top-p on a CPU: ours against vLLM's own, which sorts the vocabulary, in turns.

    python benchmarks/cpu_sampling.py

`nucleus_vs_sort`: CPU seconds of cutting 64 rows of 49,152 logits to top-p 0.8, ours over vLLM's own (less is better).
The logits are as peaked as a small model's: about 20 tokens hold 0.8.
"""

from __future__ import annotations

import time

import torch

from harness.models import cpu_sampling

ROWS, VOCABULARY, TOP_P, TURNS = 64, 49_152, 0.8, 7


def main() -> None:
    from vllm.v1.sample.ops import topk_topp_sampler as sampler

    cpu_sampling.install()
    ours = sampler.apply_top_k_top_p_pytorch
    ways = {"ours": ours, "theirs": ours.instead_of}
    torch.manual_seed(0)
    logits = torch.randn(ROWS, VOCABULARY)
    logits[:, :100] += torch.linspace(14, 4, 100)
    p = torch.full((ROWS,), TOP_P)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    left = {}
    for _ in range(TURNS):
        for name, way in ways.items():
            mine = logits.clone()
            began = time.process_time()
            left[name] = way(mine, None, p, True) > -torch.inf
            seconds[name].append(time.process_time() - began)
    best = {name: min(values) for name, values in seconds.items()}
    same = bool((left["ours"] == left["theirs"]).all())
    held = int(left["ours"].sum()) / ROWS
    print(f"CPU milliseconds: ours {1000 * best['ours']:.0f}, vLLM's own {1000 * best['theirs']:.0f}")
    print(f"the same tokens stay: {same}, {held:.0f} a row")
    ratio = best["ours"] / best["theirs"]
    print(f"nucleus_vs_sort ratio={ratio:.3f} bound<=0.20 {'ok' if ratio <= 0.2 and same else 'short'}")


if __name__ == "__main__":
    main()
