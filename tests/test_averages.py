"""Averages: scikit-learn's contract, loop oracles, scikit-learn's own `NearestCentroid`, labels and images of all kinds, refusals."""
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestCentroid
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.averages import AveragePrototypes, NearestPrototype, average_prototypes, mse, pred_text, predict_prototype
from fashion_proto.data import as_float

DTYPES = [np.uint8, np.int16, np.float32, np.float64]


@parametrize_with_checks([AveragePrototypes()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def some(seed, dtype=np.uint8, n=30, shape=(5, 4), high=256):
    "Random images, the first of them three times, one pixel the same in all; labels of which each occurs."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, high, (n, *shape))
    images[1] = images[2] = images[0]
    images[(slice(None), *[0] * len(shape))] = 7
    return images.astype(dtype), np.array(["b", "c", "a"])[np.r_[0, 1, 2, rng.integers(0, 3, n - 3)]]


def loop_mse(a, b):
    "The mean squared difference of two images, a pixel at a time, in Python's own numbers."
    a, b = np.ravel(a).tolist(), np.ravel(b).tolist()
    return sum((x - y)**2 for x, y in zip(a, b, strict=True)) / len(a)


# mse

@pytest.mark.parametrize("dtype", [*DTYPES, bool, np.int64, np.float16])
@pytest.mark.parametrize("shape", [(5, 4), (20,), (3, 2, 3)])
def test_mse_is_the_loop(dtype, shape):
    images = some(0, shape=shape, high=120)[0].astype(dtype)
    d = mse(images, images[3], ndim=len(shape))
    assert d.dtype == np.float64 and d.shape == (30,) and d[3] == 0
    np.testing.assert_allclose(d, [loop_mse(image, images[3]) for image in images], rtol=1e-6)
    assert (d == mse(images[3], images, ndim=len(shape))).all()


def test_mse_broadcasts_batches():
    images = some(1)[0]
    table = mse(images[:, None], images[None, :4])
    assert table.shape == (30, 4)
    for j in range(4): assert (table[:, j] == mse(images, images[j])).all()
    assert np.isscalar(mse(images[0], images[1])) and mse(images[0], images[1]) == 0


def test_mse_of_eight_bits_does_not_overflow_and_is_exact(fashion):
    images = fashion[0].images[:200]
    exact = np.square(images.astype(int) - images[7].astype(int)).sum(axis=(1, 2)) / 784
    np.testing.assert_allclose(mse(images, images[7]), exact, rtol=1e-15)
    assert mse(np.zeros((1, 1), np.uint8), np.full((1, 1), 255, np.uint8)) == 65025
    assert mse(np.full((1, 1), -128, np.int8), np.full((1, 1), 127, np.int8)) == 65025
    before = images.copy()
    mse(images, images[0])
    assert (images == before).all()


def test_mse_of_nearly_equal_images_keeps_the_difference():
    a = np.full((28, 28), 1000, np.float32)
    b = a.copy()
    b[0, 0] = np.nextafter(np.float32(1000), np.float32(2000))
    assert mse(a, b) == (float(b[0, 0]) - 1000)**2 / 784 > 0


@pytest.mark.parametrize("a, b, ndim", [
    (np.zeros((3, 784)), np.zeros(784), 2), (np.zeros((3, 4, 4)), np.zeros((4, 5)), 2), (np.zeros((4, 4)), np.zeros((1, 1)), 2),
    (np.zeros(3), np.zeros(4), 1), (np.zeros((2, 2)), np.zeros((2, 2)), 0), (np.zeros((2, 2)), np.zeros((2, 2)), 3),
    (np.zeros((3, 2, 2)), np.zeros((2, 2, 2)), 2), (np.zeros((0, 2, 2)), np.zeros((2, 2)), 2), (np.zeros((2, 0)), np.zeros((2, 0)), 2),
    ([[np.nan]], [[0.]], 2), ([[0.]], [[-np.inf]], 2)])
def test_mse_refuses(a, b, ndim):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError): mse(a, b, ndim)


