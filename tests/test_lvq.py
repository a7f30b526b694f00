"""Learned prototypes: scikit-learn's contract, a loop oracle for the rounds, units and offsets, tiny classes, labels and images of all kinds, refusals."""
import pickle
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.data import as_float
from fashion_proto.kmeans import KMeansPrototypes
from fashion_proto.lvq import LVQ, _held_back, _in_units, _learn, _rivals

DTYPES = [np.uint8, np.float32, np.float64]


@parametrize_with_checks([LVQ(), LVQ(n_prototypes=1), LVQ(n_prototypes=3, validation_fraction=0, max_iter=7)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def some(seed, dtype=np.uint8, n=90, shape=(3, 2), high=256):
    "Random images, the first of them three times, one pixel the same in all; three labels that depend on two pixels, not always."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, high, (n, *shape))
    images[1] = images[2] = images[0]
    images[(slice(None), *[0] * len(shape))] = high // 2
    rows = images.reshape(n, -1)
    kind = (rows[:, 1] > high // 2) + (rows[:, 2] > high // 2)
    return images.astype(dtype), np.array(["b", "c", "a"])[np.where(rng.random(n) < 0.1, rng.integers(0, 3, n), kind)]


@pytest.fixture(scope="module")
def components(fashion):
    "Fifty principal components of 8000 and 4000 training images, and the labels."
    parts = fashion[0][:8000], fashion[0][8000:12_000]
    rows = [as_float(part.images).reshape(len(part), -1) for part in parts]
    pca = PCA(50, svd_solver="covariance_eigh").fit(rows[0])
    return pca.transform(rows[0]), np.asarray(parts[0].labels), pca.transform(rows[1]), np.asarray(parts[1].labels)


# the rounds

def loop_round(images, codes, order, prototypes, owners, rate, fall, s):
    "A round in Python's own numbers, by the formulas of the paper."
    images, prototypes = images.tolist(), [p.tolist() for p in prototypes]
    for step, i in enumerate(order):
        d = [sum((x - w)**2 for x, w in zip(images[i], p, strict=True)) for p in prototypes]
        own = min((j for j in range(len(d)) if owners[j] == codes[i]), key=d.__getitem__)
        other = min((j for j in range(len(d)) if owners[j] != codes[i]), key=d.__getitem__)
        total = d[own] + d[other]
        if total == 0: continue
        f = 1 / (1 + np.exp(-s * (d[own] - d[other]) / total))
        by_gradient = [4 * f * (1 - f) * d[other] / total**2, 4 * f * (1 - f) * d[own] / total**2]
        come, go = (part * min(1, total) * (rate - fall * step) for part in by_gradient)
        prototypes[own] = [w + come * (x - w) for x, w in zip(images[i], prototypes[own])]
        prototypes[other] = [w - go * (x - w) for x, w in zip(images[i], prototypes[other])]
    return np.array(prototypes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.2, 1, 3])
@pytest.mark.parametrize("s", [1., 10., 100.])
def test_a_round_is_the_loop(seed, scale, s):
    rng = np.random.default_rng(seed)
    images, codes = (scale * rng.normal(size=(40, 7))).astype(np.float32), rng.integers(0, 3, 40)
    places, owners, order = (scale * rng.normal(size=(6, 7))).astype(np.float32), np.array([0, 0, 1, 1, 2, 2]), rng.permutation(40)
    expected = loop_round(images, codes, order, places, owners, 0.3, 0.002, s)
    before = places.copy()
    _learn(images, codes, order, places, owners, 0.3, 0.002, s)
    np.testing.assert_allclose(places, expected, atol=2e-4 * scale)
    assert abs(places - before).max() > 1e-3 * scale


@pytest.mark.parametrize("seed", range(3))
def test_a_step_goes_downhill(seed):
    "The cost of an image, for the two prototypes that matter, falls in a short step, and the step is along the measured gradient."
    rng = np.random.default_rng(seed)
    x, s = rng.normal(size=(1, 5)).astype(np.float32), 10.
    places = rng.normal(size=(2, 5)).astype(np.float32)
    moved = places.copy()
    _learn(x, np.array([0]), np.array([0]), moved, np.array([0, 1]), 0.01, 0., s)

    def cost(w):
        a, b = np.square(x[0].astype(float) - w).sum(axis=1)
        return 1 / (1 + np.exp(-s * (a - b) / (a + b)))
    w, tiny = places.astype(float), 1e-6
    slope = np.reshape([(cost(w + tiny * e) - cost(w - tiny * e)) / (2 * tiny) for e in np.eye(10).reshape(10, 2, 5)], (2, 5))
    step = (moved - places).astype(float)
    assert cost(moved.astype(float)) < cost(w)
    assert (step * slope).sum() < -0.999 * np.linalg.norm(step) * np.linalg.norm(slope)


def test_rivals_are_the_nearest_and_the_first_of_equals():
    places = np.array([[5], [1], [1], [3], [3], [9]], np.float32)
    assert _rivals(np.zeros(1, np.float32), 7, places, np.array([7, 7, 7, 8, 8, 8])) == (1, 3, 1, 9)
    assert _rivals(np.zeros(1, np.float32), 7, places, np.array([7] * 6))[1] == -1


def test_an_image_equal_to_prototypes_of_two_classes_moves_nothing():
    places = np.ones((2, 3), np.float32)
    _learn(np.ones((4, 3), np.float32), np.array([0, 1, 0, 1]), np.arange(4), places, np.array([0, 1]), 0.5, 0., 10.)
    assert (places == 1).all()


@pytest.mark.parametrize("rate", [0.2, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_prototypes_do_not_run_away(rate, seed):
    "Many dimensions, little to be learned, one prototype each: where GLVQ with relative steps grows without bound."
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(1500, 100)), rng.integers(0, 4, 1500)
    X[:, 0] += y / 2
    model = LVQ(1, learning_rate=rate, validation_fraction=0, n_iter_no_change=30).fit(X, y)
    assert model.n_iter_ == 30 and np.isfinite(model.prototypes_).all() and np.linalg.norm(model.prototypes_, axis=1).max() < 20 * np.sqrt(100)
    assert model.trace_[-1] > model.trace_[0] and (rate > 0.2 or model.trace_[-1] > model.trace_[0] + 0.04)


@pytest.mark.parametrize("counts", [[1, 1], [9, 9], [10, 19, 20, 100], [3, 1000]])
@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 0.99])
def test_held_back_a_share_of_each_class(counts, fraction):
    codes = np.repeat(range(len(counts)), counts)
    held = _held_back(codes, fraction, np.random.RandomState(0))
    assert np.bincount(codes[held], minlength=len(counts)).tolist() == [int(fraction * n) for n in counts]
    assert (np.bincount(codes[~held], minlength=len(counts)) >= 1).all()
    if fraction == 0.5 and len(counts) > 3: assert (held != _held_back(codes, fraction, np.random.RandomState(1))).any()


