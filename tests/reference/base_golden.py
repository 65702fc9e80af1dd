# SPDX-License-Identifier: MIT
"""Golden data for tests/base: PyTorch's CPU random numbers. Rewrites tests/golden/rng.txt. Run on x86 with AVX2:

    ATEN_CPU_CAPABILITY=avx2 python tests/reference/base_golden.py
"""
import os
import sys

import torch

from hashweights import digest

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "rng.txt")
# one generator draws these lengths in turn; every fifth seed also 65536
LENGTHS = (16, 17, 31, 1000, 1, 2, 3, 5, 15, 4096, 7, 64, 129, 33, 48)
SEEDS = list(range(240)) + [2**31 - 1, 2**32 - 1, 2**32, 2**32 + 7, 2**63 - 1, 123456789012345, 20260101, 42 << 33]


def main():
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        sys.exit("run with ATEN_CPU_CAPABILITY=avx2 on a machine that has it")
    with open(OUT, "w") as f:
        f.write(f"# made by tests/reference/base_golden.py, torch {torch.__version__.split('+')[0]}, {torch.backends.cpu.get_cpu_capability()}\n")
        f.write("# seeds FIRST COUNT DIGEST: COUNT consecutive seeds, one digest over all their draws\n")
        i = 0
        while i < len(SEEDS):
            count = 8 if SEEDS[i] < 240 else 1
            h = 0
            for seed in SEEDS[i : i + count]:
                g = torch.Generator("cpu").manual_seed(seed)
                for n in LENGTHS + ((65536,) if seed % 5 == 0 else ()):
                    h = digest(h, torch.randn(n, generator=g).numpy())
                h = digest(h, torch.rand(1, generator=g).numpy())
            f.write(f"seeds {SEEDS[i]} {count} {h:016x}\n")
            i += count
        for seed, n in ((0, 16), (1234, 19), (7, 5)):
            x = torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed))
            f.write(f"values {seed} {n} " + " ".join(f"{v:08x}" for v in x.view(torch.int32).numpy().view("uint32")) + "\n")


main()
