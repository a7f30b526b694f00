"""Kaggle's CSV pair: `fashion_proto.data.read_csv` against `pandas.read_csv` with its defaults,
in turns, in one run."""

import statistics
import tempfile
import tracemalloc
from pathlib import Path

import pandas as pd
from common import seconds

from fashion_proto.data import load_fashion_mnist, read_csv

LIBRARIES = "numpy pandas scikit-learn"
ROUNDS = 7


def measure():
    parts = load_fashion_mnist()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"fashion-mnist_{name}.csv") for name in ("train", "test")]
        for part, path in zip(parts, paths):
            part.frame().to_csv(path, index=False)
        for part, path in zip(parts, paths):
            ours, table = read_csv(path), pd.read_csv(path)
            assert (
                ours.images.reshape(len(ours), -1) == table.drop(columns="label").to_numpy()
            ).all()
            assert (ours.labels.codes == table["label"]).all() and (
                ours.images == part.images
            ).all()
        del ours, table
        times = [
            (
                seconds(lambda: [len(read_csv(path)) for path in paths])[0],
                seconds(lambda: [len(pd.read_csv(path)) for path in paths])[0],
            )
            for _ in range(ROUNDS)
        ]
        tracemalloc.start()
        images = read_csv(paths[0]).images
        peak = tracemalloc.get_traced_memory()[1] / (images.nbytes + len(images))
    ours, theirs = (statistics.median(t) for t in zip(*times))
    return {
        "ratio": theirs / ours,
        "ours_s": ours,
        "pandas_s": theirs,
        "worst_ratio": min(b / a for a, b in times),
        "rounds": ROUNDS,
        "peak_over_arrays": peak,
    }
