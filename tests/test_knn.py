"""`KNN`: scikit-learn's contract, a loop oracle, scikit-learn's own neighbours, rounding, memory, refusals."""
import base64
import pickle
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import cosine_distances
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.core import bounds, checks, flat, products, sketches, storage
from fashion_proto.knn import KNN

pytestmark = pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")    # small data
METRICS = ["euclidean", "manhattan", "cosine"]
WEIGHTS = ["uniform", "distance"]


@parametrize_with_checks([*(KNN(metric=m) for m in METRICS), KNN(weights="distance")])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def oracle(queries, points, k, metric):
    "Distances and indices by a loop: the difference of each pair in double precision, then a sort by (distance, index)."
    queries, points = np.asarray(queries, float), np.asarray(points, float)
    found = []
    for q in queries:
        if metric == "euclidean": d = [float(np.sqrt(((q - x)**2).sum())) for x in points]
        if metric == "manhattan": d = [float(np.abs(q - x).sum()) for x in points]
        if metric == "cosine": d = cosine_distances([q], points)[0].round(12).tolist()
        found.append(sorted(zip(d, range(len(points))))[:k])
    return np.array(found)[:, :, 0], np.array(found)[:, :, 1].astype(int)


def vote(codes, distances, weights):
    "The winner by a loop: the largest sum, of several the class that comes first."
    d = list(distances)
    if weights == "uniform": w = [1.0] * len(d)
    elif 0 in d: w = [float(v == 0) for v in d]
    else: w = [1 / v for v in d]
    total = {}
    for c, v in zip(codes, w): total[c] = total.get(c, 0) + v
    most = max(total.values())
    clear = sum(v > most * (1 - 1e-9) for v in total.values()) == 1
    return next(c for c in codes if total[c] == most), clear or weights == "uniform"


def hard_data(seed, dtype, n=40, d=6):
    "Few different values and rows that occur several times: ties everywhere, at the cut too."
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (n, d))
    points[n // 2:] = points[rng.integers(0, n // 2, n - n // 2)]
    queries = np.concatenate([points[::5], rng.integers(0, 4, (8, d))])
    points[3], queries[1] = 0, 0                                      # blank ones, for the cosine
    return points.astype(dtype), queries.astype(dtype), rng.integers(0, 3, n)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_and_votes_are_those_of_the_loop(metric, seed, dtype):
    points, queries, y = hard_data(seed, dtype)
    n = len(points)
    for k in 1, 2, 5, n - 1, n:
        knn = KNN(k, metric=metric).fit(points, y)
        distances, indices = knn.kneighbors(queries)
        d, i = oracle(queries, points, k, metric)
        np.testing.assert_allclose(distances, d, rtol=1e-12, atol=1e-12)
        assert distances.shape == indices.shape == (len(queries), k) and indices.dtype.kind == "i"
        if metric != "cosine":         # 1 - cos of vectors that are multiples of each other may differ in the last bit
            np.testing.assert_array_equal(indices, i)
        for weights in WEIGHTS:
            knn = KNN(k, metric=metric, weights=weights).fit(points, y)
            expected, clear = map(np.array, zip(*(vote(y[row], dist, weights) for row, dist in zip(indices, distances))))
            found = knn.predict(queries)
            np.testing.assert_array_equal(found[clear], expected[clear])    # the rest ties but for rounding
            np.testing.assert_array_equal(knn.classes_[knn.predict_proba(queries).argmax(axis=1)], found)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_distances_go_to_the_lower_index_at_every_cut(metric):
    points = np.tile([[1.5, 2.25, 0.1], [0.3, 0.1, 7.0]], (30, 1))
    for k in range(1, 61):
        distances, indices = KNN(k, metric=metric).fit(points, np.arange(60) % 2).kneighbors(points[:2])
        near, far = np.arange(0, 60, 2), np.arange(1, 60, 2)
        np.testing.assert_array_equal(indices[0], np.concatenate([near, far])[:k])
        np.testing.assert_array_equal(indices[1], np.concatenate([far, near])[:k])
        assert (distances[:, :30] == 0).all() and (distances[:, 30:] > 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("metric", METRICS)
def test_an_image_is_at_distance_zero_from_its_copies_whatever_surrounds_it(metric, dtype, fashion):
    images = fashion[0].images[:300]
    points = images.astype(dtype) if dtype == "uint8" else images.astype(dtype) / 255
    knn = KNN(2, metric=metric).fit(np.concatenate([points, points[::-1]]), np.arange(600))
    for queries in points, points[7:8], np.asfortranarray(points.reshape(300, -1)):
        distances, indices = knn.kneighbors(queries)
        start = 7 if len(queries) == 1 else 0
        np.testing.assert_array_equal(indices, [[i, 599 - i] for i in range(start, start + len(queries))])
        assert (distances == 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_scikit_learn_on_real_images(metric, fashion):
    X, y = fashion[0].images[:1200].reshape(1200, -1).astype(float), fashion[0].labels.codes[:1200]
    Q = fashion[0].images[-150:].reshape(150, -1).astype(float)
    n_tied = 0
    for k in 1, 4, 5:
        d, i = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(X, y).kneighbors(Q, k + 5)
        order = np.lexsort([i, d.round(9)])[:, :k]                          # theirs leaves equal distances in any order
        distances, indices = KNN(k, metric=metric).fit(X, y).kneighbors(Q)
        np.testing.assert_allclose(distances, np.take_along_axis(d, order, axis=1), rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(indices, np.take_along_axis(i, order, axis=1))
        for weights in WEIGHTS:
            ours = KNN(k, weights=weights, metric=metric).fit(X, y)
            theirs = KNeighborsClassifier(k, weights=weights, metric=metric, algorithm="brute").fit(X, y)
            proba, found = theirs.predict_proba(Q), ours.predict(Q)
            np.testing.assert_array_equal(ours.classes_, theirs.classes_)
            np.testing.assert_allclose(ours.predict_proba(Q), proba, rtol=1e-9)
            largest = proba > proba.max(axis=1, keepdims=True) * (1 - 1e-9)
            tied = largest.sum(axis=1) > 1
            np.testing.assert_array_equal(found[~tied], theirs.predict(Q)[~tied])
            for r in np.flatnonzero(tied): assert found[r] == next(y[j] for j in indices[r] if largest[r, y[j]])
            n_tied += tied.sum()
    assert n_tied > 5


def test_cosine_is_scikit_learns_with_blank_images():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 5))
    points[4] = points[9] = 0
    queries = np.concatenate([points[3:6], rng.normal(size=(4, 5))])
    knn = KNN(30, metric="cosine").fit(points, np.arange(30) % 3)
    distances, indices = knn.kneighbors(queries)
    np.testing.assert_allclose(np.take_along_axis(cosine_distances(queries, points), indices, axis=1), distances, atol=1e-12)
    assert (distances[1] == 1).all() and (indices[1] == np.arange(30)).all(), "a blank image is equally far from all, blank or not"
    assert knn.kneighbors(-points[:1])[0].max() == pytest.approx(2)
    lengths = 10.0**rng.integers(-300, 300, (30, 1))
    longer = KNN(30, metric="cosine").fit(points * lengths, np.arange(30) % 3).kneighbors(queries * 1e-200)
    np.testing.assert_allclose(longer[0], distances, atol=1e-12)
    np.testing.assert_array_equal(longer[1][[0, 2, 3]], indices[[0, 2, 3]])


# Rounding

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0, 1, 1000])
def test_nearly_equal_images_far_from_zero(offset, dtype):
    rng = np.random.default_rng(offset)
    base = (offset + rng.random(784)).astype(dtype)
    ulp = np.spacing(base.max())
    points = np.tile(base, (200, 1))
    for i in range(200): points[i, rng.permutation(784)[:200 - i]] += ulp      # the last row differs in one number only
    distances, indices = KNN(7).fit(points, np.arange(200) % 3).kneighbors(base[None])
    np.testing.assert_array_equal(indices[0], np.arange(199, 192, -1))
    np.testing.assert_allclose(distances[0], ulp * np.sqrt(np.arange(1, 8)), rtol=0.2)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-30, 1e-20, 1e-3, 1e8, 1e18, 1e30, 1e150])
