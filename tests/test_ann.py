"""Annoy's neighbours against the exact ones, the vote, the seed, short answers, recall, refusals; and `ANN`, whatever its engine."""
import pickle
import re
import sys

import numpy as np
import pandas as pd
import pytest
from annoy import AnnoyIndex
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.core import graph
from fashion_proto.ann import ANN, _state_of, engines
from fashion_proto.core.storage import save_arrays as _save_arrays
from fashion_proto.knn import KNN
from fashion_proto.trees import ann_kneighbors, ann_pred, build_annoy, recall_at_k

NATIVE = [e for e in ("faiss", "annoy", "hnswlib") if engines().loc[e, "installed"]]
ENGINES = [*NATIVE, "exact"]


@pytest.fixture(scope="module")
def blobs():
    "Five well separated clouds of 40 points, and 100 queries."
    rng = np.random.default_rng(0)
    y = np.repeat(np.array(["Bag", "Coat", "Dress", "Shirt", "Boot"]), 40)
    centres = dict(zip(np.unique(y), rng.normal(0, 50, (5, 12))))
    X = np.array([centres[name] + rng.normal(0, 1, 12) for name in y])
    wanted = rng.choice(np.unique(y), 100)
    return X, y, np.array([centres[name] + rng.normal(0, 1, 12) for name in wanted]), wanted


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64", "bool"])
def test_all_candidates_make_it_exact(dtype):
    "With every item a candidate, the answer is that of the exact search, equal distances included."
    rng = np.random.default_rng(1)
    X, Q = (rng.integers(0, 2 if dtype == "bool" else 5, (n, 4)).astype(dtype) for n in (300, 40))
    for k in (1, 2, 7, 299, 300):
        index = build_annoy(X, n_trees=3)
        distances, indices = ann_kneighbors(index, Q, k, search_k=10**6)
        exact = KNN(k).fit(X.astype(float), np.arange(300) % 2)
        d, i = exact.kneighbors(Q.astype(float))
        assert distances.dtype == np.float64 and distances.shape == indices.shape == (40, k)
        assert np.array_equal(indices, i)
        np.testing.assert_allclose(distances, d, rtol=1e-6)
        assert (recall_at_k(distances, d, indices) == 1).all()
        assert np.array_equal(ann_pred(index, np.arange(300) % 2, Q, k, 10**6), exact.predict(Q.astype(float)))


def test_easy_data(blobs):
    X, y, Q, wanted = blobs
    index = build_annoy(X)
    assert (ann_pred(index, y, Q) == wanted).all() and (KNN().fit(X, y).predict(Q) == wanted).all()
    distances, indices = ann_kneighbors(index, X, k=1)
    assert (distances == 0).all() and (indices[:, 0] == np.arange(len(X))).all()


def test_real_data(fashion):
    train, valid = fashion[0][:8000], fashion[0][8000:8400]
    index = build_annoy(train.images)
    distances, indices = ann_kneighbors(index, valid.images, k=10)
    exact, _ = KNN(10).fit(train.images, np.asarray(train.labels)).kneighbors(valid.images)
    assert 0.75 < recall_at_k(distances, exact, indices).mean() < 1
    difference = train.images[indices].astype(float) - valid.images[:, None]
    np.testing.assert_allclose(distances, (difference**2).sum((2, 3))**0.5, rtol=1e-6)
    assert (np.diff(distances) >= 0).all()
    assert (ann_pred(index, train.labels, valid.images) == np.asarray(valid.labels)).mean() > 0.75


def test_search_k_finds_more(fashion):
    train, valid = fashion[0][:8000], fashion[0][8000:8200]
    index = build_annoy(train.images, n_trees=5)
    exact, _ = KNN(10).fit(train.images, np.asarray(train.labels)).kneighbors(valid.images)
    recall = [recall_at_k(ann_kneighbors(index, valid.images, 10, s)[0], exact).mean() for s in (10, 2000, 40_000)]
    assert recall[0] < recall[1] < recall[2] == 1


@pytest.mark.parametrize("k", range(1, 7))
def test_ties_go_to_the_nearest(k):
    "As `KNN` decides them: each point has another label than its neighbours, in a pattern with many ties."
    X = np.arange(60.)[:, None]**1.1
    y = np.array(["c", "a", "b"])[np.arange(60) * 7 % 5 % 3]
    Q = np.linspace(-1, 92, 200)[:, None]
    ours = ann_pred(build_annoy(X), y, Q, k, search_k=10**6)
    assert (ours == KNN(k).fit(X, y).predict(Q)).all()
    if k == 2: assert (ours == ann_pred(build_annoy(X), y, Q, 1, 10**6)).all()