def test_units():
    X = np.random.default_rng(0).normal(3, 5, (2500, 4))
    rows, mean, unit = _in_units(X)
    np.testing.assert_allclose(rows * unit + mean, X, atol=1e-5)
    np.testing.assert_allclose([np.square(rows).sum(axis=1).mean(), unit], [1, np.sqrt(np.square(X - X.mean(axis=0)).sum(axis=1).mean())], rtol=1e-5)
    assert rows.dtype == np.float32 and mean.dtype == np.float64


# LVQ

def test_ten_learned_for_each_class_beat_k_means_and_the_neighbours(components):
    X, y, queries, expected = components
    learned = LVQ(10).fit(X, y)
    accuracy = learned.score(queries, expected)
    assert accuracy > 0.83 and accuracy > KMeansPrototypes(10).fit(X, y).score(queries, expected) + 0.05
    assert learned.prototypes_.shape == (100, 50) and learned.prototypes_.dtype == np.float64
    assert learned.n_iter_ <= 30 and len(learned.trace_) == learned.n_iter_ + 1 and ((0 <= learned.trace_) & (learned.trace_ <= 1)).all()


def test_the_whole_training_set_is_learned_well_and_soon(fashion):
    train, valid = fashion[0].split()
    rows = [as_float(part.images).reshape(len(part), -1) for part in (train, valid)]
    pca = PCA(50, svd_solver="covariance_eigh").fit(rows[0])
    X, queries = map(pca.transform, rows)
    y, start = np.asarray(train.labels), time.perf_counter()
    averaged, between = KMeansPrototypes(10).fit(X, y), time.perf_counter()
    model, end = LVQ(10).fit(X, y), time.perf_counter()
    assert end - between < 25 * (between - start)       # 5 to 10 times, the more the fewer cores are free
    assert model.score(queries, np.asarray(valid.labels)) >= 0.862 > averaged.score(queries, np.asarray(valid.labels))


