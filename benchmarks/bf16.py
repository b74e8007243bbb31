"""Whether a CPU multiplies bf16 faster than float32, as `auto` takes it to do or not.

    python benchmarks/bf16.py

`bf16_over_fp32`: time of a bf16 product over that of a float32 one, one thread, shapes of SmolLM2-135M. `auto` (of
--precision in training, of --dtype in vLLM) should take bf16 where this is below 1. It goes by the CPU's flags, since
what is timed might differ between two starts of one training.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from harness.models.weights import bf16_in_hardware

SHAPES = ((300, 576, 1536), (300, 1536, 576), (300, 576, 576), (80, 576, 49152))  # rows, inputs, outputs
ROUNDS = 15


def seconds(rows: torch.Tensor, weight: torch.Tensor) -> float:
    """Of one product."""
    began = time.perf_counter()
    torch.nn.functional.linear(rows, weight)
    return time.perf_counter() - began


def main() -> None:
    """Prints a ratio a shape, and what `auto` takes."""
    torch.set_num_threads(1)
    for m, k, n in SHAPES:
        rows, weight = torch.randn(m, k), torch.randn(n, k)
        low, taken = (rows.bfloat16(), weight.bfloat16()), []
        for _ in range(ROUNDS):
            taken.append(seconds(*low) / seconds(rows, weight))
        speed = 2 * m * k * n / seconds(rows, weight) / 1e9
        print(f"{m} x {k} x {n}: bf16_over_fp32 {median(taken):.2f} (fp32 {speed:.0f} GFLOP/s)")
    print(f"auto takes {'bf16' if bf16_in_hardware() else 'float32'}")


if __name__ == "__main__":
    main()