def test_any_scale(scale):
    rng = np.random.default_rng(1)
    points, queries = rng.normal(size=(2, 50, 9))
    queries[3:6] *= [[1e-9], [1e9], [1e40]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d, i = KNN(5).fit(points * scale, np.arange(50) % 2).kneighbors(queries * scale)
    expected = cdist(queries * scale, points * scale)
    np.testing.assert_array_equal(i, np.argsort(expected, axis=1, kind="stable")[:, :5])
    np.testing.assert_array_equal(d, np.sort(expected, axis=1)[:, :5])


def test_largest_floats_do_no_harm():
    points = np.array([[1e308, -1e308], [-1e308, 1e308], [0, 0], [1e308, 1e308]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in METRICS: assert KNN(3, metric=metric).fit(points, [0, 1, 1, 0]).kneighbors(points)[1][:, 0].tolist() == [0, 1, 2 if metric != "cosine" else 0, 3]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rough_values_keep_their_promise(dtype, fashion):
    points = fashion[0].images[:2000].reshape(2000, -1).astype(dtype) / (1 if dtype == "uint8" else 255)
    queries = fashion[0].images[-40:].reshape(40, -1).astype(float) / (1 if dtype == "uint8" else 255)
    for centre in points.mean(axis=0, dtype=float), np.zeros(784):
        rough, margin = products.rough_distances(queries, points, "euclidean", centre)
        true = cdist(queries, points, "sqeuclidean") - ((queries - centre)**2).sum(axis=1)[:, None]
        assert (np.abs(rough - true).max(axis=1) < margin / 2).all()


def test_uint8_does_not_wrap_round():
    knn = KNN(3).fit(np.array([[0, 0], [255, 255], [250, 0]], np.uint8), [0, 1, 2])
    distances, indices = knn.kneighbors(np.array([[255, 0]], np.uint8))
    assert indices.tolist() == [[2, 0, 1]] and distances.tolist() == [[5, 255, 255]]


# Degenerate data, kinds of labels and of input

@pytest.mark.parametrize("metric", METRICS)
def test_constant_features_one_class_one_image(metric):
    X = np.full((12, 5), 3.0)
    knn = KNN(4, metric=metric).fit(X, ["a"] * 12)
    assert knn.kneighbors(X)[1].tolist() == [[0, 1, 2, 3]] * 12
    assert knn.predict(X).tolist() == ["a"] * 12 and knn.predict_proba(X).tolist() == [[1.0]] * 12
    X[:, 2] = np.arange(12)
    assert KNN(1, metric=metric).fit(X, np.arange(12)).predict(X).tolist() == list(range(12))
    assert KNN(1, metric=metric).fit(X[:1], [True]).predict(X[5:6]).tolist() == [True]


@pytest.mark.parametrize("y", [[3, 7, 7, -2], ["no", "yes", "yes", "maybe"], [True, False, False, True],
                               pd.Series(["b", "a", "a", "c"], index=[9, 8, 7, 6]), pd.Categorical(["b", "a", "a", "c"], ["c", "b", "a", "unused"]),
                               np.array(["b", "a", "a", "c"], object), np.array([1.0, 2.0, 2.0, 3.0])])
def test_labels_of_any_kind_come_back(y):
    X = np.arange(4.0)[:, None]
    knn = KNN(1).fit(X, y)
    assert list(knn.predict(X)) == list(y) and list(knn.classes_) == sorted(set(y))


def test_images_rows_frames_and_lists_are_one(fashion):
    images, labels = fashion[0].images[:300], fashion[0].labels[:300]
    rows, queries = images.reshape(300, -1), fashion[0].images[300:350]
    frame = pd.DataFrame(rows, columns=[f"pixel{i}" for i in range(784)])
    expected = KNN(3).fit(rows, labels)
    found = [KNN(3).fit(images, labels).kneighbors(queries), KNN(3).fit(images[..., None], labels).kneighbors(queries[..., None]),
             KNN(3).fit(frame, labels).kneighbors(pd.DataFrame(queries.reshape(50, -1), columns=frame.columns)),
             KNN(3).fit(rows.tolist(), list(labels)).kneighbors(queries.reshape(50, -1).tolist()),
             KNN(3).fit(images, labels).kneighbors(queries.reshape(50, -1))]
    for d, i in found:
        np.testing.assert_array_equal(d, expected.kneighbors(queries)[0])
        np.testing.assert_array_equal(i, expected.kneighbors(queries)[1])
    assert KNN().fit(images, labels).image_shape_ == (28, 28) and KNN().fit(frame, labels).feature_names_in_[0] == "pixel0"


def test_fit_keeps_no_copy_and_changes_nothing(fashion):
    images = fashion[0].images[:100].copy()
    before = images.copy()
    knn = KNN().fit(images, fashion[0].labels[:100])
    knn.predict(images)
    assert np.shares_memory(knn._points, images) and (images == before).all()


def test_in_company():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(40, 3)), 3 + rng.normal(size=(40, 3))])
    y = np.repeat(["left", "right"], 40)
    assert cross_val_score(make_pipeline(StandardScaler(), KNN(3)), X, y).mean() > 0.9
    knn = KNN(4, weights="distance", metric="manhattan").fit(X, y)
    assert clone(knn).get_params() == {"n_neighbors": 4, "weights": "distance", "metric": "manhattan", "n_jobs": -1}
    assert (pickle.loads(pickle.dumps(knn)).predict_proba(X) == knn.predict_proba(X)).all()
    assert repr(KNN(3)) == "KNN(n_neighbors=3)"


# Each training image among the others

@pytest.mark.parametrize("metric", METRICS)
def test_without_queries_an_image_is_not_its_own_neighbour(metric):
    X, _, y = hard_data(5, "float64")
    knn = KNN(3, metric=metric).fit(X, y)
    for k in 1, 3, len(X) - 1:
        distances, indices = knn.kneighbors(n_neighbors=k)
        for i in range(len(X)):
            others = np.delete(np.arange(len(X)), i)
            d, j = KNN(k, metric=metric).fit(X[others], y[others]).kneighbors(X[i:i+1])
            np.testing.assert_array_equal(indices[i], others[j[0]])
            np.testing.assert_array_equal(distances[i], d[0])
    with pytest.raises(ValueError, match=f"n_samples = {len(X) - 1}, got {len(X)}"): knn.kneighbors(n_neighbors=len(X))
    theirs = KNeighborsClassifier(3, algorithm="brute").fit(X, y).kneighbors()[0]
    if metric == "euclidean": np.testing.assert_allclose(knn.kneighbors()[0], theirs, atol=1e-6)
    same = np.ones((9, 4))
    assert KNN(2).fit(same, np.arange(9)).kneighbors()[1].tolist() == [[1, 2], [0, 2]] + [[0, 1]] * 7


# Votes

