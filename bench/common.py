"What several benchmarks share: a clock, a process of one's own, more images, wrong labels."

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"


def seconds(call, *args, **more):
    "The time that a call took, and its result."
    start = time.perf_counter()
    result = call(*args, **more)
    return time.perf_counter() - start, result


def alone(file, *arguments, threads=None, **environment):
    """What `file`, run with these arguments in a process of its own, printed as its last line
    of JSON."""
    limits = {name: str(threads) for name in THREADS} if threads else {}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, file, *map(str, arguments)],
        env=os.environ | limits | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no result"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def larger(images, n):
    "The first `n` of the images, mirror images, and both shifted by a pixel to each side."
    copies = [
        np.roll(base, shift, axis=(1, 2))
        for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
        for base in (images, images[:, :, ::-1])
    ]
    return np.concatenate(copies)[:n] if n > len(images) else images[:n]


def exchange(codes, share, confusable, seed=0):
    "The labels with a share of them wrong, and which: the same as in chapter 9a."
    rng, wrong = np.random.default_rng(seed), codes.copy()
    rows = rng.choice(len(codes), round(share * len(codes)), replace=False)
    others = (codes[rows] + rng.integers(1, 10, len(rows))) % 10
    wrong[rows] = others if confusable is None else confusable[codes[rows]]
    return wrong, wrong != codes