@pytest.mark.parametrize("wrong", [[["a"]], [[1j]], [[None]], np.zeros((1, 1), "datetime64[s]")])
def test_numbers_are_wanted(wrong):
    for call in (lambda: mse(wrong, [[1]]), lambda: mse([[1]], wrong), lambda: average_prototypes(wrong, [0]),
                 lambda: predict_prototype(wrong, [[1]], [0]), lambda: predict_prototype([[1]], wrong, [0])):
        with pytest.raises(TypeError, match="must be numbers"): call()


# average_prototypes

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 4), (20,), (3, 2, 3)])
def test_averages_are_the_loop(dtype, shape):
    images, labels = some(2, dtype, shape=shape)
    averages = average_prototypes(images, labels)
    assert averages.shape == (3, *shape) and averages.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for average, name in zip(averages, "abc"):
        mine = [image.astype(float) for image, label in zip(images, labels) if label == name]
        np.testing.assert_allclose(average, sum(mine) / len(mine), rtol=1e-6)


def test_averages_do_not_lose_digits(fashion):
    images = as_float(fashion[0].images)
    exact = [images[fashion[0].labels.codes == code].mean(axis=0, dtype=float) for code in range(10)]
    np.testing.assert_allclose(average_prototypes(images, fashion[0].labels), exact, rtol=1e-7, atol=1e-12)


def test_averages_come_in_the_order_of_the_categories():
    images = [[[1.]], [[2.]], [[3.]]]
    order = pd.CategoricalDtype(["z", "a", "m"])
    for labels in (pd.Categorical(["a", "m", "z"], order.categories), pd.Series(["a", "m", "z"], dtype=order, index=[9, 5, 5])):
        assert average_prototypes(images, labels).ravel().tolist() == [3, 1, 2]
    assert average_prototypes(images, ["a", "m", "z"]).ravel().tolist() == [1, 2, 3]
    assert average_prototypes(images, [7, 7, -1]).ravel().tolist() == [3, 1.5]


@pytest.mark.parametrize("images, labels, match", [
    ([[1.], [2.]], [0], "labels must be as many as images, 2, got 1"), ([1., 2.], [0, 1], "2 dimensions or more"),
    ([[1.], [np.nan]], [0, 1], "images must be finite, got 1"), ([[1.], [np.inf]], [0, 1], "images must be finite, got 1"),
    (np.empty((0, 2, 2)), [], "images must not be empty"), (np.empty((2, 0)), [0, 1], "images must not be empty"),
    ([[1.], [2.]], ["a", None], "labels must not be missing, got 1"), ([[1.], [2.]], [0, np.nan], "labels must not be missing"),
    ([[1.], [2.]], pd.Categorical(["a", "a"], ["a", "b"]), "an image of each category, got none of")])
def test_averages_refuse(images, labels, match):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=match): average_prototypes(images, labels)


# predict_prototype

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 4), (20,)])
def test_nearest_prototype_is_the_loop(dtype, shape):
    images = some(3, dtype, shape=shape)[0]
    prototypes, cats = some(4, dtype, 7, shape)[0][1:], ["u", "v", "w", "x", "y", "z"]       # the first two are equal
    classes, distances = predict_prototype(images, prototypes, cats)
    for image, name, distance in zip(images, classes, distances, strict=True):
        d = [loop_mse(image, prototype) for prototype in prototypes]
        assert name == cats[d.index(min(d))] and name != "v"
        assert distance == pytest.approx(min(d), rel=1e-6)


@pytest.mark.parametrize("cats", [["a", "b"], ("a", "b"), np.array([3, 4]), pd.Categorical(["a", "b"]), pd.Series([2.5, 1], index=[8, 9]), range(2)])
def test_classes_are_values_of_cats(cats):
    classes, _ = predict_prototype([[0.], [9.], [8.]], [[1.], [7.]], cats)
    first, second = list(cats)
    assert classes.tolist() == [first, second, second]


