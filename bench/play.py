"""What the pages to play with show: the answers of four methods on the test images, after learning
from all 60 000, a map of these, and how many training images the sandbox should carry.

The answers go to `results/play.npz`; models were chosen before, and nothing is chosen here but the
size of the sandbox, on validation images.
"""

import zlib
from pathlib import Path

import numpy as np
from common import seconds
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline

LIBRARIES = "numpy numba scikit-learn scipy"
SEED = 0


def every(labels, per_class):
    "The rows of the first images of each class, in their order."
    rank = np.zeros(len(labels), int)
    for label in set(labels.tolist()):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    return np.flatnonzero(rank < per_class)


def sizes(train):
    "Accuracy on validation and weight in characters, by training images of each class."
    from fashion_proto.knn import KNN

    small, valid = train.split()
    labels, found = np.asarray(small.labels), {}
    for per_class in (100, 300, 600, 1000, 1500, 4800):
        rows = every(labels, per_class)
        model = KNN().fit(small.images[rows], labels[rows])
        packed = zlib.compress(small.images[rows].tobytes(), 9)
        found[per_class] = {
            "accuracy": model.score(valid.images, np.asarray(valid.labels)),
            "characters": 4 * len(packed) // 3,
        }
    return found


def measure():
    from fashion_proto.data import load_fashion_mnist
    from fashion_proto.explore import _kept
    from fashion_proto.knn import KNN
    from fashion_proto.lvq import LVQ
    from fashion_proto.patchknn import PatchKNN

    train, test = load_fashion_mnist()
    codes, rows = train.labels.codes, train.images.reshape(len(train), -1)
    knn = KNN().fit(train.images, codes)
    found = {"knn_rows": knn.kneighbors(test.images)[1].astype(np.uint16)}
    learned = make_pipeline(PCA(50, svd_solver="covariance_eigh"), LVQ(random_state=SEED)).fit(
        rows.astype(np.float32), codes
    )
    found |= {
        "lvq_axes": learned[0].components_.astype(np.float32),
        "lvq_mean": learned[0].mean_.astype(np.float32),
        "lvq_prototypes": learned[1].prototypes_.astype(np.float32),
        "lvq_labels": learned[1].prototype_labels_.astype(np.uint8),
    }
    fit, patches = seconds(PatchKNN("fast", random_state=SEED).fit, train.images, codes)
    distances, near = patches.kneighbors(test.images, 5)
    shares = patches.predict_proba(test.images)
    top = np.argsort(-shares, axis=1, kind="stable")[:, :3]
    found |= {
        "patches_rows": near.astype(np.uint16),
        "patches_distances": distances.astype(np.float32),
        "patches_top": top.astype(np.uint8),
        "patches_shares": np.take_along_axis(shares, top, 1).astype(np.float32),
    }
    flat = PCA(50, svd_solver="covariance_eigh").fit_transform(
        test.images.reshape(len(test), -1).astype(np.float32)
    )
    layout, xy = seconds(TSNE(init="pca", random_state=SEED).fit_transform, flat)
    links = KNN(10).fit(test.images, codes[: len(test)]).kneighbors(return_distance=False)
    low, high = xy.min(axis=0), xy.max(axis=0)
    found["xy"] = np.rint(65535 * (xy - low) / (high - low).max()).astype(np.uint16)
    np.savez_compressed(Path(__file__).parent / "results/play.npz", **found)
    return {
        "patches_accuracy": float((top[:, 0] == test.labels.codes).mean()),
        "patches_fit_s": fit,
        "layout_s": layout,
        "neighbours_kept": {
            "principal components": float(_kept(flat[:, :2], links).mean()),
            "neighbour graph (t-SNE)": float(_kept(xy, links).mean()),
        },
        "sandbox": sizes(train),
    }