def test_a_tied_vote_goes_to_the_class_of_the_nearest():
    X, y = np.arange(6.0)[:, None], np.array(["z", "a", "a", "z", "m", "m"])
    knn = KNN(4).fit(X, y)
    assert knn.predict([[-1.0], [1.1]]).tolist() == ["z", "a"]
    assert knn.predict_proba([[-1.0]]).tolist() == [[0.5, 0, np.nextafter(0.5, 1)]]
    assert KNN(6).fit(X, y).predict([[9.0], [-9.0], [1.4]]).tolist() == ["m", "z", "a"]
    knn = KNN(2, weights="distance").fit([[0.0], [2.0]], ["z", "a"])
    assert knn.predict([[1.0]]).tolist() == ["z"] and knn.predict_proba([[1.0]]).tolist() == [[0.5, np.nextafter(0.5, 1)]]
    knn = KNN(5).fit([[0.0], [1.1], [1.2], [1.3], [1.4]], ["far", "b", "a", "a", "b"])     # the nearest is not among the tied
    assert knn.predict([[0.0]]).tolist() == ["b"]


def test_neighbours_at_distance_zero_vote_alone():
    knn = KNN(4, weights="distance").fit([[0.0], [0.0], [0.0], [1e-150], [5.0]], [2, 1, 1, 0, 0])
    assert knn.predict_proba([[0.0]]).tolist() == [[0, 2 / 3, 1 / 3]] and knn.predict([[0.0]]).tolist() == [1]
    tiny = KNN(2, weights="distance", metric="manhattan").fit([[0.0], [3e-310]], [0, 1]).predict_proba([[1e-310]])      # 1 / distance is infinite
    np.testing.assert_allclose(tiny, [[2 / 3, 1 / 3]], rtol=1e-3)


# Memory

@pytest.mark.parametrize("metric", METRICS)
def test_memory_is_bounded(metric, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(checks, "BLOCK_BYTES", 2**19)
    X = rng.random((6000, 64), dtype=np.float32)
    X[3000:] = X[0]                                                     # 3001 equal images: as many candidates
    knn = KNN(3, metric=metric).fit(X, np.arange(6000) % 7)
    knn._search.exact = None                                               # the search by products
    Q = X[:300]
    tracemalloc.start()
    distances, indices = knn.kneighbors(Q)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6, "a few blocks of half a megabyte; all the distances would be 14 MB or 28 MB"
    np.testing.assert_array_equal(indices[0], [0, 3000, 3001])
    monkeypatch.undo()
    np.testing.assert_array_equal(knn.kneighbors(Q)[1], indices)
    np.testing.assert_array_equal(knn.kneighbors(Q)[0], distances)


def test_memory_of_a_real_search(fashion):
    knn = KNN().fit(fashion[0].images, fashion[0].labels)
    tracemalloc.start()
    knn.kneighbors(fashion[0].images[:300])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


# Explanation

def test_explain_draws_the_neighbours_and_the_votes(fashion):
    images, labels = fashion[0].images[:500], fashion[0].labels[:500]
    knn = KNN(7).fit(images, labels)
    image = fashion[0].images[600]
    distances, indices = knn.kneighbors(image[None])
    fig = knn.explain(image, "truth")
    pictures = [ax for ax in fig.axes if ax.images]
    assert len(pictures) == 8 and (pictures[0].images[0].get_array() == image).all()
    assert pictures[0].get_title() == f"truth\ncalled {knn.predict(image[None])[0]}"
    for ax, i, d in zip(pictures[1:], indices[0], distances[0]):
        assert (ax.images[0].get_array() == images[i]).all() and ax.images[0].get_clim() == (0, 255)
        assert ax.get_title() == f"{labels[i]}\n{d:.5g}"
    bars, = (ax for ax in fig.axes if not ax.images)
    assert sum(p.get_width() for p in bars.patches) == pytest.approx(1)
    by_rows = KNN(7).fit(images.reshape(500, -1) / 255, labels).explain(image / 255)
    assert len(by_rows.axes) == 9 and by_rows.axes[1].images[0].get_clim() == (0, 1)
    assert len(KNN(30).fit(images, labels).explain(image).axes) == 12, "ten neighbours are drawn at the most"
    colour = np.random.default_rng(0).random((6, 4, 5, 3))
    assert len(KNN(1).fit(colour, range(6)).explain(colour[0]).axes) == 3
    plt.close("all")


def test_explain_needs_an_image(fashion):
    knn = KNN(1).fit(np.eye(4), range(4))
    with pytest.raises(ValueError, match=r"image must have the shape .* got \(4,\)"): knn.explain(np.eye(4)[0])
    with pytest.raises(ValueError, match="3 features"): knn.explain(np.ones((1, 3)))
    knn = KNN(1).fit(fashion[0].images[:5], range(5))
    with pytest.raises(ValueError, match=r"\(28, 28\), as in fit, got \(14, 56\)"): knn.explain(np.ones((14, 56)))
    with pytest.raises(NotFittedError): KNN().explain(np.ones((2, 2)))


# Refusals

@pytest.mark.parametrize("params, error, message", [
    (dict(n_neighbors=0), ValueError, "n_neighbors must be from 1 .* got 0"), (dict(n_neighbors=-1), ValueError, "got -1"),
    (dict(n_neighbors=5), ValueError, "n_samples = 4, got 5"), (dict(n_neighbors=2.0), TypeError, "whole number, got 2.0"),
    (dict(n_neighbors="3"), TypeError, "whole number, got '3'"), (dict(n_neighbors=True), TypeError, "got True"),
    (dict(n_neighbors=None), TypeError, "got None"), (dict(n_neighbors=np.nan), TypeError, "got nan"),
    (dict(weights="none"), ValueError, "weights must be one of uniform, distance, got 'none'"),
    (dict(weights=["uniform"]), ValueError, "weights"), (dict(weights=0), ValueError, "weights"),
    (dict(metric="l2"), ValueError, "metric must be one of euclidean, manhattan, cosine, .*got 'l2'"),
    (dict(metric=["euclidean"]), ValueError, "metric")])
def test_bad_parameters(params, error, message):
    X, y = np.eye(4), [0, 1, 0, 1]
    with pytest.raises(error, match=message): KNN(**{"n_neighbors": 2} | params).fit(X, y)
    knn = KNN(2).fit(X, y)
    if "n_neighbors" in params and params["n_neighbors"] is not None:
        with pytest.raises(error, match=message): knn.kneighbors(X, **params)
        with pytest.raises(error, match=message): knn.set_params(**params).predict(X)
    assert KNN(np.int64(2)).fit(X, y).kneighbors(X, np.uint8(4))[1].shape == (4, 4)


@pytest.mark.parametrize("X, y", [
    (np.empty((0, 4)), []), (np.empty((4, 0)), [0, 1, 0, 1]), (np.empty((0, 28, 28)), []), (np.empty((3, 0, 28)), [0, 1, 0]), (np.ones(4), [0, 1, 0, 1]),
    (np.array([[np.nan, 0], [1, 1]]), [0, 1]), (np.array([[np.inf, 0], [1, 1]]), [0, 1]), (np.eye(4), [0, 1, 0]), (np.eye(4), [0, 1, 0, 1, 1]),
    (np.eye(4), [0, 1, 0, np.nan]), (np.eye(4), np.eye(4)), (np.eye(4), [0.5, 0.1, 0.7, 1.3]), ([["a", "b"], ["c", "d"]], [0, 1]), (np.eye(4) * 1j, [0, 1, 0, 1]),
    (np.float64(3), [1])])
def test_bad_training_data(X, y):
    with pytest.raises((ValueError, TypeError)): KNN(1).fit(X, y)


@pytest.mark.parametrize("X", [np.empty((0, 28, 28)), np.ones((2, 28, 27)), np.ones((2, 14, 56)), np.ones((2, 783)), np.ones(784), np.full((1, 28, 28), np.nan),
                               np.full((1, 28, 28), -np.inf), np.ones((28, 28))])
def test_bad_queries(X, fashion):
    knn = KNN(1).fit(fashion[0].images[:20], [0, 1] * 10)
    for ask in knn.predict, knn.predict_proba, knn.kneighbors:
        with pytest.raises(ValueError): ask(X)


def test_not_fitted():
    for ask in KNN().predict, KNN().predict_proba, KNN().kneighbors:
        with pytest.raises(NotFittedError): ask(np.eye(3))


# ---- the search that looks at all points: by codes of eight bits, by numbers, by products ------------------------------

def flat_neighbours(monkeypatch, points, queries, k, metric, codes, threads=2):
    if codes and not flat.LANES: pytest.skip("this processor has no instruction for eight bits")
    if not codes: monkeypatch.setattr(flat, "LANES", 0)
    return flat.FlatSearch(points, metric).nearest(queries, k, threads)


def same_as_products(found, points, queries, k, metric):
    expected, order = products.search(queries, points, k, metric, 0.0)
    if metric == "euclidean":
        assert (found[0] == expected).all() and (found[1] == order).all()
    else:
        np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)
        assert (found[1] == order).mean() > 0.999                     # equal up to the last bit: either order


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("p, k", [(16, 1), (33, 10), (130, 60)])
def test_flat_search_finds_what_products_find(monkeypatch, codes, metric, p, k):
    rng = np.random.default_rng(p)
    points, queries = rng.normal(size=(3001, p)).astype(np.float32), rng.normal(size=(517, p)).astype(np.float32)
    points[1500:1600] = points[:100]                                  # equally near: the first of them
    queries[:20] = points[1500:1520]
    found = flat_neighbours(monkeypatch, points, queries, k, metric, codes)
    same_as_products(found, points, queries, k, metric)
    alone = flat_neighbours(monkeypatch, points, queries, k, metric, codes, threads=1)
    assert all((a == b).all() for a, b in zip(found, alone))


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("kind", ["equal", "outlier", "far", "integers", "growing", "blank", "huge"])
def test_flat_search_of_odd_vectors(monkeypatch, codes, kind):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2600, 40)).astype(np.float32)
    if kind == "equal": rows[:] = 1
    if kind == "outlier": rows[:, 7] *= 1e4                           # coded badly: most queries give up
    if kind == "far": rows += 1000
    if kind == "integers": rows = (rows * 30).astype(np.int8)
    if kind == "growing": rows *= np.logspace(-3, 3, 2600, dtype=np.float32)[:, None]
    if kind == "blank": rows[::5] = 0
    if kind == "huge": rows[::500] *= 1e18                            # no square in single precision
    points, queries = rows[:2000], rows[2000:].copy()
    metric = "cosine" if kind == "blank" else "euclidean"
    same_as_products(flat_neighbours(monkeypatch, points, queries, 9, metric, codes), points, queries, 9, metric)


