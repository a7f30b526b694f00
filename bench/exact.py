"""Exact neighbours: `KNN` against faiss's flat index, scikit-learn and a NumPy broadcast, 10
nearest of Fashion-MNIST, in one run.

Needs the `bench` extra. (pynndescent, another peer by name, has no exact search.) Each part runs
in a process of its own with its own number of threads; within a part, ours and faiss take turns.
The neighbours of faiss and scikit-learn are compared with ours: their arithmetic is single
precision, and near ties come out in another order.
"""

import itertools
import json
import statistics
import sys
import tempfile

import numpy as np
from common import alone, larger, seconds

LIBRARIES = "numpy numba scikit-learn faiss-cpu"
ROUNDS, K = 5, 10


def rows(images):
    return images.reshape(len(images), -1)


def fitted(points, n_jobs):
    from fashion_proto.knn import KNN

    return KNN(K, n_jobs=n_jobs).fit(points, np.zeros(len(points), np.uint8))


def flat(points):
    import faiss

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(points, np.float32))
    return index


def whole(threads, points, queries):
    "Fit and search for all test images, and one at a time."
    from sklearn.neighbors import NearestNeighbors

    fitted(points, threads).kneighbors(queries[:300])  # warm
    index, floats = flat(points), queries.astype(np.float32)
    index.search(floats[:300], K)
    fits, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        took, knn = seconds(fitted, points, threads)
        fits.append(took)
        took, (distances, indices) = seconds(knn.kneighbors, queries)
        ours.append(took)
        took, (_, by_faiss) = seconds(index.search, floats, K)
        theirs.append(took)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute", n_jobs=threads).fit(
        points.astype(np.float32)
    )
    by_brute = seconds(brute.kneighbors, floats)
    one = [], []
    for start in range(0, 500, 100):  # a hundred single queries each, in turns
        for times, call, asked, rest in (
            (one[0], knn.kneighbors, queries, ()),
            (one[1], index.search, floats, (K,)),
        ):
            times += [seconds(call, asked[i : i + 1], *rest)[0] for i in range(start, start + 100)]
    ours_one, theirs_one = map(statistics.median, one)
    both = [fit + search for fit, search in zip(fits, ours)]
    return {
        "fit_s": statistics.median(fits),
        "search_s": statistics.median(ours),
        "faiss_flat_s": statistics.median(theirs),
        "sklearn_brute_s": by_brute[0],
        "times_faster_than_faiss": statistics.median(theirs) / statistics.median(both),
        "least": min(t / o for t, o in zip(theirs, both)),
        "times_faster_than_sklearn": by_brute[0] / statistics.median(both),
        "one_query_ms": 1000 * ours_one,
        "one_query_faiss_ms": 1000 * theirs_one,
        "one_query_ratio": theirs_one / ours_one,
        "same_neighbours_faiss": float((by_faiss == indices).all(axis=1).mean()),
        "same_neighbours_sklearn": float((by_brute[1][1] == indices).all(axis=1).mean()),
    }


def slow_peers(threads, points, queries):
    """Milliseconds a query of peers too slow for all 10 000, by a hundred queries (the
    broadcast: ten)."""
    from sklearn.neighbors import NearestNeighbors

    floats, some, out = points.astype(np.float32), queries[:100].astype(np.float32), {}
    _, indices = fitted(points, threads).kneighbors(queries[:100])
    for name in "kd_tree", "ball_tree":
        took, tree = seconds(
            NearestNeighbors(n_neighbors=K, algorithm=name, n_jobs=threads).fit, floats
        )
        asked, (_, found) = seconds(tree.kneighbors, some)
        out[name] = {
            "fit_s": took,
            "ms_a_query": 10 * asked,
            "same_neighbours": float((found == indices).all(axis=1).mean()),
        }

    def broadcast(query):
        return np.argsort(((query - floats) ** 2).sum(axis=1), kind="stable")[:K]

    took, found = seconds(lambda: np.array([broadcast(query) for query in some[:10]]))
    return out | {
        "numpy_broadcast": {
            "ms_a_query": 100 * took,
            "same_neighbours": float((found == indices[:10]).all(axis=1).mean()),
        }
    }


