"""Learned prototypes: `LVQ` against GLVQ of sklvq, 10 prototypes for each class, the same 50
principal components of Fashion-MNIST, in one run.

Needs the `bench` extra. sklvq 0.1.2 is of 2021 and calls scikit-learn by two names that have gone
since: `up_to_date` gives it the new ones, and changes nothing else. (sklearn-lvq 1.1.1 fails
inside SciPy's optimiser, which takes no two-dimensional start any more.) sklvq starts each
prototype at the mean of its class with a little noise and takes no other start. It is measured as
it comes (ten rounds, an
image at a time, steepness 1), and twice with steepness 10: thirty rounds in batches of 50, and
300 iterations of L-BFGS. Lengths are in units of their root mean square for all, which only sklvq
cares about.
"""

import statistics

import numpy as np
from common import seconds

LIBRARIES = "numpy numba scikit-learn sklvq"
ROUNDS, N = 3, 10


def up_to_date():
    "sklvq's module, its calls of scikit-learn by the names of today."
    import sklvq.models._base as base
    from sklearn.utils import validation

    def renamed(check):
        return lambda *args, force_all_finite=True, **kw: check(
            *args, ensure_all_finite=force_all_finite, **kw
        )

    base.LVQBaseClass._validate_data, base.check_array = (
        renamed(validation.validate_data),
        renamed(validation.check_array),
    )
    import sklvq

    return sklvq


def components():
    """Fifty principal components of the training and the validation images, in units of their
    root mean square, and the labels."""
    from sklearn.decomposition import PCA

    from fashion_proto.data import as_float, load_fashion_mnist

    parts = load_fashion_mnist()[0].split()
    pixels = [as_float(part.images).reshape(len(part), -1) for part in parts]
    pca = PCA(50, svd_solver="covariance_eigh").fit(pixels[0])
    train, valid = (pca.transform(rows).astype(np.float64) for rows in pixels)
    unit = np.sqrt(np.square(train).sum(axis=1).mean())
    return train / unit, np.asarray(parts[0].labels), valid / unit, np.asarray(parts[1].labels)


def measure():
    from fashion_proto.kmeans import KMeansPrototypes
    from fashion_proto.lvq import LVQ

    X, y, held, held_y = components()
    LVQ(N, max_iter=1).fit(X[:500], y[:500])  # compiled loops
    out = {}
    for name, make in {
        "LVQ": lambda: LVQ(N),
        "KMeansPrototypes": lambda: KMeansPrototypes(N),
    }.items():
        times, models = zip(*(seconds(make().fit, X, y) for _ in range(ROUNDS)))
        out[name] = {"fit_s": statistics.median(times), "accuracy": models[0].score(held, held_y)}
    per_class, GLVQ = np.full(10, N), up_to_date().GLVQ
    steep = {"activation_params": {"beta": 10}}
    settings = {
        "as it comes": {},
        "batches of 50": {
            **steep,
            "solver_params": {"max_runs": 30, "batch_size": 50, "step_size": 0.02},
        },
        "L-BFGS": {**steep, "solver_type": "lbfgs", "solver_params": {"options": {"maxiter": 300}}},
    }
    for name, chosen in settings.items():
        took, model = seconds(
            GLVQ(prototype_n_per_class=per_class, random_state=0, **chosen).fit, X, y
        )
        out[f"sklvq, {name}"] = {
            "fit_s": took,
            "accuracy": float((model.predict(held) == held_y).mean()),
        }
    theirs = [row for name, row in out.items() if "sklvq" in name]
    best = max(theirs, key=lambda row: row["accuracy"])
    return {
        "fits": out,
        "times_faster_than_best": best["fit_s"] / out["LVQ"]["fit_s"],
        "times_faster_than_fastest": min(row["fit_s"] for row in theirs) / out["LVQ"]["fit_s"],
    }