def test_the_trace_tells_of_the_images_held_back_and_the_best_is_kept(components):
    X, y, *_ = (part[:3000] for part in components)
    for fraction, rounds in (0.2, 12), (0, 3):
        model = LVQ(2, validation_fraction=fraction, max_iter=rounds, random_state=5).fit(X, y)
        held = _held_back(np.unique(y, return_inverse=True)[1], fraction, np.random.RandomState(5))
        judge = held if held.any() else ~held
        assert (model.predict(X[judge]) == y[judge]).mean() == pytest.approx(model.trace_.max(), abs=0.004)
        start = LVQ(2, learning_rate=0, validation_fraction=fraction, random_state=5).fit(X, y)
        assert start.trace_[0] == model.trace_[0] and len(set(start.trace_)) == 1


def test_learning_ends_when_nothing_gets_better():
    X, y = np.random.default_rng(1).normal(size=(400, 5)), np.arange(400) % 2                # nothing to be learned
    model = LVQ(3, n_iter_no_change=2, max_iter=100).fit(X, y)
    best = len(model.trace_) - 1 - model.trace_[::-1].argmax()
    assert model.n_iter_ == min(100, best + 2) and model.n_iter_ < 100


@pytest.mark.parametrize("factor", [255., 1e-6, 2.**40, -3., 1e100, 1e-100])
def test_the_unit_does_not_matter(components, factor):
    X, y, queries, _ = (part[:1500].astype(float) if part.dtype.kind == "f" else part[:1500] for part in components)
    expected, other = LVQ(3, max_iter=5).fit(X, y), LVQ(3, max_iter=5).fit(factor * X, y)
    assert (other.predict(factor * queries) == expected.predict(queries)).mean() > 0.995
    np.testing.assert_allclose(other.prototypes_ / factor, expected.prototypes_, atol=0.01)


@pytest.mark.parametrize("offset", [1., -1000., 1e6])
def test_a_constant_added_does_not_matter(components, offset):
    X, y, queries, _ = (part[:1500].astype(float) if part.dtype.kind == "f" else part[:1500] for part in components)
    expected, other = LVQ(3, max_iter=5).fit(X, y), LVQ(3, max_iter=5).fit(X + offset, y)
    assert (other.predict(queries + offset) == expected.predict(queries)).mean() > 0.995
    np.testing.assert_allclose(other.prototypes_ - offset, expected.prototypes_, atol=0.01)


@pytest.mark.parametrize("dtype", [*DTYPES, np.float16, np.int64, bool])
def test_prediction_is_the_nearest_prototype(dtype):
    images, labels = some(6, dtype, high=2 if dtype is bool else 256)
    queries = some(7, dtype, high=2 if dtype is bool else 256)[0]
    model = LVQ(2, max_iter=5).fit(images, labels)
    assert model.prototypes_.shape[1:] == (3, 2) and model.n_features_in_ == 6
    d = np.square(queries[:, None].astype(float) - model.prototypes_[None]).sum(axis=(2, 3))
    assert (model.predict(queries) == model.prototype_labels_[d.argmin(axis=1)]).all()