@pytest.mark.parametrize("codes", [True, False])
def test_flat_search_of_several_parts(monkeypatch, codes):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(9000, 1000)) * np.linspace(1, 3, 9000)[:, None]      # doubles, longer from part to part
    queries = rng.normal(size=(500, 1000)) * 2
    same_as_products(flat_neighbours(monkeypatch, points, queries, 5, "euclidean", codes), points, queries, 5, "euclidean")


def test_wide_rows_are_prepared_a_few_at_a_time(monkeypatch):
    "However long they are: photographs were made single precision all at once, four times their bytes."
    points = np.random.default_rng(0).integers(0, 256, (150, 2**17), dtype=np.uint8)
    assert [len(rows) for _, rows, *_ in flat.FlatSearch(points, "euclidean").chunks(1)] == [64, 64, 22]
    same_as_products(flat_neighbours(monkeypatch, points, points[:20], 5, "euclidean", False), points, points[:20], 5, "euclidean")


# ---- the search by bounds against the search by products ---------------------------------------------------------------

def clustered(dtype, n=6000, d=40, seed=0):
    "Points in clusters with a steep spectrum, some of them copies of others."
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, d)) * np.geomspace(60, 1, d)
    points = centres[rng.integers(30, size=n)] + rng.normal(size=(n, d)) * np.geomspace(10, 0.1, d)
    points[-500:] = points[:500]
    points = np.clip(points + 128, 0, 255)
    return points.round().astype(dtype) if np.dtype(dtype).kind in "ui" else (points / 255).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("k", [1, 2, 10, 256])
def test_bound_gives_the_neighbours_of_the_product(dtype, k):
    points = clustered(dtype)
    queries = np.concatenate([points[::40], clustered(dtype, 5000, seed=1)[:101]])
    knn = KNN(k).fit(points, np.arange(len(points)) % 3)
    assert knn.search_ == "bound"
    distances, indices = knn.kneighbors(queries)
    expected, order = products.search(queries, points, k, "euclidean", points.mean(axis=0, dtype=float))
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    assert (indices == order).all()


@pytest.mark.parametrize("dtype", ["int16", "uint16", ">i4", "int64", "uint64"])
def test_wide_whole_numbers_are_searched_as_bytes_if_they_fit(dtype):
    points, queries = clustered("uint8"), clustered("uint8", 5000, seed=1)[:50]
    expected = KNN(5).fit(points, np.arange(6000) % 3).kneighbors(queries)
    knn = KNN(5).fit(points.astype(dtype), np.arange(6000) % 3)
    assert knn._points.dtype == np.uint8
    for own in queries.astype(dtype), queries, queries.astype(np.float32):
        found = knn.kneighbors(own)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
        assert (found[1] == expected[1]).all()


def test_a_function_gets_whole_numbers_as_they_are():
    points = np.arange(100, 130).reshape(15, 2)
    def apart(a, b): return abs(float((a * a).sum() - (b * b).sum()))      # squares do not fit into bytes
    knn = KNN(1, metric=apart).fit(points, np.arange(15) % 2)
    assert knn._points.dtype == np.int64 and knn.kneighbors(points)[1].ravel().tolist() == list(range(15))


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_whole_numbers_too_large_for_bytes(metric):
    points, queries = (7 * clustered("int64", n)[::20] for n in (6000, 5000))                # up to 1785
    knn = KNN(5, metric=metric).fit(points, np.arange(300) % 3)
    assert knn._points.dtype == np.int64
    plain = cdist(queries.astype(float), points.astype(float), "cityblock" if metric == "manhattan" else metric)
    for own in queries, queries.astype(np.float32):
        np.testing.assert_allclose(knn.kneighbors(own)[0], np.sort(plain, axis=1)[:, :5], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_a_quarter_of_the_points_and_more(metric, dtype):
    "So many are asked for directly: the same, and in the same order, as one by one; ties, too."
    points = clustered(dtype)[::6]                       # 1000
    points[900:] = points[:100]
    queries = clustered(dtype, 5000, seed=1)[:30]
    for k in 249, 250, 700, 1000:
        knn = KNN(k, metric=metric, n_jobs=2).fit(points, np.arange(1000) % 3)
        distances, indices = knn.kneighbors(queries)
        plain = cdist(queries.astype(float), points.astype(float), "cityblock" if metric == "manhattan" else metric)
        np.testing.assert_allclose(distances, np.sort(plain, axis=1)[:, :k], rtol=1e-9, atol=1e-12)
        one_by_one = [knn.kneighbors(query[None]) for query in queries]
        assert (np.concatenate([far for far, _ in one_by_one]) == distances).all()
        assert (np.concatenate([at for _, at in one_by_one]) == indices).all()
        rises = np.diff(distances) > 0
        assert (rises | (np.diff(indices) > 0)).all()


def test_bound_leaves_out_the_point_itself():
    points = clustered("uint8")
    knn = KNN(5).fit(points, np.zeros(len(points)))
    distances, indices = knn.kneighbors()
    assert knn.search_ == "bound" and (indices != np.arange(len(points))[:, None]).all()
    assert (distances[:500, 0] == 0).all(), "a copy is a neighbour still"


@pytest.mark.parametrize("shift, scale", [(0, 1e-9), (1e6, 1), (-3e4, 1e-3), (0, 1e9)])
def test_bound_at_any_scale_and_place(shift, scale):
    points = clustered("float64") * scale + shift
    knn = KNN(10).fit(points, np.zeros(len(points)))
    distances, indices = knn.kneighbors(points[:60] + 0.01 * scale)
    expected = ((points[:60, None] + 0.01 * scale - points) ** 2).sum(axis=2)
    assert knn.search_ == "bound"
    np.testing.assert_allclose(distances, np.sqrt(np.sort(expected, axis=1)[:, :10]), rtol=1e-6, atol=1e-9 * scale)


def test_bound_with_queries_far_away(fashion):
    points = fashion[1].images.reshape(10000, -1).astype(np.float32)
    knn = KNN(3).fit(points, np.zeros(10000))
    queries = np.concatenate([points[:3], np.full((2, 784), 1e25, np.float32), points[5:7]])
    distances, indices = knn.kneighbors(queries)
    assert knn.search_ == "bound"
    expected = products.search(queries, points, 3, "euclidean", 0.0)
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)
    assert (indices[[0, 1, 2, 5, 6], 0] == [0, 1, 2, 5, 6]).all()
    huge = points[:2].astype(float) + 1e200
    assert (knn.kneighbors(huge)[1] < 10000).all()


