"""Prototypes of patches: `PatchKNN` on validation, five seeds for each preset, and the fused
extraction against plain products.

Of the 60 000 training images, 48 000 are learned from and 12 000 named. Last, for chapter 12,
each preset learns from all 60 000 and names the test images, once. Each run has a process of its
own; its seconds are of `fit` and `predict` together, its memory is
the peak of the whole process. Loops are compiled beforehand.
"""

import json
import resource
import sys

import numpy as np
from common import alone, seconds

LIBRARIES = "numpy numba scikit-learn scipy"
SEEDS = range(5)


def halves():
    from fashion_proto.data import load_fashion_mnist

    return load_fashion_mnist()[0].split()


def warm(images, labels):
    from fashion_proto.patches import PatchPrototypes
    from fashion_proto.patchknn import PatchKNN

    for n in 400, 6000:  # neighbours are searched for by bounds among 5000 or more
        PatchKNN([PatchPrototypes(2, n_cells=1)]).fit(images[:n], labels[:n]).predict(images[:50])


def classify(preset, seed):
    "One run: seconds, accuracy, peak memory; and the accuracy with parts left out."
    from fashion_proto.knn import KNN
    from fashion_proto.patchknn import PatchKNN

    train, valid = halves()
    warm(train.images, train.labels)
    model = PatchKNN(preset, random_state=int(seed))
    fit, _ = seconds(model.fit, train.images, train.labels)
    predict, named = seconds(model.predict, valid.images)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    truth = np.asarray(valid.labels)

    def right(named):
        return float((named == truth).mean())

    ours, asked = model.knn_._points, model.transform(valid.images)
    ends = [0, *model._ends, ours.shape[1]]
    by_class = np.concatenate([np.arange(a, a + len(model.classes_)) for a in ends[:-1]])
    codes = model.knn_._label_codes

    def neighbours(columns):
        return (
            KNN(model.n_neighbors, weights=model.weights)
            .fit(ours[:, columns], train.labels)
            .predict(asked[:, columns])
        )

    means = np.stack([ours[codes == c].mean(axis=0) for c in range(len(model.classes_))])
    nearest = ((asked[:, None, by_class] - means[:, by_class]) ** 2).sum(axis=2).argmin(axis=1)
    return {
        "seed": int(seed),
        "accuracy": right(named),
        "fit_s": fit,
        "predict_s": predict,
        "seconds": fit + predict,
        "peak_bytes": peak,
        "without_pairs": right(neighbours(by_class)),
        "nearest_mean": right(model.classes_[nearest]),
        "each_set": [right(neighbours(np.arange(a, b))) for a, b in zip(ends, ends[1:])],
    }


def final(preset):
    """The one run on the test set: accuracy, seconds, peak memory, and the size of the model
    beside the images that it keeps."""
    import pickle
    from fashion_proto.data import load_fashion_mnist
    from fashion_proto.patchknn import PatchKNN

    train, test = load_fashion_mnist()
    warm(train.images, train.labels)
    model = PatchKNN(preset)
    fit, _ = seconds(model.fit, train.images, train.labels)
    predict, named = seconds(model.predict, test.images)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "accuracy": float((named == np.asarray(test.labels)).mean()),
        "fit_s": fit,
        "predict_s": predict,
        "seconds": fit + predict,
        "peak_bytes": peak,
        "model_bytes": len(pickle.dumps(model)),
    }


def plain(patches, images, block=20):
    """The same numbers as `PatchPrototypes.transform` by whole arrays and matrix products, some
    images at a time."""
    from fashion_proto.patches import _FLOOR, _normalised, _pool_weights

    shift, to_even, to_odd, by_even, by_odd, norms = patches._learned
    side, out = patches.patch_shape_, []
    own, mirror = np.hstack([by_even.T, by_odd.T]), np.hstack([by_even.T, -by_odd.T])
    prototypes, norms = np.concatenate([own, mirror]), np.concatenate([norms, norms])
    for start in range(0, len(images), block):
        windows = np.lib.stride_tricks.sliding_window_view(
            patches._scaled(images[start : start + block]), side, axis=(1, 2)
        )
        n, rows, columns = windows.shape[:3]
        parts = _normalised(windows.reshape(-1, *side, 1).copy(), _FLOOR)
        white = np.hstack([parts.even @ to_even - shift, parts.odd @ to_odd])
        square = (white**2).sum(axis=1, keepdims=True)
        distances = np.sqrt(np.maximum(white @ prototypes.T + norms + square, 0))
        near = np.maximum(distances.mean(axis=1, keepdims=True) - distances, 0).reshape(
            n, rows, columns, -1
        )
        down, across = (_pool_weights(count, patches.n_cells) for count in (rows, columns))
        cells = np.tensordot(
            across, np.tensordot(down, near, (0, 1)), (0, 2)
        )  # across, down, image, prototype
        pairs = len(norms) // 2
        out.append((cells[..., :pairs] + cells[::-1, ..., pairs:]).transpose(2, 1, 0, 3))
    return np.concatenate(out)


def extraction(n_prototypes):
    """Seconds for 60 000 images, from 600 in plain products and 6000 fused, in turns; the same
    numbers."""
    from fashion_proto.patches import PatchPrototypes

    train, _ = halves()
    patches = PatchPrototypes(int(n_prototypes)).fit(train.images)
    patches.transform(train.images[:100])
    times = []
    for _ in range(3):
        slow, by_hand = seconds(plain, patches, train.images[:600])
        fast, fused = seconds(patches.transform, train.images[:6000])
        fused = fused[:600].reshape(600, 4, 4, -1)[..., :-2]
        assert np.allclose(fused, by_hand, rtol=1e-3, atol=1e-3 * by_hand.max()), abs(
            fused - by_hand
        ).max()
        times.append((100 * slow, 10 * fast))
    slow, fast = np.median(times, axis=0)
    return {
        "n_prototypes": int(n_prototypes),
        "plain_s": slow,
        "fused_s": fast,
        "times_faster": slow / fast,
        "largest_difference": float(abs(fused - by_hand).max() / by_hand.max()),
    }


def measure():
    out = {"extraction": alone(__file__, "extraction", 1000)} | {
        preset: [alone(__file__, "classify", preset, seed) for seed in SEEDS]
        for preset in ("fast", "best")
    }
    return out | {
        "final": {preset: alone(__file__, "final", preset) for preset in ("fast", "best")}
    }


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    print(json.dumps({"classify": classify, "extraction": extraction, "final": final}[part](*rest)))