def test_real_images_in_every_shape_and_dtype(fashion):
    train, others = fashion[0][:1500], fashion[0][1500:2500]
    model = LVQ(2, max_iter=6).fit(train.images, train.labels)
    expected = model.predict(others.images)
    assert (expected == others.labels).mean() > 0.72 and (model.predict(others.images.reshape(-1, 784)) == expected).all()
    for convert in (lambda x: x.reshape(-1, 784), lambda x: x[..., None], lambda x: np.asfortranarray(x), lambda x: x.astype(np.float32),
                    lambda x: x.astype(np.float64), lambda x: x.astype(">f4"), lambda x: pd.DataFrame(x.reshape(-1, 784)).add_prefix("pixel")):
        other = LVQ(2, max_iter=6).fit(convert(train.images), train.labels)
        assert other.prototypes_.shape == (20, *convert(train.images).shape[1:])
        assert (other.predict(convert(others.images)) == expected).mean() > 0.995
    assert (LVQ(2, max_iter=6).fit(as_float(train.images), train.labels).predict(as_float(others.images)) == expected).mean() > 0.98


def test_digits_and_colours():
    digits = load_digits()
    model = LVQ(5).fit(digits.images[:1200], digits.target[:1200])
    assert model.prototypes_.shape == (50, 8, 8) and model.score(digits.images[1200:], digits.target[1200:]) > 0.9
    images, labels = some(14, shape=(4, 5, 3), n=200)
    model = LVQ(2).fit(images, labels)
    assert model.prototypes_.shape == (6, 4, 5, 3) and model.n_features_in_ == 60 and model.score(images, labels) > 0.6


def test_more_prototypes_than_images_and_tiny_classes():
    X = np.array([[0.], [0.], [-0.], [1.], [5.], [6.], [7.], [8.], [9.]])
    y = ["few"] * 4 + ["many"] * 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LVQ(3).fit(X, y)
        assert (model.prototype_labels_ == "few").sum() == 2 and (model.prototype_labels_ == "many").sum() == 3
        every = LVQ(100).fit(X, y)
        alone = LVQ(5).fit([[0.], [1.]], ["a", "b"])
        rare = LVQ(2, validation_fraction=0.5).fit(np.arange(12.)[:, None], [*"aaaaaaaaaaa", "b"])
    assert len(every.prototypes_) == 7 and every.predict(X).tolist() == y
    assert alone.predict([[-5.], [7.]]).tolist() == ["a", "b"] and rare.predict([[11.5]]).tolist() == ["b"]


def test_one_class_and_equal_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only = LVQ(2).fit(np.eye(3), ["only"] * 3)
        same = LVQ(2).fit(np.full((4, 3), 7), ["b", "a", "b", "a"])
    assert only.predict(np.ones((2, 3))).tolist() == ["only"] * 2 and only.n_iter_ == 0 and len(only.trace_) == 1
    assert same.prototypes_.tolist() == [[7, 7, 7]] * 2 and same.predict(np.ones((2, 3))).tolist() == ["a", "a"]


def test_seeds():
    images, labels = some(9, n=200)
    fits = [LVQ(4, random_state=seed).fit(images, labels).prototypes_ for seed in (0, 0, np.random.RandomState(0), 1, np.int64(1))]
    assert np.array_equal(fits[0], fits[1]) and np.array_equal(fits[0], fits[2]) and np.array_equal(fits[3], fits[4]) and not np.array_equal(fits[0], fits[3])
    LVQ(4, random_state=None).fit(images, labels)


@pytest.mark.parametrize("kind", [
    list, np.array, pd.Series, pd.Categorical, lambda y: pd.Series(pd.Categorical(y, ["c", "b", "a", "unused"])),
    lambda y: np.array(y, object), lambda y: pd.Series(y, index=range(100, 100 + len(y)))], ids=range(7))
def test_string_labels_of_every_kind(kind):
    images, labels = some(10)
    model = LVQ(3, max_iter=4).fit(images, kind(labels.tolist()))
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict(images).tolist() == LVQ(3, max_iter=4).fit(images, labels).predict(images).tolist()


