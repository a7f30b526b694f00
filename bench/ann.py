"""Approximate neighbours as ann-benchmarks measures them: fashion-mnist-784-euclidean, 60 000
images, 10 000 queries, k = 10.

Each engine has a process, and one thread, of its own, and is asked one query at a time, a call
from Python for each; then
all at once ('batch'). Distances of what it found are computed again here, so that all are judged
alike. `ours` is the public
`ANN.kneighbors`; `ours, raw` is what it calls, as the peers are called: without its checks. The
last part asks from which
number of images an approximate search is faster than the exact one, for 2 000 queries at once on
all cores.
"""

import json
import os
import sys
import tempfile
import time

from common import alone

K, ROUNDS = 10, 2
SIZES = [6000, 20_000, 60_000, 200_000, 600_000]
LIBRARIES = (
    "numpy scikit-learn numba annoy faiss-cpu hnswlib usearch voyager pynndescent scann ngt pyvsag"
)


def annoy(X):
    from annoy import AnnoyIndex

    index = AnnoyIndex(X.shape[1], "euclidean")
    for i, x in enumerate(X):
        index.add_item(i, x)
    index.build(50, n_jobs=1)
    return lambda e: ((lambda q: index.get_nns_by_vector(q, K, e)), None), [
        500,
        1000,
        1500,
        2000,
        3000,
        6000,
        12_000,
        30_000,
    ]


def hnswlib(X):
    import hnswlib

    index = hnswlib.Index("l2", X.shape[1])
    index.init_index(len(X), M=16, ef_construction=200)
    index.set_num_threads(1)
    index.add_items(X)

    def use(e):
        index.set_ef(e)
        return lambda q: index.knn_query(q, K)[0][0], lambda Q: index.knn_query(Q, K)[0]

    return use, [10, 13, 16, 17, 18, 20, 25, 30, 40, 60, 100, 200, 400]


def of_faiss(X, factory, set, efforts):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(X.shape[1], factory)
    index.train(X)
    index.add(X)

    def use(e):
        set(faiss, index, e)
        return lambda q: index.search(q[None], K)[1][0], lambda Q: index.search(Q, K)[1]

    return use, efforts


def faiss_hnsw(X):
    return of_faiss(
        X,
        "HNSW16",
        lambda _, i, e: setattr(i.hnsw, "efSearch", e),
        [10, 16, 20, 22, 24, 26, 30, 40, 60, 120, 250, 600],
    )


PROBES = [2, 4, 5, 6, 8, 12, 20, 30, 50]


def faiss_ivf(X):
    return of_faiss(X, "IVF256,Flat", lambda _, i, e: setattr(i, "nprobe", e), PROBES)


def faiss_panorama(X):
    "The same lists, read along the main axes only as far as a distance may still matter."

    def set(faiss, index, e):
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", e)

    return of_faiss(X, "PCA784,IVF256,FlatPanorama8", set, PROBES)


def faiss_recipe(X):
    def set(faiss, index, e):
        index.k_factor = max(1.0, e / K)
        faiss.ParameterSpace().set_index_parameter(index, "efSearch", e)

    return of_faiss(
        X, "PCA96,HNSW16_SQ8,RFlat", set, [20, 30, 34, 36, 38, 40, 50, 60, 100, 200, 400]
    )


def usearch(X):
    from usearch.index import Index

    index = Index(ndim=X.shape[1], metric="l2sq", dtype="f32", connectivity=16, expansion_add=128)
    index.add(range(len(X)), X, threads=1)

    def use(e):
        index.expansion_search = e
        return (
            lambda q: index.search(q, K, threads=1).keys,
            lambda Q: index.search(Q, K, threads=1).keys,
        )

    return use, [10, 15, 17, 20, 30, 60, 120, 300]


def voyager(X):
    from voyager import Index, Space

    index = Index(Space.Euclidean, X.shape[1], M=16, ef_construction=100)
    index.add_items(X, num_threads=1)
    return lambda e: (
        (lambda q: index.query(q, K, query_ef=e)[0]),
        lambda Q: index.query(Q, K, num_threads=1, query_ef=e)[0],
    ), [10, 15, 17, 20, 30, 60, 120, 300]


def pynndescent(X):
    from pynndescent import NNDescent

    index = NNDescent(X, n_neighbors=15, n_jobs=1, random_state=0)
    index.prepare()
    return lambda e: (
        (lambda q: index.query(q[None], K, epsilon=e)[0][0]),
        lambda Q: index.query(Q, K, epsilon=e)[0],
    ), [0.0, 0.05, 0.1, 0.12, 0.14, 0.2, 0.3, 0.4]


