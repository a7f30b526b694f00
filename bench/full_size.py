"""What `make test` asks of a part of the data, asked of all of it. No time is measured: the numbers
are the same on every machine, and a wrong neighbour or a missed target stops the run.
"""

import numpy as np

LIBRARIES = "numpy numba faiss-cpu"
TARGETS = [0.80, 0.90, 0.95, 0.99]


def wrong_neighbours(points, queries, k=10):
    """How many of the neighbours that `KNN` gives are not those of brute force in whole numbers,
    by index, equal distances in the order of the images, or not at the same distance.

    Products in single precision say which images can be that near; these are computed exactly.
    """
    from fashion_proto.knn import KNN

    distances, indices = KNN(k).fit(points, np.zeros(len(points))).kneighbors(queries)
    floats, squares = points.astype(np.float32), (points.astype(np.int64) ** 2).sum(axis=1)
    margin = 2 * points.shape[1] * 2.0**-24 * squares.max() + 16  # of the products, and of the sums
    wrong = 0
    for start in range(0, len(queries), 500):
        own, far = queries[start : start + 500], distances[start : start + 500]
        rough = squares.astype(np.float32) - 2 * (own.astype(np.float32) @ floats.T)
        limit = far[:, -1:] ** 2 - (own.astype(np.int64) ** 2).sum(axis=1, keepdims=True)
        i, j = np.nonzero(rough <= (limit + margin).astype(np.float32))
        exact = ((own[i].astype(np.int32) - points[j]) ** 2).sum(axis=1)
        order = np.lexsort((j, exact, i))
        first = np.searchsorted(i[order], np.arange(len(own)))[:, None] + np.arange(k)
        same = (far == np.sqrt(exact[order][first])) & (
            indices[start : start + 500] == j[order][first]
        )
        wrong += int((~same).sum())
    return wrong


def reached(points, queries, k):
    "For each target a fit of its own: the setting chosen, and the recall of the queries."
    from fashion_proto.ann import ANN, recall_at_k
    from fashion_proto.knn import KNN

    labels, out = np.arange(len(points)) % 3, []
    exact, _ = KNN(k).fit(points, labels).kneighbors(queries)
    for target in TARGETS:
        model = ANN(k, target_recall=target).fit(points, labels)
        recall = float(recall_at_k(model.kneighbors(queries)[0], exact).mean())
        assert recall >= target - 0.01, f"{recall} of {target}"
        out.append({"target": target, "recall": recall, "setting": model.setting_})
    return out


def measure():
    from fashion_proto.data import load_fashion_mnist

    train, test = (part.images.reshape(len(part), -1) for part in load_fashion_mnist())
    rng = np.random.default_rng(0)
    random, asked = rng.normal(size=(100_000, 32)), rng.normal(size=(500, 32))
    wrong = wrong_neighbours(train, test)
    assert wrong == 0, f"{wrong} neighbours are not those of brute force"
    return {
        "neighbours_compared": 10 * len(test),
        "wrong_neighbours": wrong,
        "ann_garments": reached(train, test, 10),
        "ann_random_100000": reached(random, asked, 5),
    }
