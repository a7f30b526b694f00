"""Samples, curves, and the power law: planted laws, coverage of the interval, its formula, refusals."""
import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier

from fashion_proto.data import LabelledImages
from fashion_proto.scaling import PowerLaw, eval_knn_sample, learning_curve, pred_error, with_time


@pytest.fixture(scope="module")
def parts(fashion):
    train, _ = fashion
    return train[:3000], train[3000:3500]


def test_with_time():
    result, seconds = with_time(lambda *args, **kwargs: (args, kwargs), 1, 2, f=3, n=4)
    assert result == ((1, 2), {"f": 3, "n": 4}) and 0 <= seconds < 1
    with pytest.raises(ZeroDivisionError): with_time(lambda: 1 / 0)


def test_a_sample_of_all_is_plain_knn(parts):
    train, valid = parts
    model = KNeighborsClassifier(1).fit(train.images.reshape(3000, -1).astype(float), train.labels.codes)
    expected = model.score(valid.images.reshape(500, -1).astype(float), valid.labels.codes)
    for seed in (0, 1, None, np.random.default_rng(0)):
        assert eval_knn_sample(train, valid, 3000, k=1, random_state=seed) == expected
    assert type(eval_knn_sample(train, valid, np.int64(100))) is float


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
def test_samples_are_drawn_without_replacement():
    "Each image has a label of its own, and is found among all only if all were drawn."
    data = LabelledImages(np.arange(50.)[:, None], np.arange(50))
    assert eval_knn_sample(data, data, 50, k=1) == 1
    for seed in range(5): assert eval_knn_sample(data, data, 20, k=1, random_state=seed) == 0.4


def test_seeds(parts):
    scores = [eval_knn_sample(*parts, 100, random_state=seed) for seed in (0, 0, 1, 2, 3)]
    assert scores[0] == scores[1] and len(set(scores)) > 2


def test_learning_curve(parts):
    curve = learning_curve(*parts, sizes=(n for n in (50, 200, 800)), k=3, seeds=iter([7, 8]))
    assert list(curve.columns) == ["n", "seed", "error", "seconds"]
    assert curve["n"].tolist() == [50, 50, 200, 200, 800, 800] and curve["seed"].tolist() == [7, 8] * 3
    assert curve["error"].tolist() == [1 - eval_knn_sample(*parts, n, 3, seed) for n, seed in zip(curve["n"], curve["seed"])]
    assert (curve["seconds"] > 0).all() and curve.groupby("n")["error"].mean().is_monotonic_decreasing


@pytest.mark.parametrize("n, error, match", [
    (0, ValueError, "n must be from k = 5 to the number of training images, 3000, got 0"), (4, ValueError, "got 4"), (3001, ValueError, "got 3001"),
    (-1, ValueError, "got -1"), (100., TypeError, "n must be a whole number, got 100.0"), (True, TypeError, "got True"), (None, TypeError, "got None"),
    ("100", TypeError, "got '100'")])
def test_sizes_refused_before_any_work(parts, n, error, match, monkeypatch):
    with pytest.raises(error, match=match): eval_knn_sample(*parts, n)
    monkeypatch.setattr("fashion_proto.scaling.KNN", None)
    with pytest.raises(error, match=match): learning_curve(*parts, [100, n])


def test_empty_and_bad_arguments_refused(parts):
    for kw in (dict(sizes=[]), dict(sizes=[100], seeds=[])):
        with pytest.raises(ValueError, match="sizes and seeds must be one or more"): learning_curve(*parts, **kw)
    with pytest.raises(ValueError, match="n_neighbors"): eval_knn_sample(*parts, 10, k=0)