def scann(X):
    import scann

    make = scann.scann_ops_pybind.builder(X, K, "squared_l2").tree(
        250, 10, training_sample_size=len(X)
    )
    index = make.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()

    def use(e):
        leaves, kept = e
        return (
            lambda q: index.search(q, leaves_to_search=leaves, pre_reorder_num_neighbors=kept)[0],
            lambda Q: index.search_batched(
                Q, leaves_to_search=leaves, pre_reorder_num_neighbors=kept
            )[0],
        )

    return use, [
        (3, 40),
        (4, 50),
        (5, 60),
        (6, 60),
        (7, 60),
        (8, 60),
        (6, 100),
        (8, 100),
        (12, 100),
        (20, 200),
        (40, 400),
    ]


def ngt(X):
    import ngtpy

    folder = tempfile.mkdtemp()
    ngtpy.create(folder + "/index", X.shape[1], distance_type="L2", object_type="Float")
    index = ngtpy.Index(folder + "/index")
    index.batch_insert(X, num_threads=1)
    return lambda e: ((lambda q: index.search(q, K, epsilon=e, with_distance=False)), None), [
        0.0,
        0.02,
        0.03,
        0.05,
        0.1,
        0.15,
        0.25,
    ]


def vsag(X):
    import numpy as np
    import pyvsag

    index = pyvsag.Index(
        "hnsw",
        json.dumps(
            {
                "dtype": "float32",
                "metric_type": "l2",
                "dim": X.shape[1],
                "hnsw": {"max_degree": 16, "ef_construction": 100},
            }
        ),
    )
    index.build(vectors=X.ravel(), ids=np.arange(len(X)), num_elements=len(X), dim=X.shape[1])

    def use(e):
        text = json.dumps({"hnsw": {"ef_search": e}})
        return lambda q: index.knn_search(vector=q, k=K, parameters=text)[0], None

    return use, [10, 15, 17, 20, 30, 60, 120, 300]


def fitted(X):
    import numpy as np

    from fashion_proto.ann import ANN

    return ANN(K, target_recall=0.97, n_jobs=1).fit(X, np.arange(len(X)) % 10)


def ours(X):
    model = fitted(X)

    def use(e):
        model._effort = e
        return lambda q: model.kneighbors(q[None])[1][0], lambda Q: model.kneighbors(Q)[1]

    return use, [13, 17, 20, 23, 26, 27, 30, 35, 46, 61, 100, 160, 300]


def ours_raw(X):
    import numpy as np

    from fashion_proto.core.scan import kind_of
    from fashion_proto.core.graph import search_graph

    model = fitted(X)
    engine, one = model._engine, (np.empty((1, K)), np.empty((1, K), np.intp))
    fixed = engine.points, engine.order, *engine.encoder, engine.short, engine.links

    def use(e):
        def single(q):
            search_graph(kind_of(q, X, "euclidean"), q, *fixed, e, *one)
            return one[1][0].copy()

        return single, None

    return use, [13, 17, 20, 23, 26, 27, 30, 35, 46, 61, 100, 160, 300]


ENGINES = {
    "annoy": annoy,
    "hnswlib": hnswlib,
    "faiss HNSW": faiss_hnsw,
    "faiss IVF": faiss_ivf,
    "faiss Panorama": faiss_panorama,
    "faiss PCA, HNSW, re-ranked": faiss_recipe,
    "usearch": usearch,
    "voyager": voyager,
    "pynndescent": pynndescent,
    "scann": scann,
    "NGT": ngt,
    "vsag": vsag,
    "ours": ours,
    "ours, raw": ours_raw,
}


def data():
    from fashion_proto.data import load_fashion_mnist

    train, test = load_fashion_mnist()
    return train.images.reshape(len(train), -1), test.images.reshape(len(test), -1)


