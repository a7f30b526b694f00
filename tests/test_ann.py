"""Annoy's neighbours against the exact ones, the vote, the seed, short answers, recall, refusals."""
import numpy as np
import pandas as pd
import pytest
from annoy import AnnoyIndex

from fashion_proto.ann import ann_kneighbors, ann_pred, build_annoy, recall_at_k
from fashion_proto.knn import KNN


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