def test_one_or_many(blobs):
    X, y, Q, wanted = blobs
    images = X.reshape(-1, 3, 4)
    index, flat = build_annoy(images), build_annoy(X)
    assert index.f == 12 and index.get_n_items() == 200 and index.get_n_trees() == 10
    one = ann_pred(index, y, Q[0])
    assert isinstance(one, str) and one == ann_pred(index, y, Q[0].reshape(3, 4)) == ann_pred(flat, y, list(Q[0]))
    for batch in (Q[:1], Q[:1].reshape(1, 3, 4)): assert ann_pred(index, y, batch).tolist() == [one]
    for batch in (Q, Q.reshape(-1, 3, 4), pd.DataFrame(Q)): assert (ann_pred(index, y, batch) == wanted).all()


@pytest.mark.parametrize("kind", ["str", "object", "int", "float", "bool", "categorical", "series"])
def test_labels_of_any_kind(blobs, kind):
    X, y, Q, wanted = blobs
    names = np.unique(y)
    codes, wanted_codes = np.searchsorted(names, y), np.searchsorted(names, wanted)
    labels, expected = {"str": (y, wanted), "object": (y.astype(object), wanted), "int": (codes - 2, wanted_codes - 2),
                        "float": (codes / 2, wanted_codes / 2), "bool": (codes > 1, wanted_codes > 1),
                        "categorical": (pd.Categorical(y), wanted), "series": (pd.Series(y, range(5, 205)), wanted)}[kind]
    assert (ann_pred(build_annoy(X), labels, Q) == expected).all()
    if kind in ("int", "float", "bool"): assert ann_pred(build_annoy(X), labels, Q).dtype == labels.dtype


def test_the_seed_makes_the_index(tmp_path, fashion):
    images = fashion[0].images[:5000]
    files = []
    for i, seed in enumerate([3, 3, np.int64(3), 4]):
        build_annoy(images, 3, seed).save(str(tmp_path / str(i)))
        files.append((tmp_path / str(i)).read_bytes())
    assert files[0] == files[1] == files[2] != files[3]


def test_as_built_by_hand(blobs):
    X, y, Q, _ = blobs
    index = AnnoyIndex(12, "euclidean")
    index.set_seed(5)
    for i, x in enumerate(X): index.add_item(i, x)
    index.build(4, n_jobs=1)
    ours = ann_kneighbors(build_annoy(X, 4, 5), Q, 30)[1]
    assert ours.tolist() == [index.get_nns_by_vector(q, 30) for q in Q]


def test_short_answers_are_refused():
    index = build_annoy(np.random.default_rng(0).normal(size=(5000, 3)))
    ann_kneighbors(index, [[0, 0, 0]], k=20)
    with pytest.raises(ValueError, match=r"annoy found only \d+ of k = 20 neighbours of image 1 with search_k = 1; a larger"):
        good = [0, 0, 0]
        counts = [len(index.get_nns_by_vector(q, 20, 1)) for q in (good, good)]
        assert max(counts) < 20
        class Patient(AnnoyIndex):
            "Gives the first query all that it asks for."
            def __init__(self, *args): self.asked = 0
            def get_n_trees(self): return index.get_n_trees()
            def get_n_items(self): return index.get_n_items()
            def get_nns_by_vector(self, v, n, search_k, include_distances):
                self.asked += 1
                return index.get_nns_by_vector(v, n, -1 if self.asked == 1 else search_k, include_distances=True)
        ann_kneighbors(Patient(3, "euclidean"), [good, good], k=20, search_k=1)


def test_items_with_gaps_are_refused():
    "Annoy makes room for the numbers left out, but never returns them."
    index = AnnoyIndex(2, "euclidean")
    for i in (0, 5): index.add_item(i, [i, i])
    index.build(2)
    with pytest.raises(ValueError, match="found only 2 of k = 3"): ann_kneighbors(index, [[0, 0]], k=3)


def test_constant_and_duplicated_items():
    for X in (np.ones((1000, 3)), np.tile(np.arange(4.)[:, None], (250, 3)), np.zeros((1, 3)), np.zeros((1, 1))):
        index = build_annoy(X)
        k = min(5, len(X))
        distances, indices = ann_kneighbors(index, X[:3], k)
        assert (distances == 0).all() and all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("images, error, match", [
    ([], ValueError, r"images must be one or more"), ([1, 2], ValueError, r"got shape \(2,\)"),
    (np.empty((0, 3)), ValueError, r"got shape \(0, 3\)"), (np.empty((3, 0)), ValueError, r"got shape \(3, 0\)"),
    ([["a"]], TypeError, "images must be numbers, got dtype <U1"), ([[1j]], TypeError, "complex128"),
    ([[None]], TypeError, "object"), ([[np.nan, 1]], ValueError, "finite numbers of size below 1e15, got nan"),
    ([[np.inf]], ValueError, "got inf"), ([[-np.inf, 0]], ValueError, "got -inf to 0.0"), ([[1e15]], ValueError, "1e15")])
def test_images_refused(images, error, match):
    with pytest.raises(error, match=match): build_annoy(images)
    with pytest.raises(error, match=match): ann_kneighbors(build_annoy([[1.]]), images, k=1)


