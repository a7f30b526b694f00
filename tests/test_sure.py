"""`reliability`, `coverage_at`, `PredictionSets`: loop oracles, the guarantee on synthetic data, scikit-learn's contract, refusals."""
import math
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.knn import KNN
from fashion_proto.sure import PredictionSets, _hold_back, _least_share, _thresholds, coverage_at, reliability


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
@parametrize_with_checks([PredictionSets(KNN(5)), PredictionSets(KNeighborsClassifier(5), by_class=True, coverage=0.8),
                          PredictionSets(LogisticRegression()), PredictionSets(LogisticRegression(), by_class=True)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


class Given(ClassifierMixin, BaseEstimator):
    "A classifier whose images are its probabilities."
    def fit(self, X, y):
        self.classes_, self.n_features_in_ = np.unique(y), np.shape(X)[1]
        return self

    def predict_proba(self, X): return np.asarray(X, float)
    def predict(self, X): return self.classes_[self.predict_proba(X).argmax(axis=1)]


def drawn(n, rng, k=4, step=None):
    "Probabilities and labels drawn by them; with `step`, probabilities that are multiples of it."
    p = rng.dirichlet(np.full(k, 0.5), n)
    y = (rng.random(n)[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    if step: p = np.round(p / step) * step
    return p, y


# The threshold

def naive_least(shares, coverage):
    "By a loop, with decimal fractions: the largest share that enough of them reach, one more counted as a miss."
    need = math.ceil((len(shares) + 1) * Decimal(str(coverage)))
    return max((s for s in shares if sum(t >= s for t in shares) >= need), default=-math.inf)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([0, .1, .2, .3, .5, 1]) | st.floats(0, 1), max_size=60), st.sampled_from([.01, .07, .1, .29, .3, .5, .57, .7, .8, .9, .95, .99, .999]))
def test_threshold_is_that_of_the_loop(shares, coverage):
    assert _least_share(np.array(shares, float), coverage) == naive_least(shares, coverage)


@pytest.mark.parametrize("coverage, enough", [(0.5, 1), (0.75, 3), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999), (0.7, 3)])
def test_too_few_images_promise_nothing(coverage, enough):
    shares = np.linspace(0.1, 1, 1000)
    assert _least_share(shares[:enough], coverage) == 0.1 and _least_share(shares[:enough - 1], coverage) == -np.inf
    p, y = drawn(enough - 1 or 1, np.random.default_rng(0))
    base = Given().fit(np.eye(4), range(4))
    if enough > 1: assert PredictionSets(base, coverage=coverage).calibrate(p, y).predict_set(np.eye(4)).all()


@pytest.mark.parametrize("n", [9, 10, 25, 100])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("by_class", [False, True])
def test_the_guarantee_holds_on_average_and_is_tight(n, coverage, by_class):
    rng, times, m, found = np.random.default_rng(n), 300, 50, []
    base = Given().fit(np.eye(4), range(4))
    for _ in range(times):
        p, y = drawn(n + m, rng)
        sets = PredictionSets(base, coverage=coverage, by_class=by_class).calibrate(p[:n], y[:n])
        found.append(sets.predict_set(p[n:])[range(m), y[n:]].mean())
    slack = 4 * np.std(found) / np.sqrt(times)
    assert np.mean(found) >= coverage - slack
    if not by_class: assert np.mean(found) <= coverage + 1 / (n + 1) + slack


def test_by_class_promises_to_each_class_where_one_threshold_does_not():
    rng, times = np.random.default_rng(0), 400
    base, found = Given().fit(np.eye(2), range(2)), {False: [], True: []}
    for _ in range(times):
        y = (rng.random(250) < 0.3).astype(int)
        p = rng.beta(np.where(y, 2, 8), np.where(y, 2, 1))                 # class 1 is hard
        p = np.where(y, p, 1 - p)
        p = np.column_stack([1 - p, p])
        for by in found:
            inside = PredictionSets(base, coverage=0.9, by_class=by).calibrate(p[:200], y[:200]).predict_set(p[200:])
            inside = inside[range(50), y[200:]]
            found[by].append([inside[y[200:] == c].mean() for c in (0, 1)])
    one, each = (np.nanmean(found[by], axis=0) for by in (False, True))
    assert one.min() < 0.86 and (each > 0.9 - 0.012).all(), (one, each)


def test_ties_are_let_in_and_err_on_the_safe_side():
    rng, found = np.random.default_rng(1), {None: [], 0.1: []}
    base = Given().fit(np.eye(4), range(4))
    for step in found:
        for _ in range(600):
            p, y = drawn(400, rng, step=step)
            found[step].append(PredictionSets(base, coverage=0.9).calibrate(p[:200], y[:200]).predict_set(p[200:])[range(200), y[200:]].mean())
    assert abs(np.mean(found[None]) - 0.9 - 0.0025) < 0.004 and np.mean(found[0.1]) > np.mean(found[None]) + 0.005
    sets = PredictionSets(base, coverage=0.5).calibrate(np.full((9, 4), 0.25), [0] * 9)
    assert sets.predict_set([[.25] * 4, [.24, .25, .26, .25]]).tolist() == [[True] * 4, [False, True, True, True]]


def test_ties_but_for_rounding_are_ties():
    base, third = Given().fit(np.eye(3), range(3)), 1 / 3
    sets = PredictionSets(base, coverage=0.5).calibrate(np.full((9, 3), np.nextafter(third, 1)), [0] * 9)
    assert sets.predict_set([[third, np.nextafter(third, 0), np.nextafter(third, 1)], [.3333, .3334, .3333]]).tolist() == [[True] * 3, [False, True, False]]
    X, y = np.array([[0.], [1], [2], [3]] * 8), [0, 1, 0, 1] * 8              # `KNN` raises the winner of a tie by a last bit
    sets = PredictionSets(KNN(32).fit(X, y), coverage=0.5).calibrate(X, y)
    assert sets.predict_set(X).all()


def test_sets_by_hand():
    base = Given().fit(np.eye(3), ["a", "b", "c"])
    p = np.array([[.6, .3, .1], [.2, .7, .1], [.5, .3, .2], [.1, .1, .8]])
    sets = PredictionSets(base, coverage=0.6).calibrate(p, ["a", "b", "b", "c"])           # shares .6 .7 .3 .8; the third largest
    assert sets.thresholds_.tolist() == [.6] * 3
    assert [s.tolist() for s in sets.sets(p)] == [["a"], ["b"], [], ["c"]]
    sets = PredictionSets(base, coverage=0.8).calibrate(p, ["a", "b", "b", "c"])
    assert [s.tolist() for s in sets.sets(p)] == [["a", "b"], ["b"], ["a", "b"], ["c"]]
    assert sets.predict_set(p).dtype == bool and sets.predict_set(p).shape == (4, 3)
    assert sets.predict(p).tolist() == ["a", "b", "a", "c"] and (sets.predict_proba(p) == p).all()
    by = PredictionSets(base, coverage=0.5, by_class=True).calibrate(p, ["a", "b", "b", "c"])
    assert by.thresholds_.tolist() == [.6, .3, .8]
    by.set_params(coverage=0.6).calibrate(p, ["a", "b", "b", "c"])
    assert by.thresholds_.tolist() == [-np.inf, .3, -np.inf]
    assert PredictionSets(base, coverage=0.5, by_class=True).calibrate(p[:1], ["a"]).thresholds_.tolist() == [.6, -np.inf, -np.inf]


# Fit

@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.floats(0.01, 0.99), st.integers(0, 99))
def test_hold_back_divides_and_keeps_a_class_of_each(y, part, seed):
    y = np.array(y)
    learn, held = _hold_back(y, part, np.random.RandomState(seed))
    assert sorted([*learn, *held]) == list(range(len(y))) and set(y[learn]) == set(y)
    assert len(held) == min(math.ceil(part * len(y)), len(y) - len(set(y))) and (np.diff(learn) > 0).all() and (np.diff(held) > 0).all()