def test_bound_is_not_used_where_it_cannot_help():
    noise = np.random.default_rng(0).normal(size=(6000, 300))
    assert KNN().fit(noise, np.zeros(6000)).search_ == "product"
    assert KNN().fit(np.ones((6000, 30)), np.zeros(6000)).search_ == "product", "all points equal"
    assert KNN(metric="manhattan").fit(noise, np.zeros(6000)).search_ == "direct"
    assert KNN().fit(noise[:100], np.zeros(100)).search_ == "product"


def all_distances(queries, points, metric):
    "All distances, directly: whole numbers where the input is, else double precision."
    kind = np.int64 if queries.dtype.kind in "ui" else np.float64
    queries, points = queries.astype(kind), points.astype(kind)
    if metric == "cosine":
        return cdist(queries.astype(float), points.astype(float), "cosine")
    if metric == "manhattan": return np.array([np.abs(query - points).sum(axis=1) for query in queries])
    return np.sqrt([((query - points)**2).sum(axis=1) for query in queries])


def engine_of(points, metric):
    "The search by bounds, of however few points."
    return bounds.ExactSearch(points, metric)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_engine_against_the_loop(data):
    "Small whole numbers, so that equal distances abound and all arithmetic is exact."
    n, d = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from(["uint8", "float64"]))
    most = data.draw(st.sampled_from([1, 3, 255]))
    points = rng.integers(0, most + 1, (n, d)).astype(dtype)
    queries = np.concatenate([points[:5], rng.integers(0, most + 1, (20, d)).astype(dtype)])
    metric, k = data.draw(st.sampled_from(["euclidean", "manhattan"])), data.draw(st.integers(1, n))
    expected = all_distances(queries.astype(int), points.astype(int), metric)
    order = np.argsort(expected, axis=1, kind="stable")
    engine = engine_of(points, metric)
    distances, indices, _ = engine.nearest(queries, k, data.draw(st.integers(1, 3)))
    assert (indices == order[:, :k]).all()
    assert (distances == np.take_along_axis(expected, order, axis=1)[:, :k]).all()
    radius = float(expected[0, data.draw(st.integers(0, n - 1))])
    for row, (far, at) in zip(expected, engine.within(queries, radius)):
        assert at.tolist() == [i for i in np.argsort(row, kind="stable") if row[i] <= radius]
        assert (far == row[at]).all()


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_threads_and_radius_change_nothing(metric, dtype):
    points, labels = clustered(dtype, 6000), np.arange(6000) % 3
    queries = np.concatenate([points[:30], clustered(dtype, 5000, seed=2)[:300]])
    one, two = (KNN(7, metric=metric, n_jobs=n).fit(points, labels) for n in (1, 2))
    distances, indices = one.kneighbors(queries)
    again, same = two.kneighbors(queries)
    assert (distances == again).all() and (indices == same).all()
    expected, order = products.search(queries, points, 7, metric, 0.0)
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=1e-12)
    if metric != "cosine": assert (indices == order).all()
    radius = float(np.median(distances))
    far, at = two.radius_neighbors(queries, radius)
    by_product = products.search_within(queries, points, radius, metric, 0.0)
    for i in range(len(queries)):
        assert len(at[i]) == len(set(at[i])) and (np.diff(far[i]) >= 0).all() and (far[i] <= radius).all()
        assert abs(len(at[i]) - len(by_product[i][1])) <= (metric == "cosine")
        inside = distances[i] <= radius
        assert (at[i][:7][:inside.sum()] == indices[i][inside]).all() and (far[i][:7][:inside.sum()] == distances[i][inside]).all()


def faces(n=400, size=64, seed=0):
    "Smooth grey images of forty kinds, ten of each, like photographs of faces, in 256 levels."
    rng, x = np.random.default_rng(seed), np.linspace(0, np.pi, size)
    waves = np.cos(np.outer(np.arange(12), x))
    kinds = rng.normal(size=(40, 12, 12)) / (1 + np.add.outer(np.arange(12), np.arange(12)))
    images = waves.T @ (kinds[np.arange(n) % 40] + 0.1 * rng.normal(size=(n, 12, 12)) / 12) @ waves
    images = (images - images.min()) / np.ptp(images)
    return np.round(255 * images).reshape(n, -1)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("data", ["digits", "faces", "random", "copies"])
