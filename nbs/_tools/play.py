"""Write the pages to play with: the answers that `make bench` stored, and the real images."""

import base64
import zlib
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline

from fashion_proto.averages import AveragePrototypes, NearestPrototype
from fashion_proto.core.pages import packed, write_page
from fashion_proto.data import load_fashion_mnist
from fashion_proto.explore import explore

here = Path(__file__).resolve().parent
PER_CLASS = 1200  # training images in the sandbox, of each class; bench/play.py says why
CREDIT = "Images by Zalando Research, MIT licence."


class Stored:
    "The answers of a model, kept: it names the test images, all of them, in their order."

    def __init__(self, classes, rows, distances, shares):
        self.classes_, self.rows, self.distances, self.shares = classes, rows, distances, shares

    def kneighbors(self, X):
        return self.distances, self.rows

    def predict_proba(self, X):
        return self.shares

    def predict(self, X):
        return self.classes_[self.shares.argmax(axis=1)]


def answers_of_knn(classes, rows, train, test):
    "Distances and votes of neighbours; a tied vote goes to the nearest one's class."
    images = test.images.astype(np.int32)
    near = [((images - train.images[own]) ** 2).sum(axis=(1, 2)) for own in rows.T]
    votes = train.labels.codes[rows]
    shares = (votes[:, :, None] == np.arange(len(classes))).mean(axis=1)
    tied = shares[np.arange(len(shares))[:, None], votes] == shares.max(axis=1)[:, None]
    winner = votes[np.arange(len(votes)), tied.argmax(axis=1)]
    shares[np.arange(len(shares)), winner] += 1e-9
    return Stored(classes, rows, np.sqrt(np.stack(near, 1)), shares)


def answers_of_patches(classes, kept):
    "What was stored of the prototypes of patches."
    shares = np.zeros((len(kept["patches_top"]), len(classes)))
    np.put_along_axis(shares, kept["patches_top"].astype(int), kept["patches_shares"], axis=1)
    rows = kept["patches_rows"].astype(int)
    return Stored(classes, rows, kept["patches_distances"], shares)


def learned_prototypes(classes, kept):
    "LVQ on principal components, as it was fitted."
    pca = PCA(len(kept["lvq_axes"]))
    pca.components_, pca.mean_ = kept["lvq_axes"], kept["lvq_mean"]
    pca.n_components_, pca.n_features_in_ = kept["lvq_axes"].shape
    return Pipeline([("pca", pca), ("lvq", prototypes_of(classes, kept))])


def prototypes_of(classes, kept):
    "The learned prototypes, on their components."
    return NearestPrototype().fit(kept["lvq_prototypes"], classes[kept["lvq_labels"]])


def write_mistakes(path, train, test, kept):
    "The test images under four methods, and a map of them."
    classes = np.asarray(train.labels.categories)
    models = {
        "Averages": AveragePrototypes().fit(train.images, train.labels),
        "LVQ": learned_prototypes(classes, kept),
        "KNN": answers_of_knn(classes, kept["knn_rows"].astype(int), train, test),
        "Patches": answers_of_patches(classes, kept),
    }
    explore(
        models,
        test.images,
        test.labels,
        train=train,
        layouts={"neighbour graph (t-SNE)": kept["xy"]},
        title="10 000 garments: who takes them for what",
        credit=CREDIT,
    ).save(path, split=True)


def subset(codes, per_class):
    "The rows of the first images of each class, in their order."
    rows = [np.flatnonzero(codes == c)[:per_class] for c in range(codes.max() + 1)]
    return np.sort(np.concatenate(rows))


def deflated(images):
    "Images in parts of 1000, each row less the one above it, as compressed bytes in base64."
    steps = np.diff(images, axis=1, prepend=np.zeros_like(images[:, :1]))  # modulo 256
    parts = []
    for start in range(0, len(steps), 1000):
        packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
        block = packer.compress(steps[start : start + 1000].tobytes()) + packer.flush()
        parts.append(base64.b64encode(block).decode())
    return parts


def write_sandbox(path, train, test, kept):
    "A drawing, and what is nearest to it."
    codes, classes = train.labels.codes, np.asarray(train.labels.categories)
    rows = subset(codes, PER_CLASS)
    trains, tests = deflated(train.images[rows]), deflated(test.images)
    parts = {f"train-{j}": text for j, text in enumerate(trains)}
    parts |= {f"test-{j}": text for j, text in enumerate(tests)}
    averages = [train.images[codes == c].mean(axis=0) for c in range(len(classes))]
    data = {
        "title": "Draw a garment",
        "text": "At each stroke the page looks for the nearest class average, the nearest learned "
        f"prototypes and the nearest of {len(rows):,} training images, and lets these vote. "
        "Try to draw a boot; then stretch it until it is called a bag.",
        "credit": CREDIT,
        "names": classes.tolist(),
        "averages": packed(averages, "f8"),
        "lvq": {
            "axes": packed(kept["lvq_axes"], "f4"),
            "mean": packed(kept["lvq_mean"], "f4"),
            "prototypes": packed(kept["lvq_prototypes"], "f4"),
            "labels": packed(kept["lvq_labels"], "u2"),
        },
        "train": {
            "labels": packed(codes[rows], "u2"),
            "rows": packed(rows, "i4"),
            "parts": len(trains),
        },
        "n_test": len(test),
        "starts": [
            [int(np.flatnonzero(test.labels.codes == c)[0]), name] for c, name in enumerate(classes)
        ],
    }
    script, style = ((here / "play" / name).read_text() for name in ("sandbox.js", "sandbox.css"))
    write_page(path, data, parts, script, style, split=True)


def write_pages(folder, results=here.parents[1] / "bench/results"):
    "Write all pages to play with into `folder`."
    folder.mkdir(parents=True, exist_ok=True)
    train, test = load_fashion_mnist()
    kept = np.load(results / "play.npz")
    write_mistakes(folder / "mistakes.html", train, test, kept)
    write_sandbox(folder / "sandbox.html", train, test, kept)