def test_pred_error():
    assert pred_error(48_000, 0.1516, -0.5077) == pytest.approx(0.1372, abs=5e-5)
    assert np.isscalar(pred_error(4, 0.5, 0)) and pred_error(4, 0.5, 0) == 0.5
    assert pred_error(np.array([[1, 4], [16, 64]], np.uint8), 0.5, -1).tolist() == [[1/2, 1/4], [1/8, 1/16]]
    for n, error in [(0, ValueError), ([1, -2], ValueError), (np.nan, ValueError), (np.inf, ValueError), ("a", TypeError), (None, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="n must be"): pred_error(n, 1, 0)


@pytest.mark.parametrize("slope, intercept", [(0.15, -0.5), (1, 3), (0.01, -5), (-0.3, -4), (0, -1)])
@pytest.mark.parametrize("n", [[1, 2, 4], [200, 400, 800, 1600], [3, 1e9, 17, 3, 3]])
def test_recovers_a_planted_law(slope, intercept, n):
    law = PowerLaw().fit(n, pred_error(n, slope, intercept))
    assert law.slope_ == pytest.approx(slope, abs=1e-12) and law.intercept_ == pytest.approx(intercept, abs=1e-10)
    assert law.scatter_ < 1e-12
    np.testing.assert_allclose(law.predict([5, 48_000]), pred_error([5, 48_000], slope, intercept))
    np.testing.assert_allclose(law.interval(48_000), law.predict(48_000))


def test_equals_the_walk_on_a_straight_line():
    sizes = np.array([200, 400, 800, 1600])
    error = pred_error(sizes, 0.1516, -0.5077)
    law = PowerLaw().fit(sizes, error)
    slope = -np.diff(np.log2(error)).mean()
    assert law.slope_ == pytest.approx(slope) and law.intercept_ == pytest.approx((np.log2(error) + slope * np.log2(sizes)).mean())


def test_against_scipy():
    "Slope, intercept and the standard error of a new point, from another implementation in natural logarithms."
    rng = np.random.default_rng(0)
    n = rng.uniform(100, 5000, 15)
    error = 0.9 * n**-0.2 * np.exp(rng.normal(0, 0.1, 15))
    law, line = PowerLaw().fit(n, error), stats.linregress(np.log(n), np.log(error))
    assert law.slope_ == pytest.approx(-line.slope) and law.intercept_ == pytest.approx(line.intercept / np.log(2))
    X = np.column_stack([np.ones(15), np.log(n)])
    beta, rss, *_ = np.linalg.lstsq(X, np.log(error), rcond=None)
    x = np.array([1, np.log(48_000)])
    se = np.sqrt(rss[0] / 13 * (1 + x @ np.linalg.inv(X.T @ X) @ x))
    for level in (0.5, 0.95, 0.999):
        expected = np.exp(x @ beta + np.array([-1, 1]) * stats.t.ppf((1 + level) / 2, 13) * se)
        np.testing.assert_allclose(law.interval(48_000, level), expected)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("per_size", [1, 5])
def test_interval_covers(level, per_size):
    rng, hits = np.random.default_rng(1), 0
    n = np.repeat([200, 400, 800, 1600], per_size)
    for _ in range(2000):
        law = PowerLaw().fit(n, pred_error(n, 0.15, -0.5) * 2**rng.normal(0, 0.1, len(n)))
        low, high = law.interval(10_000, level)
        hits += low <= pred_error(10_000, 0.15, -0.5) * 2**rng.normal(0, 0.1) <= high
    assert abs(hits / 2000 - level) < 4 * (level * (1 - level) / 2000)**0.5


def test_interval_widens_with_distance_and_level():
    law = PowerLaw().fit([200, 400, 800, 1600], [.33, .28, .25, .22])
    low, high = law.interval([600, 6000, 60_000])
    assert (low < law.predict([600, 6000, 60_000])).all() and (np.diff(high / low) > 0).all()
    wide, narrow = law.interval(600, 0.99), law.interval(600, 0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_n_for_inverts_predict():
    law = PowerLaw().fit([200, 400, 800, 1600], [.33, .28, .25, .22])
    for n in (1, 777, 48_000, 10**9): assert law.n_for(law.predict(n)) == pytest.approx(n)
    np.testing.assert_allclose(law.predict(law.n_for([[.3, .1], [.01, 2.]])), [[.3, .1], [.01, 2.]])
    assert law.n_for(.01) > law.n_for(.1)


def test_out_of_reach():
    for law in (PowerLaw().fit([1, 2, 4], [.1, .2, .3]), PowerLaw().fit([1, 2, 4], [.2, .2, .2]),
                PowerLaw().fit([1, 2, 4], pred_error([1, 2, 4], 1e-4, -1))):
        with pytest.raises(ValueError, match="no number of images brings it to 0.05"): law.n_for([.09, .05])


def test_scale_of_error_does_not_matter():
    n, error = [200, 400, 800, 1600], np.array([.33, .28, .25, .22])
    a, b = PowerLaw().fit(n, error), PowerLaw().fit(pd.Series(n, index=list("abcd")), list(100 * error))
    assert a.slope_ == pytest.approx(b.slope_) and b.predict(48_000) == pytest.approx(100 * a.predict(48_000))
    np.testing.assert_allclose(b.interval(48_000), 100 * np.array(a.interval(48_000)))


@pytest.mark.parametrize("n, error, kind, match", [
    ([1, 2], [.5, .4], ValueError, "3 different values"), ([1, 2, 2, 1], [.5, .4, .4, .5], ValueError, r"3 different values or more, got \[1.0, 2.0\]"),
    ([], [], (ValueError, TypeError), "n must"), ([1, 2, 3], [.5, .4], ValueError, r"error must have shape \(3,\), as n, got \(2,\)"),
    ([1, 2, 3], [.5, .4, 0], ValueError, "error must be finite and above 0, got 0"), ([1, 2, 3], [.5, -.4, 1], ValueError, "got -0.4"),
    ([1, 2, 3], [.5, np.nan, .1], ValueError, "got nan"), ([1, 2, np.inf], [.5, .4, .3], ValueError, "n must be finite and above 0, got inf"),
    ([0, 1, 2], [.5, .4, .3], ValueError, "n must be finite and above 0, got 0"), (5, .1, ValueError, r"n must have a shape \(m,\), got \(\)"),
    ([[1, 2, 3]], [[.5, .4, .3]], ValueError, r"got \(1, 3\)"), (["a", "b", "c"], [.5, .4, .3], TypeError, "n must be numbers"),
    ([1, 2, 3], [None] * 3, TypeError, "error must be numbers"), ([1, 2, 3], [.1, .1, 1j], TypeError, "complex128")])
def test_fit_refuses(n, error, kind, match):
    with pytest.raises(kind, match=match): PowerLaw().fit(n, error)


def test_the_rest_refuses():
    for ask in (lambda x: x.predict(5), lambda x: x.interval(5), lambda x: x.n_for(.1)):
        with pytest.raises(NotFittedError, match="not fitted"): ask(PowerLaw())
    law = PowerLaw().fit([1, 2, 4], [.3, .2, .1])
    for level in (0, 1, -1, 95, np.nan):
        with pytest.raises(ValueError, match="level must be between 0 and 1"): law.interval(5, level)
    for ask, name in ((law.predict, "n"), (law.interval, "n"), (law.n_for, "error")):
        for bad in (0, -1, np.nan, np.inf, [1, 0]):
            with pytest.raises(ValueError, match=f"{name} must be finite and above 0"): ask(bad)


def test_a_failed_fit_keeps_the_law():
    law = PowerLaw().fit([1, 2, 4], [.4, .2, .1])
    with pytest.raises(ValueError): law.fit([1, 2, 4], [.4, .2, 0])
    assert law.predict(8) == pytest.approx(0.05)


def test_copies_and_pickles():
    law = PowerLaw().fit([1, 2, 4], [.4, .2, .1])
    for other in (copy.deepcopy(law), pickle.loads(pickle.dumps(law)), clone(law).fit([1, 2, 4], [.4, .2, .1])):
        assert other.interval(9) == law.interval(9)