def test_engine_on_other_data(data, dtype):
    rng = np.random.default_rng(0)
    points = {"digits": lambda: load_digits().data, "faces": faces, "random": lambda: rng.integers(0, 256, (3000, 100)),
              "copies": lambda: np.repeat(rng.integers(0, 256, (300, 64)), 7, axis=0)}[data]().astype(dtype)
    if dtype != "uint8": points /= 255
    queries, points = points[:150], points[75:]
    expected = all_distances(queries, points, "euclidean")
    order = np.argsort(expected, axis=1, kind="stable")[:, :10]
    for found in engine_of(points, "euclidean").nearest(queries, 10)[:2], KNN(10).fit(points, np.zeros(len(points))).kneighbors(queries):
        np.testing.assert_allclose(found[0], np.take_along_axis(expected, order, axis=1), rtol=1e-12)
        if dtype == "uint8": assert (found[1] == order).all() and (found[0] == np.take_along_axis(expected, order, axis=1)).all()
        differ = found[1] != order           # floats: only where double precision itself cannot tell them apart
        np.testing.assert_allclose(np.take_along_axis(expected, found[1], axis=1)[differ], np.take_along_axis(expected, order, axis=1)[differ], rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_neighbours_that_nearly_tie(dtype):
    "Points on a sphere about the query, moved by a few units of the last place, the nearest one last."
    rng = np.random.default_rng(0)
    ring = rng.normal(size=(6000, 50)) * np.geomspace(30, 0.3, 50)
    ring *= 40 / np.linalg.norm(ring, axis=1, keepdims=True)
    ring *= 1 + np.linspace(3, 0, 6000)[:, None] * np.finfo(dtype).eps
    points = (ring + 100).astype(dtype)
    query = np.full((1, 50), 100, dtype)
    engine = engine_of(points, "euclidean")
    expected = all_distances(query, points, "euclidean")[0]
    distances, indices, _ = engine.nearest(query, 20)
    np.testing.assert_allclose(distances[0], np.sort(expected)[:20], rtol=1e-15)
    np.testing.assert_allclose(expected[indices[0]], np.sort(expected)[:20], rtol=1e-15)


def test_every_fifth_query_of_the_test_set(fashion):
    "2000 against brute force in whole numbers: indices, distances, and ties by index (`make bench` asks all 10 000)."
    sys.path.append(str(ROOT / "bench"))
    from full_size import wrong_neighbours
    train, test = fashion[0].images.reshape(60_000, -1), fashion[1].images.reshape(10_000, -1)[::5]
    assert wrong_neighbours(train, test) == 0


def test_memory_grows_with_few_bytes_an_image(fashion):
    images = fashion[0].images.reshape(60000, -1)
    peaks = []
    for n in 15_000, 60_000:
        tracemalloc.start()
        knn = KNN(10).fit(images[:n], np.zeros(n, np.uint8))
        knn.kneighbors(images[:2000])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert knn.search_ == "bound" and peaks[1] < 400e6 and (peaks[1] - peaks[0]) / 45_000 < 400


# ---- a radius, threads, bad input --------------------------------------------------------------------------------------

def test_radius_leaves_out_the_point_itself_by_index():
    points = np.array([[0.0], [0.0], [1.0], [5.0]])
    knn = KNN(1).fit(points, list("abca"))
    assert [row.tolist() for row in knn.radius_neighbors(radius=1)[1]] == [[1, 2], [0, 2], [0, 1], []]
    indices = knn.radius_neighbors([[0.5]], 0.5, return_distance=False)
    assert indices.dtype == object and indices[0].tolist() == [0, 1, 2]
    big = clustered("uint8")
    at = KNN(1).fit(big, np.zeros(6000)).radius_neighbors(radius=0)[1]
    assert all(i not in at[i] for i in range(6000)) and 5500 in at[0]


@pytest.mark.parametrize("radius, error", [(None, TypeError), ("1", TypeError), (True, TypeError), (-1, ValueError), (np.nan, ValueError)])
def test_bad_radius(radius, error):
    with pytest.raises(error, match="radius must be"): KNN(1).fit([[0.0], [1.0]], [0, 1]).radius_neighbors([[0.0]], radius)


@pytest.mark.parametrize("n_jobs, error", [(0, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)])
def test_bad_n_jobs(n_jobs, error):
    with pytest.raises(error, match="n_jobs must"): KNN(1, n_jobs=n_jobs).fit([[0.0], [1.0]], [0, 1])


def test_n_jobs_as_in_scikit_learn():
    import joblib
    for n_jobs in None, 1, 2, -1, -2: KNN(1, n_jobs=n_jobs).fit([[0.0], [1.0]], [0, 1]).predict([[0.0]])
    with joblib.parallel_config("threading", n_jobs=2): assert checks.n_threads(None) == joblib.effective_n_jobs(2)      # 1 without /dev/shm
    assert checks.n_threads(None) == 1


def test_rows_of_very_different_size():
    "So small beside one of the others that single precision has few digits for them, or none."
    for scale in 1e-14, 1e-17, 1e-21:
        points = (clustered("float64") - 0.5) * scale
        points[5] = 1e-8
        knn = KNN(5).fit(points, np.zeros(6000))
        queries = points[100:200]
        distances, indices = knn.kneighbors(queries)
        expected = cdist(queries, points)
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :5], rtol=1e-9)
        assert all(i in at for i, at in enumerate(knn.radius_neighbors(queries, 0, return_distance=False), 100))


@pytest.mark.parametrize("by_bounds", [True, False])
def test_equal_distances_whose_squares_differ(by_bounds):
    "As distances, which is what is given back, they are equal: the lower index comes first."
    points = np.random.default_rng(0).integers(0, 30, (6000, 4)) / 10
    knn = KNN(10).fit(points, np.zeros(6000))
    knn._search.exact = engine_of(points, "euclidean") if by_bounds else None
    distances, indices = knn.kneighbors()
    assert not ((np.diff(distances, axis=1) == 0) & (np.diff(indices, axis=1) < 0)).any()
    for i, (far, at) in enumerate(zip(*knn.radius_neighbors(points[:100], float(distances[0, 5])))):
        assert (np.lexsort((at, far)) == np.arange(len(at))).all()


@pytest.mark.parametrize("n", [300, 6000])
def test_numpy_numbers_as_parameters(n):
    points = clustered("uint8")[:n]
    knn = KNN(3).fit(points, np.zeros(n))
    assert (knn.kneighbors(n_neighbors=np.uint8(255))[1] == knn.kneighbors(n_neighbors=255)[1]).all()
    for radius, plain in [(np.uint8(20), 20.0), (np.int16(200), 200.0), (np.int32(50_000), 5e4), (np.float16(20), 20.0),
                          (10**200, np.inf), (1e200, np.inf), (10**400, np.inf)]:
        ours, expected = (knn.radius_neighbors(points[:9], r, return_distance=False) for r in (radius, plain))
        assert all((a == b).all() for a, b in zip(ours, expected)) and (plain < 1e4 or len(ours[0]) == n)


@pytest.mark.parametrize("new, match", [(dict(metric="l2"), "metric must be one of"), (dict(weights="foo"), "weights must be one of")])
def test_parameters_set_after_fit_are_checked(new, match, tmp_path):
    knn = KNN(1).fit([[0.0], [1.0]], [0, 1]).set_params(**new)
    for call in lambda: knn.kneighbors([[0.0]]), lambda: knn.predict([[0.0]]), lambda: knn.radius_neighbors([[0.0]], 1), lambda: knn.save(tmp_path / "a"):
        with pytest.raises(ValueError, match=match): call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(np.float16), lambda a: a.astype(">f4"), lambda a: a.astype(np.longdouble), lambda a: a[:, ::-1]])
def test_memory_out_of_order(change):
    points = change(clustered("uint8") / 255)
    knn = KNN(4).fit(points, np.zeros(6000))
    distances, indices = knn.kneighbors(points[:50])
    expected = cdist(points[:50].astype(float), points.astype(float))
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :4], rtol=1e-9)
    assert knn._search.exact.points is knn._points


