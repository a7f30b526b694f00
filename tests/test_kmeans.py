"""k-means: scikit-learn's contract, loop oracles, scikit-learn's own rounds, empty clusters, labels and images of all kinds, refusals."""
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.averages import AveragePrototypes
from fashion_proto.data import as_float
from fashion_proto.core.products import nearest_rows
from fashion_proto.kmeans import KMeansPrototypes, kmeans, kmeans_update

DTYPES = [np.uint8, np.float32, np.float64]


@parametrize_with_checks([KMeansPrototypes(), KMeansPrototypes(n_prototypes=1), KMeansPrototypes(n_prototypes=3)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def some(seed, dtype=np.uint8, n=40, shape=(3, 2), high=256):
    "Random images, the first of them three times, one pixel the same in all; labels of which each occurs."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, high, (n, *shape))
    images[1] = images[2] = images[0]
    images[(slice(None), *[0] * len(shape))] = 7
    return images.astype(dtype), np.array(["b", "c", "a"])[np.r_[0, 1, 2, rng.integers(0, 3, n - 3)]]


def loop_update(points, images):
    "One round in Python's own numbers, an image at a time."
    shape, points, images = np.shape(points), [np.ravel(p).tolist() for p in points], [np.ravel(i).tolist() for i in images]
    groups, total = [[] for _ in points], 0
    for image in images:
        d = [sum((x - y)**2 for x, y in zip(image, point, strict=True)) / len(image) for point in points]
        groups[d.index(min(d))].append(image)
        total += min(d)
    moved = [[sum(pixel) / len(own) for pixel in zip(*own)] if own else point for own, point in zip(groups, points)]
    return np.reshape(moved, shape), total / len(images)


# kmeans_update

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 2, 3)])
@pytest.mark.parametrize("k", [1, 2, 39, 40])
def test_a_round_is_the_loop(dtype, shape, k):
    images = some(0, dtype, shape=shape)[0]
    moved, distance = kmeans_update(images[:k], images)
    expected, mean = loop_update(images[:k], images)
    assert moved.shape == (k, *shape) and moved.dtype.kind == "f" and isinstance(distance, float)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    assert distance == pytest.approx(mean, rel=1e-6)


def test_points_of_one_dtype_and_images_of_another():
    images = some(1)[0]
    points = images[:3] + 0.25
    before = points.copy()
    moved, distance = kmeans_update(points, images)
    np.testing.assert_allclose(moved, loop_update(points, images)[0], rtol=1e-6)
    assert (points == before).all() and moved.dtype == np.float64


@pytest.mark.parametrize("far", [100., -3.5, 1e6])
def test_a_point_without_images_keeps_its_place(far):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved, _ = kmeans_update([[far], [0.], [10.]], [[0.], [1.], [9.], [10.]])
        assert moved.tolist() == [[far], [0.5], [9.5]]
        moved, _ = kmeans_update([[1.], [1.], [5.]], [[1.], [2.], [6.]])
    assert moved.tolist() == [[1.5], [1], [6]]                      # of equal points the first gets the images


@pytest.mark.parametrize("points, images, match", [
    (np.zeros((2, 3, 3)), np.zeros((5, 3, 4)), "points must be of the size of images"), (np.zeros((3, 3)), np.zeros((5, 3, 3)), "points must be"),
    (np.zeros((2, 9)), np.zeros((5, 3, 3)), "points must be"), (np.zeros(2), np.zeros(5), "points must be"),
    (np.zeros((0, 3)), np.zeros((5, 3)), "points must not be empty"), (np.zeros((2, 3)), np.zeros((0, 3)), "images must not be empty"),
    ([[np.nan]], [[1.]], "points must be finite"), ([[1.]], [[np.inf]], "images must be finite")])
def test_a_round_refuses(points, images, match):
    with pytest.raises(ValueError, match=match): kmeans_update(points, images)
    with pytest.raises(TypeError, match="must be numbers"): kmeans_update([["a"]], [["a"]])


# kmeans

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 5, 39, 40])
def test_rounds_go_on_until_nothing_moves(dtype, seed, k):
    images = some(seed, dtype)[0]
    points, trace = kmeans(images, k, random_state=seed)
    assert points.shape == (k, 3, 2) and points.dtype.kind == "f" and trace.dtype == np.float64
    assert (np.diff(trace) <= 1e-6 * trace[0]).all()
    moved, distance = kmeans_update(points, images)
    assert np.array_equal(moved, points) and distance == trace[-1]
    again = kmeans(images, k, random_state=np.random.RandomState(seed))
    assert np.array_equal(again[0], points) and np.array_equal(again[1], trace)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_rounds_as_scikit_learn(fashion, seed):
    images = as_float(fashion[0].images[:1000]).astype(float)
    start = images[np.random.RandomState(seed).choice(1000, 4, replace=False)]
    points, trace = kmeans(images, 4, random_state=seed)
    theirs = KMeans(4, init=start.reshape(4, -1), n_init=1, algorithm="lloyd", tol=0, max_iter=1000).fit(images.reshape(1000, -1))
    np.testing.assert_allclose(points.reshape(4, -1), theirs.cluster_centers_, atol=1e-9)
    assert theirs.n_iter_ == len(trace) and trace[-1] * 784 * 1000 == pytest.approx(theirs.inertia_)