def growth(threads, images, queries):
    """Fit and milliseconds a query as the set grows, with faiss's flat index beside; peak
    memory beyond the images, in bytes an image."""
    out = []
    fitted(rows(images)[:6000], threads).kneighbors(queries[:300])  # warm
    for n in 15_000, 30_000, 60_000, 120_000, 240_000, 600_000:
        points, times = rows(larger(images, n)), []
        fit, knn = seconds(fitted, points, threads)
        index = flat(points)
        for _ in range(3):
            times.append(
                (
                    seconds(knn.kneighbors, queries[:1000])[0],
                    seconds(index.search, queries[:1000].astype(np.float32), K)[0],
                )
            )
        ours, theirs = (statistics.median(column) for column in zip(*times))
        del index
        out.append({"n": n, "fit_s": fit, "ms_a_query": ours, "faiss_flat_ms_a_query": theirs})
    return out


def memory(threads, points, queries):
    """Peak memory of fit and search beyond what the process holds with the images in it, in
    bytes (Linux)."""

    def status(name):
        return next(
            1024 * int(line.split()[1])
            for line in open("/proc/self/status")
            if line.startswith(name)
        )

    fitted(points[:6000], threads).kneighbors(queries[:300])  # libraries and compiled loops
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak so far is forgotten
    before = status("VmRSS")
    fitted(points, threads).kneighbors(queries)
    return status("VmHWM") - before