@pytest.mark.parametrize("images, prototypes, cats, match", [
    (np.zeros((2, 3, 3)), np.zeros((2, 3, 4)), [0, 1], "size of the images"), (np.zeros((2, 9)), np.zeros((2, 3, 3)), [0, 1], "size of the images"),
    (np.zeros((3, 3)), np.zeros((2, 3, 3)), [0, 1], "size of the images"), (np.zeros(3), np.zeros(2), [0, 1], "size of the images"),
    (np.zeros((2, 3)), np.zeros((2, 3)), [0], "cats must be as many as prototypes, 2, got 1"),
    (np.zeros((0, 3)), np.zeros((2, 3)), [0, 1], "images must not be empty"), (np.zeros((2, 3)), np.zeros((0, 3)), [], "prototypes must not be empty"),
    ([[np.nan]], [[1.]], [0], "images must be finite"), ([[1.]], [[np.inf]], [0], "prototypes must be finite")])
def test_nearest_prototype_refuses(images, prototypes, cats, match):
    with pytest.raises(ValueError, match=match): predict_prototype(images, prototypes, cats)


# pred_text

def test_titles():
    titles = pred_text(pd.Categorical(["Coat", "Bag"]), np.float32([0.5, 1 / 3]), np.array(["Bag", "Bag"]))
    assert titles == ["Coat / Bag: 0.5000", "Bag / Bag: 0.3333"]
    assert pred_text([], [], []) == []
    with pytest.raises(ValueError, match="equally many, got 1, 1 and 2"): pred_text(["a"], [1], ["a", "b"])


# AveragePrototypes

@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_estimator_is_the_loop_and_nearest_centroid(dtype, seed):
    images, labels = some(seed, dtype, 60)
    queries = some(seed + 10, dtype, 60)[0]
    ours = AveragePrototypes().fit(images, labels)
    assert ours.prototypes_.shape == (3, 5, 4) and ours.n_features_in_ == 20 and ours.classes_.tolist() == ["a", "b", "c"]
    predicted = ours.predict(queries)
    for image, name in zip(queries, predicted, strict=True):
        d = [loop_mse(image, prototype) for prototype in ours.prototypes_]
        assert name == "abc"[d.index(min(d))]
    theirs = NearestCentroid().fit(images.reshape(60, -1).astype(float), labels)
    assert (theirs.predict(queries.reshape(60, -1).astype(float)) == predicted).all()


def test_real_images_in_every_shape_and_dtype(fashion):
    train, test = fashion[0][:6000], fashion[0][6000:8000]
    stored = AveragePrototypes().fit(train.images, train.labels)
    expected = stored.predict(test.images)
    flat = NearestCentroid().fit(train.images.reshape(-1, 784), train.labels)
    assert (flat.predict(test.images.reshape(-1, 784)) == expected).all()
    for convert in (as_float, lambda x: x / 255, lambda x: x.reshape(-1, 784), lambda x: x[..., None], lambda x: x.astype(np.int32),
                    lambda x: np.asfortranarray(x), lambda x: pd.DataFrame(x.reshape(-1, 784)).add_prefix("pixel")):
        model = AveragePrototypes().fit(convert(train.images), train.labels)
        assert model.prototypes_.shape[1:] == convert(train.images).shape[1:]
        assert (model.predict(convert(test.images)) == expected).all()
    assert (stored.predict(test.images.reshape(-1, 784)) == expected).all()
    assert 0.6 < stored.score(test.images, test.labels) < 0.75


@pytest.mark.parametrize("kind", [
    list, np.array, pd.Series, pd.Categorical, lambda y: pd.Series(pd.Categorical(y, ["c", "b", "a", "unused"])),
    lambda y: np.array(y, object), lambda y: pd.Series(y, index=range(100, 100 + len(y)))], ids=range(7))
def test_string_labels_of_every_kind(kind):
    images, labels = some(5)
    model = AveragePrototypes().fit(images, kind(labels.tolist()))
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict(images).tolist() == AveragePrototypes().fit(images, labels).predict(images).tolist()


@pytest.mark.parametrize("names", [[3, 1, 2], [-1, 10**12, 0], [True, False, True], [0.0, 1.0, 2.0], np.array([5, 6, 7], np.int8)])
def test_other_labels_come_back_as_they_were(names):
    images, letters = some(6)
    labels = np.asarray(names)[["bca".index(letter) for letter in letters]]
    predicted = AveragePrototypes().fit(images, labels).predict(images)
    assert predicted.dtype == labels.dtype and set(predicted.tolist()) <= set(labels.tolist())