def test_parameters_refused(blobs):
    X, y, Q, _ = blobs
    index, unbuilt = build_annoy(X), AnnoyIndex(12, "euclidean")
    for kw, error, match in [
            (dict(n_trees=0), ValueError, "n_trees must be from 1 to 2147483647, got 0"), (dict(n_trees=1.), TypeError, "n_trees"),
            (dict(n_trees=True), TypeError, "whole number, got True"), (dict(random_state=-1), ValueError, "random_state must be from 0"),
            (dict(random_state=2**31), ValueError, "random_state"), (dict(random_state=None), TypeError, "random_state must be a whole number")]:
        with pytest.raises(error, match=match): build_annoy(X, **kw)
    for kw, error, match in [
            (dict(k=0), ValueError, "k must be from 1 to 200, got 0"), (dict(k=201), ValueError, "got 201"), (dict(k=2.), TypeError, "k must"),
            (dict(k=None), TypeError, "k must be a whole number, got None"), (dict(search_k=0), ValueError, "search_k must be from 1"),
            (dict(search_k=-2), ValueError, "got -2"), (dict(search_k=1.5), TypeError, "search_k")]:
        with pytest.raises(error, match=match): ann_kneighbors(index, Q, **kw)
        with pytest.raises(error, match=match): ann_pred(index, y, Q, **kw)
    for bad in (Q[:, :5], X.reshape(-1, 6, 1, 4)[:, :, 0]):
        with pytest.raises(ValueError, match="images must have 12 numbers each, as in the index"): ann_kneighbors(index, bad)
    with pytest.raises(ValueError, match="12 numbers each"): ann_pred(index, y, Q[0, :7])
    for call in (lambda i: ann_kneighbors(i, Q), lambda i: ann_pred(i, y, Q)):
        with pytest.raises(ValueError, match="index must be built"): call(unbuilt)
        with pytest.raises(TypeError, match="index must be an AnnoyIndex, got NoneType"): call(None)
    for labels in (y[:-1], [], y.reshape(-1, 2), "Bag"):
        with pytest.raises(ValueError, match=r"labels must be one for each item of the index, shape \(200,\)"): ann_pred(index, labels, Q)


def test_nothing_is_changed(blobs):
    X, y, Q, _ = (a.copy() for a in blobs)
    index = build_annoy(X)
    ann_pred(index, y, Q)
    for a, b in zip((X, y, Q), blobs): assert np.array_equal(a, b)


def test_recall_by_definition():
    exact = [[1, 2, 2], [1, 2, 3], [0, 0, 0], [5, 6, 7]]
    found = [[2, 2, 2], [1, 3, 4], [0, 1e-9, 0], [7.1, 8, np.inf]]
    assert recall_at_k(found, exact).tolist() == [1, 2/3, 2/3, 0]
    assert recall_at_k(np.array(found)[:, ::-1], np.array(exact)[:, ::-1]).tolist() == [1, 2/3, 2/3, 0]      # in any order
    assert recall_at_k(exact, exact).tolist() == [1, 1, 1, 1]


def test_recall_with_ties_does_not_look_at_indices():
    "Two searches that cut a tie differently have both found everything."
    points = np.array([[1., 0], [0, 1], [-1, 0], [0, -1], [3, 0]])
    distances = np.linalg.norm(points, axis=1)[None]
    assert recall_at_k(distances[:, [3, 2]], distances[:, [0, 1]], [[3, 2]]).tolist() == [1]
    assert recall_at_k(distances[:, [3, 4]], distances[:, [0, 1]], [[3, 4]]).tolist() == [.5]


def test_recall_tolerance_is_relative_and_tiny():
    for scale in (1e-6, 1, 1e6):
        assert recall_at_k([[scale * (1 + 1e-7)]], [[scale]]) == 1 and recall_at_k([[scale * (1 + 1e-5)]], [[scale]]) == 0
        assert recall_at_k([[scale * 1.05]], [[scale]], rtol=0.1) == 1
    assert recall_at_k([[1.]], [[1.]], rtol=0) == 1 and recall_at_k([[np.nextafter(1, 2)]], [[1.]], rtol=0) == 0
    rng = np.random.default_rng(0)
    d = rng.uniform(1, 1000, (50, 10))
    assert (recall_at_k(d.astype(np.float32), d) == 1).all()


def test_copies_score_full_without_indices_and_are_refused_with_them():
    exact, found = np.sort(np.random.default_rng(0).uniform(size=(4, 10))), np.empty((4, 10))
    found[:] = exact[:, :1]
    assert (recall_at_k(found, exact) == 1).all()
    indices = np.arange(40).reshape(4, 10)
    assert (recall_at_k(exact, exact, indices) == 1).all()
    indices[2, 3] = indices[2, 8]
    with pytest.raises(ValueError, match="a neighbour twice for 1 queries, first query 2"): recall_at_k(found, exact, indices)