def test_hold_back_draws_plainly():
    y, rng, times = np.arange(40) % 2, np.random.RandomState(0), 4000
    counts = sum(np.isin(np.arange(40), _hold_back(y, 0.25, rng)[1]) for _ in range(times))
    assert np.abs(counts / times - 0.25).max() < 0.03


def test_fit_is_a_clone_on_a_part_calibrated_with_the_rest():
    X, y = load_digits(return_X_y=True)
    X, y, Q, truth = X[:1300], y[:1300], X[1300:], y[1300:]
    for base in KNN(5), LogisticRegression(max_iter=30), make_pipeline(LogisticRegression(max_iter=30)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sets = PredictionSets(base, coverage=0.95, calibration_fraction=0.3, random_state=3).fit(X, y)
            assert not hasattr(base, "classes_") and sets.estimator_ is not base
            learn, held = _hold_back(y, 0.3, np.random.RandomState(3))
            other = PredictionSets(clone(base).fit(X[learn], y[learn]), coverage=0.95).calibrate(X[held], y[held])
        assert (sets.predict_set(Q) == other.predict_set(Q)).all() and (sets.thresholds_ == other.thresholds_).all()
        inside = sets.predict_set(Q)[range(len(Q)), truth]
        assert 0.88 < inside.mean() <= 1 and all(len(s) == n for s, n in zip(sets.sets(Q), sets.predict_set(Q).sum(axis=1)))
        for labels, proba in zip(sets.sets(Q[:50]), sets.predict_proba(Q[:50])):
            assert (np.diff(proba[labels]) <= 0).all()


def test_real_images_frames_and_other_kinds_of_input(fashion):
    images, labels = fashion[0].images[:1500], fashion[0].labels[:1500]
    sets = PredictionSets(KNN(9), coverage=0.8).fit(images, labels)
    rows = PredictionSets(KNN(9), coverage=0.8).fit(images.reshape(1500, -1), np.asarray(labels))
    assert (sets.predict_set(images) == rows.predict_set(images.reshape(1500, -1))).all() and sets.n_features_in_ == 784
    frame = pd.DataFrame(images.reshape(1500, -1)[:, 300:340]).add_prefix("p")
    named = PredictionSets(KNeighborsClassifier()).fit(frame, pd.Series(labels, index=frame.index[::-1]))
    assert named.feature_names_in_[0] == "p0" and named.predict_set(frame).shape == (1500, 10)
    named.set_params(estimator=KNN(9).fit(images, labels)).calibrate(images[:100], labels[:100])
    assert not hasattr(named, "feature_names_in_")
    words = ["black boot", "blue shirt", "black shoe", "white shirt"] * 100
    text = PredictionSets(make_pipeline(CountVectorizer(), LogisticRegression())).fit(words, ["foot", "top"] * 200)
    assert text.sets(["white shirt", "black boot"])[0].tolist() == ["top"]


@pytest.mark.parametrize("y", [[3, 7, -2], ["no", "yes", "maybe"], [True, False, True], pd.Categorical(["b", "a", "c"], ["c", "b", "a", "unused"]),
                               np.array(["b", "a", "c"], object), [1.0, 2.0, 3.0]])
def test_labels_of_any_kind(y):
    X, y = np.repeat(np.arange(3.0)[:, None] * 10, 30, axis=0), np.repeat(np.asarray(y), 30)
    sets = PredictionSets(KNN(3)).fit(X, y)
    assert all(set(found) == {label} or len(np.unique(y)) == 2 for found, label in zip(sets.sets(X), y))
    assert all(label in found for found, label in zip(sets.sets(X), y)) and list(sets.classes_) == sorted(set(y.tolist()))


def test_the_same_seed_gives_the_same_and_search_works():
    X, y = load_digits(return_X_y=True)
    a, b, c = (PredictionSets(KNeighborsClassifier(7), random_state=s).fit(X[:400], y[:400]).thresholds_[0] for s in (0, 0, 1))
    many = {PredictionSets(KNeighborsClassifier(7, weights="distance"), random_state=s).fit(X[:400], y[:400]).thresholds_[0] for s in range(4)}
    assert a == b and len(many) > 1
    grid = GridSearchCV(PredictionSets(KNeighborsClassifier()), {"estimator__n_neighbors": [1, 5]}, cv=3).fit(X[:300], y[:300])
    assert grid.best_score_ > 0.85 and cross_val_score(PredictionSets(KNN(3)), X[:300], y[:300], cv=3).mean() > 0.85


# Reliability and coverage_at

@pytest.mark.parametrize("step", [None, 0.1, 1 / 30])
@pytest.mark.parametrize("bins", [1, 3, 10, 17])
def test_reliability_is_that_of_the_loop(bins, step):
    p, y = drawn(700, np.random.default_rng(bins), step=step)
    p = p.clip(0, 1)
    table = reliability(y, p, bins=bins)
    rows = {}
    for label, row in zip(y, p):
        top = round(float(max(row)), 9)
        place = next(b for b in range(bins) if top <= round((b + 1) / bins, 9))
        rows.setdefault(place, []).append((top, row.argmax() == label))
    assert table["images"].tolist() == [len(rows[b]) for b in sorted(rows)] and table["images"].sum() == 700
    np.testing.assert_allclose(table["share"], [np.mean([t for t, _ in rows[b]]) for b in sorted(rows)])
    np.testing.assert_allclose(table["accuracy"], [np.mean([r for _, r in rows[b]]) for b in sorted(rows)])
    assert (table["low"] <= table["accuracy"] + 1e-12).all() and (table["high"] >= table["accuracy"] - 1e-12).all() and table["low"].min() > -1e-12


def test_reliability_band_holds_the_truth_as_often_as_it_says():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        right = rng.random(60) < 0.9
        table = reliability(np.where(right, 0, 1), np.tile([.9, .1], (60, 1)), classes=[0, 1])
        found.append(table["low"].iloc[0] <= 0.9 <= table["high"].iloc[0])
    assert 0.92 < np.mean(found) < 0.985


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([.5, .6, .7, .8, .9, 1]), st.booleans()), min_size=1, max_size=40), st.sampled_from([.5, .75, .9, .97, 1, 0.001]))
def test_coverage_at_is_that_of_the_loop(images, accuracy):
    p, y = np.array([[s, 1 - s] for s, _ in images]), np.array([int(not r) for _, r in images])
    best = np.inf, 0.0
    for t in sorted({s for s, _ in images}):
        some = [r for s, r in images if s >= t]
        if sum(some) >= accuracy * len(some):
            best = t, len(some) / len(images)
            break
    assert coverage_at(y, p, accuracy, classes=[0, 1]) == best