def test_one_class_duplicates_and_constant_features():
    assert AveragePrototypes().fit(np.eye(3), ["only"] * 3).predict(np.ones((2, 3))).tolist() == ["only"] * 2
    assert AveragePrototypes().fit([[4.]], [1]).predict([[9.]]).tolist() == [1]
    same = AveragePrototypes().fit(np.ones((4, 3)), ["b", "a", "b", "a"])
    assert same.predict(np.ones((2, 3))).tolist() == ["a", "a"]                              # a tie: the first class


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_the_right_one_is_nearest(dtype):
    offset = dtype(2**20)
    X = offset + np.array([[0.], [0.5]], dtype)
    model = AveragePrototypes().fit(X, ["low", "high"])
    assert model.predict(X).tolist() == ["low", "high"] and model.predict(offset + np.array([[0.125], [0.375]], dtype)).tolist() == ["low", "high"]


def test_frames_and_their_names():
    images, labels = some(7, shape=(6,))
    frame = pd.DataFrame(images, columns=list("uvwxyz"))
    model = AveragePrototypes().fit(frame, pd.Series(labels))
    assert list(model.feature_names_in_) == list("uvwxyz")
    with pytest.raises(ValueError, match="feature names"): model.predict(frame[list("zyxwvu")])


@pytest.mark.parametrize("X, y", [
    (np.zeros((3, 2, 2)), [0, 1]), (np.zeros((0, 2, 2)), []), (np.zeros((2, 0, 2)), [0, 1]), (np.zeros(3), [0, 1, 2]), (np.zeros((0, 4)), []),
    (np.full((2, 2, 2), np.nan), [0, 1]), (np.full((2, 2, 2), np.inf), [0, 1]), (np.zeros((2, 2)), [0, np.nan]), (np.zeros((2, 2)), [0.5, 1.5]),
    (np.zeros((2, 2)), None), (np.zeros((2, 2)), [[0, 1], [1, 0]]), ([["a"], ["b"]], [0, 1])])
def test_fit_refuses(X, y):
    with pytest.raises(ValueError): AveragePrototypes().fit(X, y)


def test_predict_refuses():
    images, labels = some(8)
    with pytest.raises(NotFittedError): AveragePrototypes().predict(images)
    model = AveragePrototypes().fit(images, labels)
    for wrong in (images[:, :4], images.reshape(-1, 4, 5), images[0], images[:0], images.reshape(30, -1)[:, :-1], np.full((1, 5, 4), np.nan)):
        with pytest.raises(ValueError): model.predict(wrong)
    with pytest.raises(ValueError, match=r"X must have images of shape \(5, 4\), as in fit, got \(4, 5\)"): model.predict(images.reshape(-1, 4, 5))


def test_clone_pickle_cross_validation():
    images, labels = some(9, n=60)
    model = AveragePrototypes().fit(images, labels)
    before = images.copy(), model.prototypes_.copy()
    assert (pickle.loads(pickle.dumps(model)).predict(images) == model.predict(images)).all()
    assert not hasattr(clone(model), "prototypes_") and not hasattr(model, "predict_proba")
    assert cross_val_score(AveragePrototypes(), images, labels, cv=3).shape == (3,)
    assert (images == before[0]).all() and (model.prototypes_ == before[1]).all()


# NearestPrototype

@parametrize_with_checks([NearestPrototype()])
def test_nearest_prototype_keeps_the_contract(estimator, check):
    check(estimator)


def test_any_images_may_be_prototypes(fashion):
    train, test = fashion
    first = [np.flatnonzero(train.labels == name)[0] for name in train.labels.categories]
    model = NearestPrototype().fit(train.images[first], train.labels[first])
    far = np.square(test.images[:300, None].astype(float) - train.images[first]).sum(axis=(2, 3))
    assert (model.predict(test.images[:300]) == np.asarray(train.labels[first])[far.argmin(axis=1)]).all()
    assert np.array_equal(model.prototypes_, train.images[first]) and model.image_shape_ == (28, 28)


def test_the_first_of_equals_wins():
    model = NearestPrototype().fit([[0.], [2.], [2.]], ["a", "b", "c"])
    assert model.predict([[1.], [2.]]).tolist() == ["a", "b"]