@pytest.mark.parametrize("names", [[3, 1, 2], [0.0, 1.0, 2.0], np.array([5, 6, 7], np.int8), [True, False, True]])
def test_other_labels_come_back_as_they_were(names):
    images, letters = some(11)
    labels = np.asarray(names)[["bca".index(letter) for letter in letters]]
    predicted = LVQ(3, max_iter=4).fit(images, labels).predict(images)
    assert predicted.dtype == labels.dtype and set(predicted.tolist()) <= set(labels.tolist())


@pytest.mark.parametrize("name", ["n_prototypes", "max_iter", "n_iter_no_change"])
def test_counts_refused(name):
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"{name} must be from 1 .*got {wrong}"): LVQ(**{name: wrong}).fit(np.eye(4), [0, 0, 1, 1])
    for wrong in (2.0, "2", None, True, [2]):
        with pytest.raises(TypeError, match=f"{name} must be a whole number, got"): LVQ(**{name: wrong}).fit(np.eye(4), [0, 0, 1, 1])


@pytest.mark.parametrize("name", ["learning_rate", "validation_fraction"])
def test_shares_refused(name):
    for wrong in (-0.1, 1, 1.5, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"{name} must be from 0 to below 1, got"): LVQ(**{name: wrong}).fit(np.eye(4), [0, 0, 1, 1])
    for wrong in ("0.1", None, True, [0.1]):
        with pytest.raises(TypeError, match=f"{name} must be a number, got"): LVQ(**{name: wrong}).fit(np.eye(4), [0, 0, 1, 1])
    LVQ(**{name: np.float32(0.5)}, max_iter=2).fit(np.eye(4), [0, 0, 1, 1])


@pytest.mark.parametrize("X, y", [
    (np.zeros((3, 2, 2)), [0, 1]), (np.zeros((0, 2, 2)), []), (np.zeros((2, 0, 2)), [0, 1]), (np.zeros(3), [0, 1, 2]), (np.zeros((0, 4)), []),
    (np.full((2, 2, 2), np.nan), [0, 1]), (np.full((2, 2, 2), np.inf), [0, 1]), (np.zeros((2, 2)), [0, np.nan]), (np.eye(2), [0.5, 1.5]),
    (np.zeros((2, 2)), None), ([["a"], ["b"]], [0, 1]), (np.eye(2) + 1j, [0, 1])])
def test_fit_refuses(X, y):
    with pytest.raises(ValueError): LVQ().fit(X, y)


@pytest.mark.parametrize("factor", [1e200, 1.7e308, 1e-200, 5e-324])
def test_numbers_that_cannot_be_squared(factor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="X must hold numbers that can be squared, got a spread of"): LVQ().fit(factor * np.array([[0.], [1.], [1.], [1.]]), [0, 0, 1, 1])


def test_predict_refuses():
    images, labels = some(12)
    with pytest.raises(NotFittedError): LVQ().predict(images)
    model = LVQ(2, max_iter=2).fit(images, labels)
    for wrong in (images[:, :2], images.reshape(-1, 2, 3), images[0], images[:0], np.full((1, 3, 2), np.nan)):
        with pytest.raises(ValueError): model.predict(wrong)
    with pytest.raises(ValueError, match=r"X must have images of shape \(3, 2\), as in fit, got \(2, 3\)"): model.predict(images.reshape(-1, 2, 3))


def test_clone_and_pickle():
    images, labels = some(13)
    before = images.copy()
    model = LVQ(2, random_state=3).fit(images, labels)
    assert (pickle.loads(pickle.dumps(model)).predict(images) == model.predict(images)).all() and (images == before).all()
    assert clone(model).get_params() == {"n_prototypes": 2, "learning_rate": 0.2, "max_iter": 30, "validation_fraction": 0.1, "n_iter_no_change": 10, "random_state": 3}
    assert not hasattr(clone(model), "prototypes_")