def test_many_features():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 2, (5000, 40)).astype(np.uint8) @ rng.integers(0, 7, (40, 3000)).astype(np.uint8)
    tracemalloc.start()
    knn = KNN(4).fit(points, np.zeros(5000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert knn.search_ == "bound" and peak < 200e6
    distances, indices = knn.kneighbors(points[:20])
    expected = all_distances(points[:20], points, "euclidean")
    order = np.argsort(expected, axis=1, kind="stable")[:, :4]
    assert (indices == order).all() and (distances == np.take_along_axis(expected, order, axis=1)).all()


def test_predict_with_many_classes():
    points = clustered("uint8")
    knn = KNN(1).fit(points, np.arange(6000))
    tracemalloc.start()
    assert (knn.predict(points[:5000]) == np.where(np.arange(5000) < 5500, np.arange(5000), 0)).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6, "all shares at once would be 240 MB, and several arrays of them are needed"


# ---- files -------------------------------------------------------------------------------------------------------------

def mapped(array):
    "Whether the numbers are in a file."
    while array is not None and not isinstance(array, np.memmap): array = array.base
    return array is not None


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("n", [50, 6000])
def test_save_and_load(tmp_path, metric, n):
    points = clustered("uint8", 6000)[:n]
    for labels in np.arange(n) % 3, np.array(["a", "b", "c"], dtype=object)[np.arange(n) % 3], np.arange(n) % 2 == 0:
        knn = KNN(np.int64(3), weights="distance", metric=metric, n_jobs=1).fit(points.reshape(n, 8, 5), labels)
        knn.save(tmp_path / "knn.npz")
        back = KNN.load(str(tmp_path / "knn.npz"))
        assert back.get_params() == knn.get_params() and back.search_ == knn.search_ and back.image_shape_ == (8, 5)
        assert mapped(back._points)
        asked = points[:500].reshape(-1, 8, 5) if metric == "manhattan" else None       # that one looks at all pairs
        for ours, theirs in zip(knn.kneighbors(asked), back.kneighbors(asked)): assert (ours == theirs).all()
        assert (knn.predict(points[:9].reshape(9, 8, 5)) == back.predict(points[:9].reshape(9, 8, 5))).all()
        assert back.classes_.dtype == knn.classes_.dtype
        with np.load(tmp_path / "knn.npz", allow_pickle=False) as archive: assert (archive["points"] == points).all()


def test_saving_over_a_file_that_is_in_use(tmp_path):
    points = clustered("uint8")
    KNN(3).fit(points, np.zeros(6000)).save(tmp_path / "a.npz")
    back = KNN.load(tmp_path / "a.npz")
    KNN(3).fit(points[::-1][:100], np.ones(100)).save(tmp_path / "a.npz")
    assert (back.kneighbors(points[:5])[1][:, 0] == range(5)).all()
    assert KNN.load(tmp_path / "a.npz").n_samples_fit_ == 100


def test_a_file_replaced_while_it_is_read(tmp_path, monkeypatch):
    "What was checked is what is used."
    a, b, path = clustered("uint8"), clustered("uint8", seed=1), tmp_path / "a.npz"
    KNN(3).fit(b, np.zeros(6000)).save(path)
    other = path.read_bytes()
    KNN(3).fit(a, np.zeros(6000)).save(path)
    mapped_ = storage.mapped_array
    def replace(file, info):
        (tmp_path / "b.npz").write_bytes(other)
        (tmp_path / "b.npz").replace(path)
        return mapped_(file, info)
    monkeypatch.setattr(storage, "mapped_array", replace)
    back = KNN.load(path)
    assert (back._points == a).all() and (back.kneighbors(a[:50])[0][:, 0] == 0).all()


def test_save_through_a_link_keeps_link_and_mode(tmp_path):
    knn = KNN(1).fit(np.eye(3), ["a", "b", "c"])
    knn.save(tmp_path / "real.npz")
    (tmp_path / "real.npz").chmod(0o600)
    (tmp_path / "link.npz").symlink_to("real.npz")
    knn.save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink() and (tmp_path / "real.npz").stat().st_mode & 0o777 == 0o600
    long = tmp_path / ("x" * 250)
    knn.save(long)
    assert KNN.load(long).predict(np.eye(3)).tolist() == ["a", "b", "c"]
    for path in None, 3, b"x":
        with pytest.raises(TypeError, match="path must be a str or a path, got"): knn.save(path)
        with pytest.raises(TypeError, match="path must be a str or a path, got"): KNN.load(path)
    ends = KNN(1).fit(np.eye(2), np.array(["a", "a\0"], dtype=object))
    with pytest.raises(TypeError, match="labels must be"): ends.save(tmp_path / "b.npz")


def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "knn.npz"
    KNN(1).fit(np.eye(3), [0, 1, 2]).save(path)
    before = path.read_bytes()
    code = f"""
import os, signal, numpy as np
from fashion_proto import knn
write = np.lib.format.write_array
def stop(file, array, **kwargs):
    write(file, array, **kwargs)
    if len(array) == 3000: os.kill(os.getpid(), signal.SIGKILL)
np.lib.format.write_array = stop
knn.KNN(1).fit(np.random.default_rng(0).random((3000, 30)), np.arange(3000) % 3).save({str(path)!r})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert path.read_bytes() == before and KNN.load(path).n_samples_fit_ == 3


def test_a_save_that_fails_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "knn.npz"
    knn = KNN(1).fit(np.eye(3), [0, 1, 2])
    knn.save(path)
    def full(file, array, **kwargs): raise OSError(28, "No space left on device")
    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"): knn.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["knn.npz"] and KNN.load(path).n_samples_fit_ == 3


def test_files_that_are_refused(tmp_path):
    path, points = tmp_path / "knn.npz", clustered("uint8")
    knn = KNN(2).fit(points, np.arange(6000) % 2)
    knn.save(path)
    good = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="path must be a file written by save"): KNN.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="existing folder"): knn.save(tmp_path / "none" / "knn.npz")
    with pytest.raises(IsADirectoryError): knn.save(tmp_path)
    with pytest.raises(FileNotFoundError): KNN.load(tmp_path)
    with pytest.raises(NotFittedError): KNN().save(path)
    with pytest.raises(TypeError, match="labels must be strings or numbers"):
        mixed = KNN(1).fit(np.eye(2), [0, 1])
        mixed.classes_ = np.array([(0, 1), "b"], dtype=object)
        mixed.save(path)
    assert path.read_bytes() == good
    rng = np.random.default_rng(0)
    for cut in [0, 10, 100, len(good) // 2, len(good) - 1]:
        path.write_bytes(good[:cut])
        with pytest.raises(ValueError, match="damaged, or was not written by save"): KNN.load(path)
    for at in rng.integers(0, len(good), 60):
        path.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1:])
        try: back = KNN.load(path)
        except ValueError as error: assert str(path) in str(error)
        else: assert (back.kneighbors(points[:20])[1] == knn.kneighbors(points[:20])[1]).all(), "an unused byte"
    for foreign in b"PK nothing", b"\x80\x04 pickle", rng.bytes(1000):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match="damaged, or was not written by save"): KNN.load(path)
    np.savez(path, points=np.eye(3))
    with pytest.raises(ValueError, match="damaged, or was not written by save"): KNN.load(path)
    np.savez(path, about=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="damaged, or was not written by save"): KNN.load(path)


def test_files_whose_checksums_are_right_and_whose_content_is_not(tmp_path, monkeypatch):
    path, points = tmp_path / "knn.npz", clustered("uint8")
    KNN(2).fit(points, np.arange(6000) % 2).save(path)
    about, arrays = storage.load_arrays(path, "KNN")
    def changed(**new): storage.save_arrays(path, "KNN", about, arrays | new)
    far = arrays["order"].copy()
    far[0] = 10**12
    for new in [dict(order=far), dict(starts=arrays["starts"] * 2), dict(codes=arrays["codes"][:10]), dict(labels=arrays["labels"] + 5),
                dict(points=points[:100]), dict(tiles=arrays["tiles"].astype(float)), dict(labels=arrays["labels"].astype(float)),
                dict(mean=arrays["mean"][:3])]:
        changed(**new)
        with pytest.raises(ValueError, match=f"{path.name} is damaged"): KNN.load(path)
    for new in [dict(parameters=about["parameters"] | {"metric": "foo"}), dict(parameters=about["parameters"] | {"n_neighbors": "5"}),
                dict(parameters=about["parameters"] | {"n_neighbors": 6001}), {"image shape": [7, 7]}, {"image shape": {}}, dict(features=["a"]), dict(parameters=[])]:
        storage.save_arrays(path, "KNN", about | new, arrays)
        with pytest.raises(ValueError, match=f"{path.name} is damaged"): KNN.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive: archive.writestr("about.npy", b"x" * 1000)
    packed = path.read_bytes()
    path.write_bytes(packed[:40] + bytes([packed[40] ^ 255]) + packed[41:])
    with pytest.raises(ValueError, match="damaged, or was not written by save"): KNN.load(path)
    storage.save_arrays(path, "ANN", about, arrays)
    with pytest.raises(ValueError, match="must hold a fashion_proto KNN, got a fashion_proto ANN"): KNN.load(path)
    monkeypatch.setattr(storage, "FORMAT", 2)
    storage.save_arrays(path, "KNN", about, arrays)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 2, and this fashion_proto reads 1"): KNN.load(path)

FIRST = (             # a file of the first version: four points, x and y, packed
    "c-pO0O>fgc5FIxusOhCbAi;@cIk-p;YNAx2!U-fU5m7D`s;Vm5*qg+yvumx_g(^hqe}F5JPn@}P$=~2-aOMCz{(#sZ2!yd#;~DQ;&zrZq{cf$^gv{>1`?vca"
    "zvi|Dw}1_0tnZ8PV*ir`V8ITARyMcrZ+eH%`$ra>!_4-0<SP4s*stT3?GSq;l~zm)r1CiCpRpj~CLc{$$W6T4?(8}D95N^WY>gQ`^Mywb2pzF#;!80ImDG}S"
    "dp+uyq*PO;&F7X0LZ;Z1Ypx=bm{Iepd>5fSb_3tzOdv!IPUR41G+SvTxIdl@WeRGW%u9?lMl=>a{(#O++Mlv9Cn+`a>9~Dja&maeT}=Wu<N*RkSp#UqnQ|w%"
    "f+^OEU5)?cV(bgViZ}?cbk20FIO2}!E1YpbPv-rSUYDQ0oELgEU>8E^3ms*G?LgH~zeWCD_+RSx*nhZ^ejSIj*VOOl8q0pO;;-cXYVOPZIJ<G}(T{%Igsk&f"
    "KQjJFJ~#P4{MTc@0{=3<7e{;V3Vz%00Nj8@5zh(UhCkTq{0}>;o!|BOKQT2hGsby6PtA~dPN)2>jb^QUL*d<nW9$2_0JuyWR=%&QSUfF@eD62l`V#g7uK3%t"
    "Q(X&pT9Ws%0rjP|78_96cU3H^SYWr|?h-bs!Cz|H?{20?qHZ2ySR`pF-vHzSEhz")


def test_files_of_the_first_version_are_read(tmp_path):
    path = tmp_path / "first.npz"
    path.write_bytes(zlib.decompress(base64.b85decode(FIRST)))
    knn = KNN.load(path)
    assert knn.feature_names_in_.tolist() == ["x", "y"] and knn.search_ == "product" and knn.n_neighbors == 2
    distances, indices = knn.kneighbors(pd.DataFrame({"x": [0, 6], "y": [0, 6]}))
    assert indices.tolist() == [[0, 1], [3, 2]] and np.allclose(distances, [[0, 2**0.5], [1, 2**0.5]])
    assert knn.predict(pd.DataFrame({"x": [0, 6], "y": [0, 6]})).tolist() == ["Bag", "Coat"]


@pytest.mark.parametrize("metric", METRICS)
def test_files_keep_the_layout_of_the_first_version(metric, tmp_path):
    "The names, kinds and order of what is in a file, as the first version wrote it and reads it."
    path, points = tmp_path / "knn.npz", clustered("uint8")
    KNN(2, metric=metric).fit(points, np.arange(6000) % 2).save(path)
    kinds = dict(about="u1", points="u1", labels="i8", classes="i8", mean="f8", directions="f8", scales="f8", tiles="f4",
                 codes="i2", rest="f4", order="i8", starts="i8", low="f4", high="f4")
    with np.load(path) as file: assert [(name, file[name].dtype.str[1:]) for name in file.files] == list(kinds.items())
    about, arrays = storage.load_arrays(path, "KNN")
    assert about.keys() == {"parameters", "image shape", "object labels", "search", "engine", "features"}
    assert about["engine"] == metric and storage.FORMAT == 1
    assert arrays["directions"].shape == (points.shape[1], 87) and arrays["codes"].shape == (6000, 64)


def test_files_of_the_first_version_are_read_where_it_had_no_bounds():
    points = clustered("uint8")
    p = points.shape[1]
    loops = bounds.ExactSearch(points, "manhattan", axes=(np.empty(0), np.zeros(p), np.empty((p, 0))))
    arrays = bounds.arrays_of_search(loops)
    assert arrays["directions"].shape == (p, 0) and arrays["codes"].shape == (6000, 0)
    back, own = bounds.search_from_arrays(arrays, points, "manhattan"), bounds.ExactSearch(points, "manhattan")
    ours, theirs = (search.nearest(points[:50], 7) for search in (own, back))
    assert all((a == b).all() for a, b in zip(ours[:2], theirs)) and theirs[2].in_full == 50 * 6000 > 3 * ours[2].in_full


@pytest.mark.parametrize("kind", ["uint8", "int8", "int64", "float32", "float64"])
def test_manhattan_by_bounds_is_brute_force(kind):
    "Images, whose differences are at most `span`, and queries that stretch it; distances and ties to the last bit."
    rng = np.random.default_rng(5)
    points = clustered("uint8").astype(kind) if kind != "int8" else (clustered("uint8") // 2 - 60).astype(kind)
    points[3000:3500] = points[:500]                     # ties
    queries = np.concatenate([points[:40], rng.permuted(points[40:60], axis=1), np.where(rng.random((20, points.shape[1])) < 0.02, points.max(), points[60:80])])
    if kind[0] == "f": queries[-5:] = queries[-5:] * 3 - 100
    knn = KNN(9, metric="manhattan").fit(points, np.arange(6000) % 2)
    assert knn.search_ == "bound"
    found, indices = knn.kneighbors(queries)
    far = cdist(queries.astype(float), points.astype(float), "cityblock")
    order = np.argsort(far, axis=1, kind="stable")[:, :9]
    assert (indices == order).all() and (found == np.take_along_axis(far, order, axis=1)).all()
    radius = float(np.median(found))
    for (near, at), row in zip(zip(*knn.radius_neighbors(queries, radius)), far): assert set(at) == set(np.flatnonzero(row <= radius)) and (near == row[at]).all()


@pytest.mark.parametrize("p", [1, 2, 3, 30, 784, 1100])
def test_directions_are_orthonormal_to_the_last_bits(p):
    "On which the margins rest: beside the rounding of a coordinate in single precision it is nothing."
    points = np.random.default_rng(0).random((600, p)).astype(np.float32)
    _, directions = sketches.widest_directions(points, 87)
    axes = directions[:, :min(p, 87)]
    assert not directions[:, min(p, 87):].any()
    assert np.linalg.norm(axes.T @ axes - np.eye(axes.shape[1]), 2) < p * 2**-50


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_and_pickling_compile_no_loop_anew(dtype):
    rng = np.random.default_rng(0)
    points = np.round(rng.normal(size=(6000, 3)) @ rng.normal(size=(3, 40))).astype(dtype)
    points[3000:] = points[:3000]                        # every neighbour ties with another
    knn = KNN(3).fit(points, np.arange(6000) % 2)
    alike = KNN(3).fit(points + rng.normal(size=points.shape).astype(dtype) / 9, np.arange(6000) % 2)
    alike.kneighbors(points[:20])                        # few ties, if any
    loops = bounds.nearest_in_boxes, bounds.settle
    before = [len(loop.signatures) for loop in loops]
    found, again = (model.kneighbors(points[:200]) for model in (knn, pickle.loads(pickle.dumps(knn))))
    assert [len(loop.signatures) for loop in loops] == before
    assert all((a == b).all() for a, b in zip(found, again))