def test_equal_images_and_as_many_points_as_images():
    points, trace = kmeans(np.ones((4, 2, 2)), 3)
    assert (points == 1).all() and trace.tolist() == [0]
    points, trace = kmeans(np.arange(5.)[:, None], 5)
    assert sorted(points.ravel()) == [0, 1, 2, 3, 4] and trace.tolist() == [0]


def test_other_seeds_draw_other_starts():
    images = some(2)[0]
    assert len({kmeans(images, 3, random_state=seed)[1][0] for seed in range(5)}) == 5
    kmeans(images, 3, random_state=None)


@pytest.mark.parametrize("k", [0, -1, 5, 10**20])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=f"k must be from 1 to 4, got {k}"): kmeans(np.eye(4), k)
    if k < 1:
        with pytest.raises(ValueError, match=f"n_prototypes must be .*1.*, got {k}"): KMeansPrototypes(k).fit(np.eye(4), [0, 0, 1, 1])


@pytest.mark.parametrize("k", [2.0, "2", None, True, [2]])
def test_k_no_whole_number(k):
    with pytest.raises(TypeError, match="k must be a whole number, got"): kmeans(np.eye(4), k)
    with pytest.raises(TypeError, match="n_prototypes must be a whole number, got"): KMeansPrototypes(k).fit(np.eye(4), [0, 0, 1, 1])


@pytest.mark.parametrize("images", [np.zeros((0, 2, 2)), np.zeros((2, 0)), [[np.nan], [1]], [[np.inf], [1]], [1., 2.], 3.])
def test_kmeans_refuses_images(images):
    with pytest.raises(ValueError, match="images must"): kmeans(images, 1)


# _nearest_rows

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("high", [2, 4, 256])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_nearest_rows_is_the_loop(dtype, high, block):
    X, points = (some(seed, dtype, 50, (6,), high)[0] for seed in (3, 4))            # few values: ties everywhere
    d = np.square(X[:, None].astype(int) - points[None].astype(int)).sum(axis=2)
    assert (nearest_rows(X, points, block) == d.argmin(axis=1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1e3, 1e6, 1e9, -1e12])
def test_nearest_rows_far_from_zero(dtype, offset):
    rng = np.random.default_rng(5)
    X, points = ((offset + rng.integers(0, 1000, (20, 3)) * max(1, np.spacing(dtype(abs(offset))))).astype(dtype) for _ in range(2))
    d = np.square(X[:, None].astype(float) - points[None].astype(float)).sum(axis=2)
    assert (nearest_rows(X, points) == d.argmin(axis=1)).all()


# KMeansPrototypes

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_prototypes", [1, 2, 5])
def test_prediction_is_the_loop(dtype, n_prototypes):
    images, labels = some(6, dtype, 60)
    queries = some(7, dtype, 60)[0]
    model = KMeansPrototypes(n_prototypes).fit(images, labels)
    assert model.prototypes_.shape == (3 * n_prototypes, 3, 2) and model.n_features_in_ == 6
    assert model.prototype_labels_.tolist() == np.repeat(["a", "b", "c"], n_prototypes).tolist()
    d = np.square(queries[:, None].astype(float) - model.prototypes_[None].astype(float)).sum(axis=(2, 3))
    assert (model.predict(queries) == model.prototype_labels_[d.argmin(axis=1)]).all()


def test_one_prototype_is_the_average(fashion):
    train, others = fashion[0][:6000], fashion[0][6000:8000]
    one, averages = (model.fit(train.images, train.labels) for model in (KMeansPrototypes(1), AveragePrototypes()))
    np.testing.assert_allclose(one.prototypes_, averages.prototypes_, atol=0.01)
    assert (one.predict(others.images) != averages.predict(others.images)).sum() <= 1


def test_prototypes_are_those_of_k_means_in_the_class():
    images, labels = some(8, np.float64, 60)
    model = KMeansPrototypes(3, random_state=np.random.RandomState(1)).fit(images, labels)
    for name in "abc":
        own = model.prototypes_[model.prototype_labels_ == name]
        moved, _ = kmeans_update(own, images[labels == name])
        np.testing.assert_allclose(moved, own, atol=1e-9)