def dimension(threads, images, queries):
    """How many times faster than faiss's flat index, fit included: images averaged over squares
    of pixels, and random vectors."""
    out = {"images": [], "random": []}
    rng = np.random.default_rng(0)
    for kind, sizes in ("images", (14, 7, 4, 2, 1)), ("random", (4, 16, 32, 64)):
        for size in sizes:
            if kind == "images":
                points, asked = (
                    np.round(
                        rows(a.reshape(-1, 28 // size, size, 28 // size, size).mean(axis=(2, 4)))
                    ).astype(np.uint8)
                    for a in (images, queries.reshape(-1, 28, 28))
                )
            else:
                points, asked = (
                    rng.normal(size=(n, size)).astype(np.float32) for n in (60_000, 10_000)
                )
            knn = fitted(points, threads)
            knn.kneighbors(asked[:300])
            index, times = flat(points), []
            for _ in range(3):
                fit, knn = seconds(fitted, points, threads)
                times.append(
                    (
                        fit + seconds(knn.kneighbors, asked)[0],
                        seconds(index.search, asked.astype(np.float32), K)[0],
                    )
                )
            ours, theirs = (statistics.median(column) for column in zip(*times))
            out[kind].append(
                {
                    "dimension": points.shape[1],
                    "search": knn.search_,
                    "ours_s": ours,
                    "faiss_flat_s": theirs,
                    "ratio": theirs / ours,
                }
            )
    return out


def mixture(n, p):
    "Like embeddings: 50 Gaussians of 60 directions, the first the widest, and a little noise."
    rng = np.random.default_rng(0)
    basis, widths = rng.normal(size=(60, p)), np.arange(1, 61) ** -0.6
    centres, codes = 1.5 * rng.normal(size=(50, 60)), rng.integers(50, size=n)
    out = np.empty((n, p), np.float32)
    for part in np.array_split(np.arange(n), 10):
        inner = centres[codes[part]] + rng.normal(size=(len(part), 60))
        out[part] = (inner * widths) @ basis + 0.3 * rng.normal(size=(len(part), p))
    return out


def embedded():
    "The garments as EfficientNet-Lite0 sees them: what `bench/features.py` chose, and has cached."
    from features import FOLDER, embed
    from fashion_proto.data import load_fashion_mnist

    train, test = load_fashion_mnist()
    sets = *train.split(valid_fraction=0.2, random_state=0), test
    net = embed(112, "_blocks.11", cache=FOLDER)
    return np.concatenate([net.transform(set.images) for set in sets])


def vectors(threads, points, queries, sizes=(64, 128, 384, 768, 1280), rounds=3):
    """Random, embedding-like and real vectors: fit, 10 000 queries, and one query, against faiss's
    flat index (for the cosine: of inner products of unit rows), in turns; and how many rows of a
    hundred are those of double precision."""
    import faiss
    from fashion_proto.core.products import search
    from fashion_proto.knn import KNN

    def ours(metric, points):
        return KNN(K, metric=metric, n_jobs=threads).fit(points, np.zeros(len(points), np.uint8))

    def theirs(metric, points):
        if metric == "euclidean":
            return flat(points)
        points, index = points.copy(), faiss.IndexFlatIP(points.shape[1])
        faiss.normalize_L2(points)
        index.add(points)
        return index

    def data(kind, p):
        if kind == "random":
            return np.random.default_rng(0).normal(size=(70_000, p)).astype(np.float32)
        return mixture(70_000, p) if kind == "mixture" else embedded()

    out, cases = [], [*itertools.product(("random", "mixture"), sizes), ("EfficientNet", 192)]
    for (kind, p), metric in itertools.product(cases, ("euclidean", "cosine")):
        both = data(kind, p)
        points, queries = both[:60_000], both[60_000:]
        unit = queries.copy()
        if metric == "cosine":
            faiss.normalize_L2(unit)
        ours(metric, points[:6000]).kneighbors(queries[:300])  # warm
        times = []
        for _ in range(rounds):
            fit, knn = seconds(ours, metric, points)
            ask, (_, indices) = seconds(knn.kneighbors, queries)
            build, index = seconds(theirs, metric, points)
            peer, _ = seconds(index.search, unit, K)
            times.append((fit, ask, build, peer, (build + peer) / (fit + ask)))
        one = [
            (
                seconds(knn.kneighbors, queries[i : i + 1])[0],
                seconds(index.search, unit[i : i + 1], K)[0],
            )
            for i in range(50)
        ]
        exact = search(queries[:100], points, K, metric, 0.0)[1]
        names = "fit_s", "search_s", "faiss_add_s", "faiss_search_s", "ratio"
        single = [statistics.median(column) for column in zip(*one)]
        out.append(
            {"kind": kind, "dimension": p, "metric": metric, "search": knn.search_}
            | dict(zip(names, map(statistics.median, zip(*times))))
            | {"least": min(t[-1] for t in times), "one_query_ratio": single[1] / single[0]}
            | {"same_rows_of_100": int((exact == indices[:100]).all(axis=1).sum())}
        )
    return out


def compiling(threads, points, queries):
    """Seconds of the first fit and search less those of the second, with an empty cache of
    compiled loops."""

    def both():
        fitted(points, threads).kneighbors(queries[:300])

    return seconds(both)[0] - seconds(both)[0]


PARTS = {
    "whole": whole,
    "slow_peers": slow_peers,
    "memory": memory,
    "compiling": compiling,
    "growth": growth,
    "dimension": dimension,
    "vectors": vectors,
}


def measure():
    def child(part, threads, n=60_000, **environment):
        return alone(__file__, part, threads, n, threads=threads, **environment)

    with tempfile.TemporaryDirectory() as cache:
        compile_s = child("compiling", 2, NUMBA_CACHE_DIR=cache)
    peak = {n: child("memory", 2, n) for n in (60_000, 600_000)}
    return {
        "whole": {threads: child("whole", threads) for threads in (2, 1)},
        "slow_peers": child("slow_peers", 2),
        "compile_s": compile_s,
        "peak_bytes": peak,
        "bytes_an_image": (peak[600_000] - peak[60_000]) / 540_000,
        "growth": child("growth", 2),
        "dimension": child("dimension", 2),
        "vectors": child("vectors", 2),
    }


if __name__ == "__main__":
    from fashion_proto.data import load_fashion_mnist

    part, threads, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    train, test = load_fashion_mnist()
    images = train.images if part in ("growth", "dimension") else rows(larger(train.images, n))
    del train
    print(json.dumps(PARTS[part](threads, images, rows(test.images))))