@pytest.mark.parametrize("found, exact, kw, match", [
    ([[1, 2]], [[1, 2, 3]], {}, r"found must have shape \(1, 3\), as exact, got \(1, 2\)"), ([1, 2], [1, 2], {}, "exact must have a shape"),
    ([[1]], [[1], [2]], {}, "found must have shape"), ([], [], {}, "exact must have a shape"), (np.empty((3, 0)), np.empty((3, 0)), {}, r"got \(3, 0\)"),
    ([[np.nan]], [[1]], {}, "found must not hold NaN, got 1"), ([[1]], [[np.nan]], {}, "exact must be finite"), ([[1]], [[np.inf]], {}, "exact must be finite"),
    ([[1]], [[-1]], {}, "not negative, got -1.0"), ([[1]], [[1]], {"rtol": -1}, "rtol must be 0 or more, got -1"), ([[1]], [[1]], {"rtol": np.nan}, "rtol"),
    ([[1, 2]], [[1, 2]], {"indices": [[1]]}, r"indices must have shape \(1, 2\)"), ([[1, 2]], [[1, 2]], {"indices": [1, 2]}, "indices must have shape")])
def test_recall_refuses(found, exact, kw, match):
    with pytest.raises(ValueError, match=match): recall_at_k(found, exact, **kw)


# ANN

@parametrize_with_checks([ANN(3, engine=e) for e in ENGINES])
def test_estimator_contract(estimator, check): check(estimator)


@pytest.fixture(scope="module")
def digits():
    "1400 digits and their labels, and 397 others with theirs."
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order[:1400]], y[order[:1400]], X[order[1400:]], y[order[1400:]]


@pytest.fixture(scope="module")
def fitted(digits): return {e: ANN(engine=e, target_recall=0.9).fit(*digits[:2]) for e in ENGINES}


def chosen(curve, target):
    "The first effort that surely reaches the target."
    return curve.iloc[(curve["low"] >= target).argmax(), 0] if (curve["low"] >= target).any() else None


def check_answers(distances, indices, X, Q, k):
    "What holds for every answer."
    assert distances.shape == indices.shape == (len(Q), k) and distances.dtype == np.float64 and indices.dtype == np.intp
    assert all(len(set(row)) == k for row in indices.tolist()) and indices.min() >= 0 and indices.max() < len(X)
    direct = ((X[indices].astype(float) - Q[:, None])**2).sum(2)**0.5
    np.testing.assert_allclose(distances, direct, rtol=1e-12)
    assert (np.diff(distances) >= 0).all() and ((np.diff(distances) > 0) | (np.diff(indices) > 0)).all()


@pytest.mark.parametrize("target", [0.80, 0.90, 0.95, 0.99])
@pytest.mark.parametrize("engine", ENGINES)
def test_target_is_met_on_digits(digits, engine, target):
    X, y, Q, _ = digits
    model = ANN(engine=engine, target_recall=target).fit(X, y)
    distances, indices = model.kneighbors(Q)
    check_answers(distances, indices, X, Q, 5)
    exact, _ = KNN().fit(X, y).kneighbors(Q)
    assert recall_at_k(distances, exact, indices).mean() >= target - 0.01
    if model.setting_["engine"] == engine != "exact":
        assert list(model.setting_.values())[1] == chosen(model.curve_, target) and model.recall_ >= target
        assert model.recall_ == model.recalls_.mean() and len(model.recalls_) == 280
    else: assert model.recall_ == 1 and model.setting_["because"]


@pytest.fixture(scope="module")
def garments(fashion):
    "The distances of the true 10 neighbours of 2000 test images."
    return KNN(10).fit(fashion[0].images, np.asarray(fashion[0].labels)).kneighbors(fashion[1].images[:2000])[0]


@pytest.fixture(scope="module")
def sure(fashion):
    "The graph of the garments, tuned to a recall of 0.99."
    return ANN(10, target_recall=0.99).fit(fashion[0].images, fashion[0].labels)


@pytest.mark.parametrize("target", [0.80, 0.90, 0.95, 0.99])
def test_target_is_met_on_garments(fashion, garments, sure, target):
    "The highest by a fit of its own, the others by the efforts that its curve has for them (bench/full_size.py fits each)."
    train, test, model = fashion[0], fashion[1][:2000], sure
    model._effort = int(chosen(model.curve_, target))
    assert target != 0.99 or model.setting_["beam"] == model._effort
    distances, indices = model.kneighbors(test.images)
    recalls = recall_at_k(distances, garments, indices)
    assert model.setting_["engine"] == "faiss" and target - 0.01 <= recalls.mean() <= target + 0.045
    flat = train.images.reshape(len(train), -1)
    check_answers(distances[:300], indices[:300], flat, test.images[:300].reshape(300, -1), 10)


