"""`ClusterKNN`: what sharding costs at 60 000 images, one and two workers at a million, ten million
out of core, and near copies of a million.

Needs the `cluster` extra and 30 GB of disk. The images are `_variants` of Fashion-MNIST's training
set, the queries its test images. Each part runs in a process of its own; memory is what that
process holds besides mapped files, which the machine may drop, and with them.
"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from common import alone, seconds

LIBRARIES = "numpy numba scikit-learn dask distributed"
K = 10


class Peak(threading.Thread):
    "The most memory that this process holds while it is being watched: all, and its own."

    def __init__(self):
        super().__init__(daemon=True)
        self.all = self.own = 0
        self.start()

    def run(self):
        while True:
            info = psutil.Process().memory_info()
            self.all = max(self.all, info.rss)
            self.own = max(self.own, info.rss - info.shared)
            time.sleep(0.1)


def file_of(folder, n):
    "The first `n` variants of the training set as a file, its labels, and the test images."
    from fashion_proto.cluster import _variants
    from fashion_proto.data import load_fashion_mnist

    train, test = load_fashion_mnist()
    path = Path(folder) / f"{n}.npy"
    if not path.exists():
        file = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 28, 28))
        for start in range(0, n, 100_000):
            stop = min(n, start + 100_000)
            file[start:stop] = _variants(train.images, start, stop)
    return path, np.asarray(train.labels.codes)[np.arange(n) % 60_000], test.images


def overhead(folder):
    "Seconds of `KNN` and of `ClusterKNN` for all 60 000 images and test images, fit included."
    from fashion_proto.cluster import ClusterKNN
    from fashion_proto.data import load_fashion_mnist
    from fashion_proto.knn import KNN

    train, test = load_fashion_mnist()
    rows = []
    for _ in range(4):
        row = []
        for model in KNN(K), ClusterKNN(K, folder=folder, progress=False):
            fit, _ = seconds(model.fit, train.images, train.labels)
            search, found = seconds(model.kneighbors, test.images)
            row += [fit, search, found]
        assert (row[2][0] == row[5][0]).all() and (row[2][1] == row[5][1]).all()
        rows.append([row[0], row[1], row[3], row[4]])
    names = "knn_fit_s", "knn_search_s", "cluster_fit_s", "cluster_search_s"
    return dict(zip(names, np.median(rows[1:], axis=0)))


def workers(folder, n, count, queries=10_000):
    "So many workers of one thread: fit and search of `n` images."
    from distributed import Client, LocalCluster
    from fashion_proto.cluster import ClusterKNN

    path, labels, test = file_of(folder, n)
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        model = ClusterKNN(K, folder=folder, client=client, shard_size=125_000, progress=False)
        model.fit(path, labels)
        model.kneighbors(test[:500])  # warm
        fit, _ = seconds(model.fit, path, labels)
        model.kneighbors(test[:500])
        times = [seconds(model.kneighbors, test[:queries])[0] for _ in range(3)]
        traces = [model.trace(test[:queries], limits=limits) for limits in (True, False)]
    later = [trace[trace["wave"] > 0]["in_full"].sum() for trace in traces]
    return {
        "n": n,
        "workers": count,
        "fit_s": fit,
        "search_s": float(np.median(times)),
        "bytes_in": int(traces[0]["bytes_in"].sum()),
        "bytes_out": int(traces[0]["bytes_out"].sum()),
        "tasks": len(traces[0]),
        "saved_by_limits": float(1 - later[0] / later[1]),
    }


def large(folder, n, kind):
    "Ten million: fit, 1000 queries and memory, by `KNN` of a mapped file or by `ClusterKNN`."
    from fashion_proto.cluster import ClusterKNN
    from fashion_proto.knn import KNN

    path, labels, test = file_of(folder, n)
    peak = Peak()
    if kind == "KNN":
        fit, model = seconds(KNN(K).fit, np.load(path, mmap_mode="r"), labels)
    else:
        fit, model = seconds(ClusterKNN(K, folder=folder, progress=False).fit, path, labels)
    search, (distances, indices) = seconds(model.kneighbors, test[:1000])
    return {
        "fit_s": fit,
        "search_s": search,
        "peak_bytes": peak.own,
        "peak_bytes_with_mapped": peak.all,
        "checksum": [float(distances.sum()), int(indices.sum())],
        "shards": len(getattr(model, "shards_", [])),
    }


def copies(folder, n):
    "All pairs alike to 0.99 among `n` images of a file: seconds, pairs of pieces, and memory."
    from fashion_proto.copies import near_duplicates
    from fashion_proto.core.pieces import pieces_of
    from fashion_proto.data import load_fashion_mnist

    path, _, _ = file_of(folder, n)
    near_duplicates(load_fashion_mnist()[0].images[:3000])  # compile
    pieces, peak = len(pieces_of(path).sizes), Peak()
    took, pairs = seconds(near_duplicates, path, threshold=0.99)
    return {
        "n": n,
        "seconds": took,
        "comparisons": pieces * (pieces + 1) // 2,
        "pairs": len(pairs),
        "peak_bytes": peak.own,
    }


PARTS = {"overhead": overhead, "workers": workers, "large": large, "copies": copies}


def measure():
    with tempfile.TemporaryDirectory() as folder:

        def child(*arguments):
            return alone(__file__, folder, *arguments)

        found = {
            "overhead": child("overhead"),
            "strong": [child("workers", 10**6, count) for count in (1, 2)],
            "weak": [child("workers", 5 * 10**5, 1)],
            "copies": [child("copies", n) for n in (250_000, 10**6)],
            "large": {kind: child("large", 10**7, kind) for kind in ("ClusterKNN", "KNN")},
        }
    cluster, knn = found["large"]["ClusterKNN"], found["large"]["KNN"]
    return found | {"same_answer": cluster.get("checksum") == knn.get("checksum")}


if __name__ == "__main__":
    folder, part, *rest = sys.argv[1:]
    print(json.dumps(PARTS[part](folder, *(int(x) if x.isdigit() else x for x in rest))))
