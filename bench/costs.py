"""What the methods of the book cost that need no benchmark of their own, and what they answer: for
chapter 15, each learns from the 60 000 training images and names the 10 000 test images; for
chapter 4, k-means with 1 to 100 prototypes for each class learns from 48 000 and names 12 000.

Each has a process of its own, and its seconds are the median of three runs. Memory is the peak of
the whole process, and the size of a model that of its pickle. Loops are compiled beforehand.
What each method of chapter 15 names the test images, and the 12 000 of validation after learning
from 48 000, goes to `results/costs.npz`, as numbers of classes.
"""

import json
import pickle
import resource
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import alone, seconds

LIBRARIES = "numpy numba scikit-learn annoy"
SIZES = 1, 3, 10, 30, 100


class Annoy:
    "annoy's ten trees, and the votes of five neighbours; its pickle holds the index as a file."

    def fit(self, X, y):
        from fashion_proto.trees import build_annoy

        self.index, self.labels = build_annoy(X), y

    def predict(self, X):
        from fashion_proto.trees import ann_pred

        return ann_pred(self.index, self.labels, X, k=5)

    def __getstate__(self):
        with tempfile.NamedTemporaryFile() as file:
            self.index.save(file.name)
            return Path(file.name).read_bytes(), self.labels


def models():
    "The models of chapter 15, those to compare with, and one that only validation is asked about."
    from fashion_proto.ann import ANN
    from fashion_proto.averages import AveragePrototypes
    from fashion_proto.kmeans import KMeansPrototypes
    from fashion_proto.knn import KNN
    from fashion_proto.lvq import LVQ
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "average of each class": AveragePrototypes(),
        "k-means, 10 a class": KMeansPrototypes(),
        "LVQ, 10 a class": make_pipeline(PCA(50, svd_solver="covariance_eigh"), LVQ()),
        "1 neighbour": KNN(n_neighbors=1),
        "5 neighbours": KNN(),
        "5 neighbours by ANN": ANN(),
        "5 neighbours, Manhattan": KNN(metric="manhattan"),
        "5 neighbours by annoy": Annoy(),
        "scikit-learn NearestCentroid": NearestCentroid(),
        "scikit-learn KNeighborsClassifier": KNeighborsClassifier(algorithm="brute"),
        "5 neighbours, standardised": make_pipeline(StandardScaler(), KNN()),
    }


def rows_of(part):
    "The images of a part as rows, and their classes."
    return part.images.reshape(len(part), -1), part.labels.codes


def cost(name, model, learned, named):
    "Seconds to learn and to name, peak memory, and the size of the model."
    (X, y), (new, _) = map(rows_of, (learned, named))
    model.fit(X[:5000], y[:5000])
    model.predict(new[:8])
    runs = [(seconds(model.fit, X, y)[0], seconds(model.predict, new)[0]) for _ in range(3)]
    fit, predict = map(statistics.median, zip(*runs))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "name": name,
        "fit_s": fit,
        "predict_s": predict,
        "peak_bytes": peak,
        "model_bytes": len(pickle.dumps(model)),
    }


def of_method(name):
    from fashion_proto.data import load_fashion_mnist

    (train, test), model = load_fashion_mnist(), models()[name]
    small, valid = train.split()
    result, answers = {}, {}
    if name != "5 neighbours, standardised":  # which brought nothing: the test set is scored once
        result = cost(name, model, train, test)
        answers["test"] = model.predict(rows_of(test)[0])
    model.fit(*rows_of(small))
    answers["valid"] = model.predict(rows_of(valid)[0])
    return result | {"answers": {part: np.asarray(own).tolist() for part, own in answers.items()}}


def of_kmeans(n):
    from fashion_proto.data import load_fashion_mnist
    from fashion_proto.kmeans import KMeansPrototypes

    return cost(int(n), KMeansPrototypes(int(n)), *load_fashion_mnist()[0].split())


def measure():
    methods = {name: alone(__file__, "of_method", name) for name in models()}
    failed = {name: found["failed"] for name, found in methods.items() if "failed" in found}
    if failed:
        sys.exit(f"nothing was kept, for these failed: {failed}")
    answers = {
        f"{part}, {name}": np.array(own, np.uint8)
        for name, found in methods.items()
        for part, own in found.pop("answers").items()
    }
    np.savez_compressed(Path(__file__).parent / "results/costs.npz", **answers)
    return {
        "methods": [found for found in methods.values() if found],
        "kmeans": [alone(__file__, "of_kmeans", n) for n in SIZES],
    }


if __name__ == "__main__":
    part, name = sys.argv[1:]
    print(json.dumps({"of_method": of_method, "of_kmeans": of_kmeans}[part](name)))