def test_target_is_met_where_nothing_helps():
    "20 000 random vectors of 32 dimensions: one index, the efforts that each target chooses (bench/full_size.py has 100 000, and a fit for each)."
    rng = np.random.default_rng(0)
    X, Q, y = rng.normal(size=(20_000, 32)), rng.normal(size=(500, 32)), np.arange(20_000) % 3
    model = ANN(target_recall=0.99).fit(X, y)
    exact, _ = KNN().fit(X, y).kneighbors(Q)
    efforts = [chosen(model.curve_, t) for t in (0.80, 0.90, 0.95, 0.99)]
    assert model.setting_["beam"] == efforts[-1]
    for target, effort in zip((0.80, 0.90, 0.95, 0.99), efforts):
        model._effort = int(effort)
        assert recall_at_k(*model.kneighbors(Q)[:1], exact).mean() >= target - 0.01


@pytest.mark.parametrize("engine", NATIVE)
def test_every_k_up_to_all(digits, fitted, engine):
    X, y, Q, _ = digits
    for k in (1, 4, 40, 700, 1400):
        distances, indices = fitted[engine].kneighbors(Q[:20], k)
        check_answers(distances, indices, X, Q[:20], k)
    assert np.array_equal(fitted[engine].kneighbors(Q[:20], 1400)[0], KNN().fit(X, y).kneighbors(Q[:20], 1400)[0])
    assert np.array_equal(fitted[engine].kneighbors(Q[:20], 4, return_distance=False), fitted[engine].kneighbors(Q[:20], 4)[1])
    for k, error in ((1401, ValueError), (0, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n_neighbors must be"): fitted[engine].kneighbors(Q, k)
        with pytest.raises(error, match="n_neighbors must be"): ANN(k, engine=engine).fit(X, y)


@pytest.mark.parametrize("engine", ENGINES)
def test_few_images(engine):
    "Every engine has exactly k different neighbours, however few there are."
    for n in (1, 2, 7, 30):
        X = np.arange(n, dtype=float)[:, None] * [1, 2]
        model = ANN(n, engine=engine).fit(X, np.arange(n) % 2)
        check_answers(*model.kneighbors([[0.2, 0.1]]), X, np.array([[0.2, 0.1]]), n)
        assert model.setting_["engine"] == "exact" and model.setting_["because"]


@pytest.mark.parametrize("engine", NATIVE)
def test_training_images_among_the_others(digits, fitted, engine):
    X = digits[0]
    distances, indices = fitted[engine].kneighbors()
    check_answers(distances, indices, X, X, 5)
    assert (indices != np.arange(len(X))[:, None]).all()
    assert recall_at_k(distances, KNN().fit(*digits[:2]).kneighbors()[0]).mean() > 0.85


@pytest.mark.parametrize("engine", NATIVE)
def test_an_engine_that_finds_too_few_is_helped(digits, engine, monkeypatch):
    X, y, Q, _ = digits
    model = ANN(engine=engine, target_recall=0.9).fit(X, y)
    find = model._engine.find
    def lazy(queries, effort, distances, indices, threads):
        find(queries, effort, distances, indices, threads)
        distances[::3, 3:], indices[::3, 3:] = np.inf, -1
        return len(queries[::3])
    monkeypatch.setattr(model._engine, "find", lazy)
    check_answers(*model.kneighbors(Q), X, Q, 5)
    assert np.array_equal(model.kneighbors(Q)[1][::3], KNN().fit(X, y).kneighbors(Q)[1][::3])


@pytest.mark.parametrize("make, why", [
    (lambda rng: np.ones((1500, 4)), None), (lambda rng: np.repeat(rng.normal(size=(3, 4)), 500, axis=0), None),
    (lambda rng: rng.normal(size=(1500, 4)) * 1e-20, "too small or too large"), (lambda rng: rng.normal(size=(1500, 4)) * 1e20, "too small or too large"),
    (lambda rng: np.zeros((1500, 1)), "too small or too large"), (lambda rng: rng.normal(size=(1500, 4)) + 1e9, None),
    (lambda rng: np.vstack([rng.normal(size=(1499, 4)), np.full((1, 4), 1e8)]), None), (lambda rng: rng.integers(0, 2, (1500, 3)), None)])
def test_awkward_images_are_answered_truly(make, why):
    X = make(np.random.default_rng(0))
    y, exact = np.arange(len(X)) % 3, None
    for engine in NATIVE:
        model = ANN(engine=engine, target_recall=0.9).fit(X, y)
        distances, indices = model.kneighbors(X[::50])
        check_answers(distances, indices, X.astype(float), X[::50].astype(float), 5)
        if exact is None: exact, _ = KNN().fit(X, y).kneighbors(X[::50])
        assert recall_at_k(distances, exact, rtol=1e-3).mean() >= 0.85
        if why: assert why in model.setting_["because"]


def test_far_away_queries(digits, fitted):
    X = digits[0]
    for Q in (np.full((2, 64), 1e6), np.full((2, 64), -1e12), np.full((1, 64), 1e30), np.full((1, 64), 1e200)):
        for engine in ENGINES:
            distances, indices = fitted[engine].kneighbors(Q)
            assert np.isfinite(distances).all() or Q[0, 0] > 1e100
            assert all(len(set(row)) == 5 for row in indices.tolist()) and (indices >= 0).all()


def test_same_seed_same_index(digits, fashion):
    X, y = fashion[0].images[:1200], fashion[0].labels[:1200]
    Q = fashion[0].images[2000:2300]
    for engine in NATIVE:
        a, b, c = (ANN(engine=engine, n_jobs=jobs, random_state=seed).fit(X, y) for jobs, seed in ((1, 5), (2, 5), (2, 6)))
        assert a.setting_ == b.setting_ and np.array_equal(a.curve_.iloc[:, :3], b.curve_.iloc[:, :3])
        for one, two in zip(a.kneighbors(Q), b.kneighbors(Q)): assert np.array_equal(one, two)
        same = [np.array_equal(p, q) for p, q in zip(a._engine.arrays().values(), b._engine.arrays().values())]
        assert all(same) or engine == "hnswlib"          # its file has bytes that were never set
        assert not np.array_equal(a._engine.order, c._engine.order)
        alone = [a.kneighbors(Q[i:i + 1])[1][0] for i in range(100)]
        assert np.array_equal(alone, a.kneighbors(Q)[1][:100])
        ANN(engine=engine, deterministic=False).fit(X, y)


@pytest.mark.parametrize("engine", ENGINES)
def test_votes_are_those_of_knn(digits, fitted, engine):
    X, y, Q, wanted = digits
    model = fitted[engine]
    shares = model.predict_proba(Q)
    assert (model.classes_[shares.argmax(1)] == model.predict(Q)).all() and np.allclose(shares.sum(1), 1)
    assert (model.predict(Q) == wanted).mean() > 0.95
    found = model.kneighbors(Q)[1]
    for q, names, label in zip(Q, y[found], model.predict(Q)):
        votes = {name: (names == name).sum() for name in names}
        assert label == max(votes, key=votes.get)        # of several, the first in the row
    exact = ANN(4, engine=engine, target_recall=1, weights="distance").fit(X, y)
    assert np.array_equal(exact.predict_proba(Q), KNN(4, weights="distance").fit(X, y).predict_proba(Q))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool", ">f8"])
def test_any_numbers(dtype):
    rng = np.random.default_rng(0)
    X, Q = (rng.integers(0, 2 if dtype == "bool" else 200, (n, 5, 6)).astype(dtype) for n in (1500, 50))
    model = ANN(target_recall=0.9).fit(X, np.arange(1500) % 3)
    for queries in (Q, Q.reshape(50, 30), Q[:, ::1, ::-1][:, :, ::-1], Q.astype(np.float32), pd.DataFrame(Q.reshape(50, 30)), Q.reshape(50, 30).tolist()):
        check_answers(*model.kneighbors(queries), X.reshape(1500, 30), Q.reshape(50, 30).astype(float), 5)


def test_bad_queries(digits, fitted):
    Q = digits[2]
    for engine in ENGINES:
        for bad, match in ((Q[:, :63], "63 features"), (Q.reshape(-1, 16, 2, 2)[:, :, :1], "features"), (Q[0], "1D array|Expected 2D"), (Q[:0], "0 sample"),
                           (np.where(np.arange(64) == 3, np.nan, Q), "NaN"), (np.where(np.arange(64) == 3, np.inf, Q), "infinity")):
            with pytest.raises(ValueError, match=match): fitted[engine].kneighbors(bad)


@pytest.mark.parametrize("parameters, error, match", [
    (dict(engine="anoy"), ValueError, "engine must be one of faiss, annoy, hnswlib, exact, got 'anoy'"), (dict(engine=None), ValueError, "engine must be"),
    (dict(target_recall=0), ValueError, "target_recall must be above 0 and at most 1, got 0"), (dict(target_recall=1.01), ValueError, "target_recall"),
    (dict(target_recall=np.nan), ValueError, "target_recall"), (dict(target_recall="0.9"), TypeError, "target_recall must be a number, got '0.9'"),
    (dict(target_recall=True), TypeError, "target_recall"), (dict(weights="equal"), ValueError, "weights must be one of uniform, distance"),
    (dict(deterministic=1), TypeError, "deterministic must be True or False, got 1"), (dict(n_jobs=0), ValueError, "n_jobs must be a number of threads"),
    (dict(n_jobs=1.5), TypeError, "n_jobs must be None or a whole number"), (dict(random_state="x"), ValueError, "seed")])
def test_bad_parameters(digits, parameters, error, match):
    with pytest.raises(error, match=match): ANN(**parameters).fit(*digits[:2])


@pytest.mark.parametrize("engine, package", [("faiss", "faiss"), ("hnswlib", "hnswlib"), ("annoy", "annoy")])
def test_missing_engine_says_how_to_install_it(digits, engine, package, monkeypatch, tmp_path):
    path = tmp_path / "a.npz"
    if engine in NATIVE: ANN(engine=engine).fit(*digits[:2]).save(path)
    monkeypatch.setitem(sys.modules, package, None)
    command = engines().loc[engine, "install"]
    assert not engines().loc[engine, "installed"] and engines().loc["exact", "installed"] and command.startswith("pip install ")
    with pytest.raises(ImportError, match=f"engine '{engine}' is not installed; this installs it: {command}"): ANN(engine=engine).fit(*digits[:2])
    if engine in NATIVE and engine != "faiss":
        with pytest.raises(ImportError, match=command): ANN.load(path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["int", "str", "object", "bool", "categorical"])
def test_saved_and_loaded(digits, tmp_path, engine, kind):
    X, y, Q, _ = digits
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[y]
    labels = {"int": y - 3, "str": names, "object": names.astype(object), "bool": y > 4, "categorical": pd.Categorical(names)}[kind]
    model, path = ANN(engine=engine, target_recall=0.9, weights="distance", random_state=np.int64(3)).fit(X, labels), tmp_path / "model.npz"
    model.save(path)
    model.save(str(path))
    for same in (ANN.load(path), ANN.load(str(path)), pickle.loads(pickle.dumps(model))):
        for a, b in zip(same.kneighbors(Q), model.kneighbors(Q)): assert np.array_equal(a, b)
        assert np.array_equal(same.predict_proba(Q), model.predict_proba(Q)) and same.classes_.dtype == model.classes_.dtype
        assert np.array_equal(same.predict(Q), model.predict(Q)) and same.get_params() == model.get_params()
        assert same.setting_ == model.setting_ and same.recall_ == model.recall_ and same.curve_.equals(model.curve_)
        assert np.array_equal(same.kneighbors(Q[:5], 300)[1], model.kneighbors(Q[:5], 300)[1])
        with pytest.raises(ValueError, match="63 features"): same.kneighbors(Q[:, :63])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.npz"]
    again = tmp_path / "again.npz"
    ANN.load(path).save(again)
    assert np.array_equal(ANN.load(again).predict(Q), model.predict(Q))


def test_saved_with_names_and_shapes(digits, tmp_path):
    X, y, Q, _ = digits
    path, table = tmp_path / "a.npz", pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    ANN().fit(table, y).save(path)
    assert list(ANN.load(path).feature_names_in_) == list(table.columns)
    ANN(random_state=np.random.RandomState(0)).fit(X.reshape(-1, 8, 8), y).save(path)
    model = ANN.load(path)
    assert model.image_shape_ == (8, 8) and model.random_state is None
    with pytest.raises(ValueError, match=r"images of shape \(8, 8\)"): model.predict(Q.reshape(-1, 4, 16))


@pytest.mark.parametrize("engine", ENGINES)
def test_damaged_files_are_refused(digits, fitted, engine, tmp_path):
    path = tmp_path / "model.npz"
    fitted[engine].save(path)
    data = path.read_bytes()
    with pytest.raises(FileNotFoundError): ANN.load(tmp_path / "none.npz")
    for bad in (b"", data[:10], data[:len(data) // 2], data[:-1], data[1:], b"PK" + bytes(1000)):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="model.npz"): ANN.load(path)
    for at in np.linspace(100, len(data) - 100, 25).astype(int):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1:])
        try: model = ANN.load(path)
        except ValueError as e: assert "model.npz" in str(e)
        else: assert np.array_equal(model.predict(digits[2]), fitted[engine].predict(digits[2]))     # a byte that says nothing


def test_foreign_files_are_refused(digits, fitted, tmp_path):
    "Whole files, whose sums are right, but whose contents would lead compiled code astray."
    path, (about, arrays) = tmp_path / "a.npz", _state_of(fitted["faiss"])
    def write(about, arrays): _save_arrays(path, "ANN", about, arrays)
    write(about, arrays)
    ANN.load(path)
    _save_arrays(path, "KNN", about, arrays)
    with pytest.raises(ValueError, match="a.npz"): ANN.load(path)
    for metric in ("cosine", "manhattan", None):
        write(about | {"metric": metric}, arrays)
        with pytest.raises(ValueError, match="metric"): ANN.load(path)
    links, order, labels = (arrays[name].copy() for name in ("engine_links", "engine_order", "labels"))
    links[5, 0], order[0], labels[0] = 1400, -7, 99
    for bad in (dict(engine_links=links), dict(engine_order=order), dict(labels=labels), dict(engine_links=links.astype(np.int64)),
                dict(engine_codes=arrays["engine_codes"][:-1]), dict(engine_codes=arrays["engine_codes"][:, :-1]), dict(points=arrays["points"][:-1]),
                dict(engine_directions=arrays["engine_directions"][:-1]), dict(engine_shift=arrays["engine_shift"][:-1]), dict(points=arrays["points"].astype(np.int16))):
        write(about, arrays | bad)
        with pytest.raises(ValueError, match="a.npz is not as ANN writes its files"): ANN.load(path)
    for name in arrays:
        write(about, {n: a for n, a in arrays.items() if n != name})
        with pytest.raises(ValueError, match="a.npz"): ANN.load(path)
    for name in about:
        write({n: a for n, a in about.items() if n != name}, arrays)
        with pytest.raises(ValueError, match="a.npz"): ANN.load(path)
    np.savez(path, points=arrays["points"])
    with pytest.raises(ValueError, match="a.npz"): ANN.load(path)


def test_tradeoff_is_drawn(fitted):
    import matplotlib.pyplot as plt
    for engine in NATIVE:
        ax = fitted[engine].plot_tradeoff()
        assert ax.get_ylabel() == "recall" and engine in ax.get_title()
        assert fitted[engine].plot_tradeoff(ax) is ax
    with pytest.raises(ValueError, match="the curve is empty: the search is exact, because it was asked for"): fitted["exact"].plot_tradeoff()
    plt.close("all")


def test_the_code_of_one_is_the_code_of_many(fashion):
    points = fashion[0].images[:2000].reshape(2000, -1)
    frame = graph.fit_encoder(points)
    codes = graph.shorten(points, np.arange(2000), *frame).astype(int)
    code, out = np.empty(codes.shape[1], np.int16), np.empty(codes.shape[1], np.float32)
    for i in range(0, 2000, 97):
        graph.shorten_query(points[i], *frame, out, code)
        inside = (codes[i, :-1] > 0) & (codes[i, :-1] < 255)
        assert np.abs(code[:-1] - codes[i, :-1])[inside].max() <= 1 and abs(code[-1] - 0.4 * codes[i, -1]) < 2


def test_the_walk_finds_what_it_should():
    "On a complete graph the beam holds the nearest codes of all, equal ones by lower number."
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (60, 32)).astype(np.uint8)
    links = np.tile(np.arange(60, dtype=np.int32), (60, 1))
    for beam in (1, 7, 60, 80):
        keys = np.empty(beam, np.int64)
        size = graph.walk(codes[3].astype(np.int16), codes, links, keys, np.empty(60, np.int32), np.empty(8, np.uint8))
        squares = ((codes.astype(int) - codes[3])**2).sum(1)
        assert size == min(beam, 60) and (keys[:size] >> 1 & 0x7fffffff).tolist() == np.lexsort([np.arange(60), squares])[:beam].tolist()


def test_without_annoy_all_but_its_trees_works(digits, monkeypatch):
    X, y = digits[:2]
    monkeypatch.setitem(sys.modules, "annoy", None)
    with pytest.raises(ImportError, match="annoy is not installed; this installs it.*pip install annoy"): build_annoy(X)
    assert ANN(5, engine="faiss").fit(X, y).score(X, y) > 0.9


def test_a_file_of_the_time_before_the_core_is_read(digits, tmp_path):
    "The layout of a saved `ANN` has not changed: the names of its arrays and what it says of itself."
    model = ANN(5, random_state=0).fit(*digits[:2])
    about, arrays = _state_of(model)
    assert set(about) == {"metric", "parameters", "state", "curve", "objects", "feature_names"}
    assert {"points", "labels", "classes", "recalls", "engine_order", "engine_scale", "engine_directions",
            "engine_shift", "engine_codes", "engine_links"} == set(arrays)


# The cosine, and the far end

@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_cosine_finds_what_the_exact_search_finds(dtype, fashion, tmp_path):
    points, labels = fashion[0].images[:3000].astype(dtype), fashion[0].labels[:3000]
    points[17] = 0                                   # blank: at distance 1 from everything
    ann = ANN(10, metric="cosine", target_recall=0.97).fit(points, labels)
    queries = fashion[0].images[6000:6500].astype(dtype)
    distances, indices = ann.kneighbors(queries)
    exact, order = KNN(10, metric="cosine").fit(points, labels).kneighbors(queries)
    assert ann.setting_["engine"] == "faiss" and recall_at_k(distances, exact, indices).mean() > 0.95
    same = indices == order
    np.testing.assert_allclose(distances[same], exact[same], atol=1e-14)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert (ann.kneighbors(np.zeros_like(queries[:1]))[0] == 1).all()
    ann.save(tmp_path / "ann.npz")
    again = ANN.load(tmp_path / "ann.npz")
    assert (again.kneighbors(queries)[1] == indices).all() and again.get_params()["metric"] == "cosine"
    with pytest.raises(ValueError, match="metric must be one of euclidean, cosine, got 'manhattan'"):
        ANN(metric="manhattan").fit(points, labels)


@pytest.mark.parametrize("target, n", [(0.999, 20_000), (0.9999, 6000)])
def test_a_recall_near_one_is_met_or_the_search_is_exact(target, n, fashion):
    points, queries = fashion[0].images[:n], fashion[0].images[20_000:24_000]
    ann = ANN(10, target_recall=target).fit(points, fashion[0].labels[:n])
    exact = KNN(10).fit(points, fashion[0].labels[:n]).kneighbors(queries)[0]
    distances, indices = ann.kneighbors(queries)
    assert recall_at_k(distances, exact, indices).mean() > target - 2e-4
    if ann.setting_["engine"] == "exact":
        assert re.search("times as fast as faiss|too few images to prove", ann.setting_["because"])