# Refusals

P = np.array([[.2, .8], [.6, .4], [.5, .5]])


@pytest.mark.parametrize("call", [lambda y, p, **k: reliability(y, p, **k), lambda y, p, **k: coverage_at(y, p, 0.9, **k)], ids=["reliability", "coverage_at"])
def test_bad_shares_and_labels(call):
    call([0, 1, 1], P), call(["a", "b", "a"], P.tolist(), classes=["b", "a"])
    for y, p, options, message in [([0, 1, 1], np.where(P == .8, np.nan, P), {}, "proba must be finite, got 1 NaN"), ([0, 1], P, {}, "proba must have a row"),
                                   ([0, 1, 1], P[:, 0], {}, "proba must have a row"), ([[0, 1, 1]], P, {}, "proba must have a row"),
                                   ([0, 1, 2], P, {}, "classes must be 2 different"), ([0, 0, 0], P, {}, "classes must be 2 different"),
                                   ([0, 1, 2], P, {"classes": [0, 1]}, "y must be among the classes .0, 1., got 2"), ([0, 1, 1], P, {"classes": [1, 1]}, "classes must be 2 different"),
                                   ([0, 1, np.nan], P, {"classes": [0, 1]}, "y must be among"), ([], np.empty((0, 2)), {"classes": [0, 1]}, "proba must not be empty")]:
        with pytest.raises(ValueError, match=message): call(y, p, **options)
    with pytest.raises(TypeError, match="proba must be numbers"): call([0, 1, 1], P.astype(str))