def resident():
    "Megabytes of this process in memory."
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def child(name, limits):
    "Measure one engine, in this process; print what was found."
    import numpy as np

    from fashion_proto.core.products import frozen

    images, queries = data()
    limits = np.load(limits)
    mine = name.startswith("ours")
    X = images if mine else images.astype(np.float32)
    if mine:
        ENGINES[name](images[:3000])[0](20)[0](
            queries[:1] if "raw" in name else queries[0]
        )  # compiled, not timed
    before, start = resident(), time.perf_counter()
    use, efforts = ENGINES[name](X)
    found = {"build_s": time.perf_counter() - start, "memory_mb": resident() - before, "points": []}
    rows = frozen(queries) if mine else queries.astype(np.float32)
    singles = [rows[i : i + 1] if "raw" in name else rows[i] for i in range(len(rows))]
    if name == "annoy":
        singles = [q.tolist() for q in singles]  # which it reads faster than arrays
    for effort in efforts:
        single, batch = use(effort)
        for q in singles[:50]:
            answer = single(q)
        best = best_batch = float("inf")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            answers = [single(q) for q in singles]
            best = min(best, time.perf_counter() - start)
            if best > len(rows) / 5000:
                break  # slow ones once
        if batch:
            batch(rows[:100])
            start = time.perf_counter()
            batch(rows)
            best_batch = time.perf_counter() - start
        hits = 0
        for q, answer, limit in zip(queries, answers, limits, strict=True):
            answer = np.unique(np.asarray(answer, dtype=np.int64))[:K]
            squares = ((images[answer].astype(np.int32) - q) ** 2).sum(1)
            hits += (squares <= limit).sum()
        found["points"].append(
            {"effort": effort, "recall": hits / len(queries) / K, "per_s": len(rows) / best}
            | ({"batch_per_s": len(rows) / best_batch} if batch else {})
        )
        if found["points"][-1]["recall"] > 0.9999:
            break
    print(json.dumps(found))


def crossing():
    "Seconds to prepare and to answer, exactly and approximately, for growing numbers of images."
    import numpy as np
    from common import larger

    from fashion_proto.ann import ANN, recall_at_k
    from fashion_proto.data import load_fashion_mnist
    from fashion_proto.knn import KNN

    train, test = load_fashion_mnist()
    queries, found = test.images[:2000], []
    for n in SIZES:
        images = larger(
            train.images[np.random.default_rng(0).permutation(len(train))[: min(n, len(train))]], n
        )
        labels, row, answers = np.arange(n) % 10, {"n": n}, {}
        for name, model in {"exact": KNN(K), "ann": ANN(K, target_recall=0.95)}.items():
            start = time.perf_counter()
            model.fit(images, labels)
            row[f"{name}_fit_s"] = time.perf_counter() - start
            model.kneighbors(queries[:200])
            start = time.perf_counter()
            answers[name] = model.kneighbors(queries)
            row[f"{name}_s"] = time.perf_counter() - start
            if name == "ann":
                row |= {
                    "recall": recall_at_k(answers["ann"][0], answers["exact"][0]).mean(),
                    "setting": model.setting_,
                }
            model = None
        found.append(row)
    print(json.dumps(found))


def at(points, recall, key="per_s"):
    "The best rate at that recall or more."
    return max((p[key] for p in points if p["recall"] >= recall and key in p), default=None)


def measure():
    import numpy as np

    from fashion_proto.knn import KNN

    images, queries = data()
    exact = KNN(K).fit(images, np.arange(len(images)) % 10)
    start = time.perf_counter()
    distances, _ = exact.kneighbors(queries)
    found = {
        "exact_batch_per_s": len(queries) / (time.perf_counter() - start),
        "k": K,
        "n_queries": len(queries),
        "engines": {},
    }
    start = time.perf_counter()
    for q in queries[:200]:
        exact.kneighbors(q[None])
    found["exact_per_s"] = 200 / (time.perf_counter() - start)
    del exact
    with tempfile.TemporaryDirectory() as folder:
        limits = os.path.join(folder, "limits.npy")
        np.save(limits, np.rint(distances[:, -1] ** 2))
        for name in ENGINES:
            print(name, flush=True)
            found["engines"][name] = alone(__file__, "child", name, limits, threads=1)
            print("  ", json.dumps(found["engines"][name])[:1000], flush=True)
    rates = {name: at(e.get("points", []), 0.97) for name, e in found["engines"].items()}
    found["per_s_at_0.97"] = rates
    best = max(
        (r, name)
        for name, r in rates.items()
        if r and not name.startswith("ours") and "PCA" not in name
    )
    found["best_raw_peer"] = best[1]
    for name in ("ours", "ours, raw"):
        found[f"{name} / best raw peer"] = rates[name] / best[0]
        found[f"{name} / annoy"] = rates[name] / rates["annoy"]
    found["hnswlib build / ours"] = (
        found["engines"]["hnswlib"]["build_s"] / found["engines"]["ours"]["build_s"]
    )
    found["crossing"] = alone(__file__, "crossing")
    return found


if __name__ == "__main__":
    crossing() if sys.argv[1] == "crossing" else child(*sys.argv[2:4])
