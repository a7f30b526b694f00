"""The audit: all near duplicates against scikit-learn's search by radius, and wrong labels
against cleanlab, each in one run.

Needs the `bench` extra. cleanlab ranks by probabilities that a classifier gives out of fold. It
gets them from two, on the same pixels as ours:
50 neighbours by the same similarity, and logistic regression. Of its five rankings the best is
kept, which nobody could know beforehand.
"""

import json
import sys
import warnings

import numpy as np
from common import alone, exchange, seconds

LIBRARIES = "numpy numba scikit-learn cleanlab"


def unit_rows(images):
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ours(images, **options):
    "Seconds, pairs, and the peak of memory of a process that does nothing else, in MB (Linux)."
    import resource
    from fashion_proto.audit import near_duplicates

    near_duplicates(images[:6000], **options)  # warm
    took, pairs = seconds(near_duplicates, images, **options)
    return took, len(pairs), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def theirs(images, threshold):
    """Seconds and pairs of scikit-learn's brute-force search by radius; on rows of length one,
    |a - b|^2 is 2 - 2 r."""
    from sklearn.neighbors import NearestNeighbors

    rows = unit_rows(images)

    def search():
        index = NearestNeighbors(
            radius=(2 - 2 * threshold) ** 0.5, algorithm="brute", n_jobs=2
        ).fit(rows)
        parts = range(0, len(rows), 10_000)
        return sum(
            len(near)
            for start in parts
            for near in index.radius_neighbors(rows[start : start + 10_000], return_distance=False)
        )

    took, found = seconds(search)
    return took, (found - len(rows)) // 2


def best_of_cleanlab(codes, probabilities, planted):
    from cleanlab.rank import get_label_quality_scores
    from sklearn.metrics import average_precision_score

    ways = [
        ("self_confidence", False),
        ("self_confidence", True),
        ("normalized_margin", False),
        ("normalized_margin", True),
        ("confidence_weighted_entropy", False),
    ]
    return max(
        (
            float(
                average_precision_score(
                    planted,
                    -get_label_quality_scores(
                        codes, probabilities, method=method, adjust_pred_probs=adjust
                    ),
                )
            ),
            method + ", adjusted" * adjust,
        )
        for method, adjust in ways
    )


def labels(images, true):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from fashion_proto.audit import label_issues

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    pixels, rows = images.reshape(len(images), -1) / np.float32(255), unit_rows(images)
    peers = {
        "neighbours": (
            KNeighborsClassifier(50, weights="distance", algorithm="brute", n_jobs=2),
            rows,
        ),
        "logistic regression": (LogisticRegression(max_iter=100), pixels),
    }
    confusable, out = (
        np.array([6, 3, 4, 4, 2, 9, 0, 9, 4, 7]),
        [],
    )  # as the neighbours of chapter 9 confuse them
    for errors, aim in ("any class", None), ("confusable", confusable):
        for share in 0.01, 0.05, 0.10:
            wrong, planted = exchange(true, share, aim)
            took, table = seconds(label_issues, images, wrong)
            row = {
                "errors": errors,
                "share": f"{share:.0%}",
                "ours: seconds": took,
                "ours": float(average_precision_score(planted[table.index], table["doubt"])),
            }
            for name, (model, features) in peers.items():
                took, probabilities = seconds(
                    cross_val_predict, model, features, wrong, cv=folds, method="predict_proba"
                )
                row[f"cleanlab: {name}"], row[f"{name}: ranking"] = best_of_cleanlab(
                    wrong, probabilities, planted
                )
                row[f"{name}: seconds"] = took
            out.append(row)
    return out


def measure():
    from fashion_proto.data import load_fashion_mnist

    warnings.simplefilter("ignore")
    train, _ = load_fashion_mnist()
    took, found, peak = alone(__file__, "ours", "{}")
    positions = alone(__file__, "ours", '{"flips": true, "shifts": 1}')
    took_brute, found_brute = alone(__file__, "theirs", '{"threshold": 0.98}')
    return {
        "pairs_s": took,
        "pairs": found,
        "peak_MB": peak,
        "positions_s": positions[0],
        "positions_pairs": positions[1],
        "positions_peak_MB": positions[2],
        "sklearn_radius_s": took_brute,
        "sklearn_pairs": found_brute,
        "times_faster_than_sklearn": took_brute / took,
        "labels": labels(train.images, train.labels.codes.astype(int)),
    }


if __name__ == "__main__":
    from fashion_proto.data import load_fashion_mnist

    images = np.concatenate([part.images for part in load_fashion_mnist()])
    call = {"ours": ours, "theirs": theirs}[sys.argv[1]]
    print(json.dumps(call(images, **json.loads(sys.argv[2]))))