def test_bad_parameters():
    for bad, error in [(0, ValueError), (1, ValueError), (90, ValueError), (-.1, ValueError), (np.nan, ValueError), ("0.9", TypeError), (None, TypeError), (True, TypeError)]:
        for name in "coverage", "calibration_fraction":
            with pytest.raises(error, match=f"{name} must be .*got"): PredictionSets(KNN(1), **{name: bad}).fit(P, [0, 1, 1])
        if bad != 1 or bad is True:
            with pytest.raises(error, match="accuracy must be .*got"): coverage_at([0, 1, 1], P, bad)
    for bins, error in [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="bins must be"): reliability([0, 1, 1], P, bins=bins)
    with pytest.raises(ValueError, match="proba must be from 0 to 1, got .* to 24"): reliability([0, 1, 1], P * 30)
    PredictionSets(KNN(1), coverage=np.float32(0.5)).fit(P, [0, 1, 1])


def test_bad_estimators():
    X, y = np.arange(20.0)[:, None], np.arange(20) % 2
    for bad in LinearSVC(), LinearSVC().fit(X, y), None, "knn":
        for call in PredictionSets(bad).fit, PredictionSets(bad).calibrate:
            with pytest.raises(TypeError, match="estimator must have predict_proba, got"): call(X, y)
    with pytest.raises(NotFittedError): PredictionSets(KNN(3)).calibrate(X, y)
    for method in "predict", "predict_proba", "predict_set", "sets":
        with pytest.raises(NotFittedError): getattr(PredictionSets(KNN(3).fit(X, y)), method)(X)


def test_labels_and_probabilities_that_cannot_be_calibrated_with():
    base = Given().fit(np.eye(2), [0, 1])
    for X, y, message in [(P, [0, 1, 2], "y must be among the classes .0, 1., got 2"), (np.where(P == .5, np.nan, P), [0, 1, 1], "proba must be finite, got 2 NaN"),
                          (P, [0, 1], "inconsistent numbers"), (P, None, "y must be labels"), (P, [.1, .2, .3], "Unknown label type"), (np.ones((3, 5)), [0, 1, 1], "classes must be 5")]:
        with pytest.raises(ValueError, match=message): PredictionSets(base).calibrate(X, y)
    sets = PredictionSets(base).calibrate(P, [0, 1, 1])
    with pytest.raises(ValueError, match="predict_proba must be finite"): sets.predict_set([[np.nan, 1]])
    assert _thresholds(np.empty(0, int), np.empty((0, 3)), 0.5, True).tolist() == [-np.inf] * 3