def test_real_images_in_every_shape_and_dtype(fashion):
    train, others = fashion[0][:3000], fashion[0][3000:5000]
    model = KMeansPrototypes(5).fit(train.images, train.labels)
    expected = model.predict(others.images)
    assert 0.68 < (expected == others.labels).mean() < 0.85
    assert (model.predict(others.images.reshape(-1, 784)) == expected).all()
    for convert in (lambda x: x.reshape(-1, 784), lambda x: x[..., None], lambda x: np.asfortranarray(x), lambda x: x.astype(np.float32),
                    lambda x: pd.DataFrame(x.reshape(-1, 784)).add_prefix("pixel")):
        other = KMeansPrototypes(5).fit(convert(train.images), train.labels)
        assert other.prototypes_.shape == (50, *convert(train.images).shape[1:])
        assert (other.predict(convert(others.images)) == expected).mean() > 0.999
    assert (KMeansPrototypes(5).fit(as_float(train.images), train.labels).predict(as_float(others.images)) == expected).mean() > 0.9


def test_a_class_with_few_distinct_images_keeps_them_all():
    X = np.array([[0.], [0.], [-0.], [1.], [5.], [6.], [7.], [8.], [9.]])
    y = ["few"] * 4 + ["many"] * 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = KMeansPrototypes(3).fit(X, y)
        assert model.prototypes_[model.prototype_labels_ == "few"].tolist() == [[0], [1]]
        assert (model.prototype_labels_ == "many").sum() == 3
        every = KMeansPrototypes(100).fit(X, y)
    assert sorted(every.prototypes_.ravel()) == [0, 1, 5, 6, 7, 8, 9]
    assert every.predict(X).tolist() == y


def test_one_class_equal_images_and_ties():
    assert KMeansPrototypes(2).fit(np.eye(3), ["only"] * 3).predict(np.ones((2, 3))).tolist() == ["only"] * 2
    same = KMeansPrototypes(2).fit(np.ones((4, 3)), ["b", "a", "b", "a"])
    assert same.prototypes_.tolist() == [[1, 1, 1]] * 2 and same.predict(np.ones((2, 3))).tolist() == ["a", "a"]


def test_seeds():
    images, labels = some(9, n=200)
    fits = [KMeansPrototypes(4, random_state=seed).fit(images, labels).prototypes_ for seed in (0, 0, 1, np.int64(1))]
    assert np.array_equal(fits[0], fits[1]) and np.array_equal(fits[2], fits[3]) and not np.array_equal(fits[0], fits[2])
    KMeansPrototypes(4, random_state=None).fit(images, labels)


@pytest.mark.parametrize("kind", [
    list, np.array, pd.Series, pd.Categorical, lambda y: pd.Series(pd.Categorical(y, ["c", "b", "a", "unused"])),
    lambda y: np.array(y, object), lambda y: pd.Series(y, index=range(100, 100 + len(y)))], ids=range(7))
def test_string_labels_of_every_kind(kind):
    images, labels = some(10)
    model = KMeansPrototypes(3).fit(images, kind(labels.tolist()))
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict(images).tolist() == KMeansPrototypes(3).fit(images, labels).predict(images).tolist()


@pytest.mark.parametrize("names", [[3, 1, 2], [True, False, True], [0.0, 1.0, 2.0], np.array([5, 6, 7], np.int8)])
def test_other_labels_come_back_as_they_were(names):
    images, letters = some(11)
    labels = np.asarray(names)[["bca".index(letter) for letter in letters]]
    predicted = KMeansPrototypes(3).fit(images, labels).predict(images)
    assert predicted.dtype == labels.dtype and set(predicted.tolist()) <= set(labels.tolist())


@pytest.mark.parametrize("X, y", [
    (np.zeros((3, 2, 2)), [0, 1]), (np.zeros((0, 2, 2)), []), (np.zeros((2, 0, 2)), [0, 1]), (np.zeros(3), [0, 1, 2]), (np.zeros((0, 4)), []),
    (np.full((2, 2, 2), np.nan), [0, 1]), (np.full((2, 2, 2), np.inf), [0, 1]), (np.zeros((2, 2)), [0, np.nan]), (np.zeros((2, 2)), [0.5, 1.5]),
    (np.zeros((2, 2)), None), ([["a"], ["b"]], [0, 1])])
def test_fit_refuses(X, y):
    with pytest.raises(ValueError): KMeansPrototypes().fit(X, y)


def test_predict_refuses():
    images, labels = some(12)
    with pytest.raises(NotFittedError): KMeansPrototypes().predict(images)
    model = KMeansPrototypes(2).fit(images, labels)
    for wrong in (images[:, :2], images.reshape(-1, 2, 3), images[0], images[:0], np.full((1, 3, 2), np.nan)):
        with pytest.raises(ValueError): model.predict(wrong)
    with pytest.raises(ValueError, match=r"X must have images of shape \(3, 2\), as in fit, got \(2, 3\)"): model.predict(images.reshape(-1, 2, 3))


def test_clone_and_pickle():
    images, labels = some(13)
    before = images.copy()
    model = KMeansPrototypes(2, random_state=3).fit(images, labels)
    assert (pickle.loads(pickle.dumps(model)).predict(images) == model.predict(images)).all() and (images == before).all()
    assert clone(model).get_params() == {"n_prototypes": 2, "random_state": 3} and not hasattr(clone(model), "prototypes_")
