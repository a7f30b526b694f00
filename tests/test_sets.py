"""What a set hides, and what an image is worth: tests of tables of neighbours."""
from itertools import combinations
from math import comb

import numpy as np
import pytest
from fashion_proto.knn import KNN
from fashion_proto.sets import drift_test, noise_matrix, order_test, outliers, weak_groups
from fashion_proto.value import knn_shapley
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.datasets import load_digits


def table(points, k=None):
    return KNN(k or len(points) - 1).fit(points, np.zeros(len(points))).kneighbors()


# KNN-Shapley

def by_subsets(indices, labels, asked, k):
    "The value of each image by the definition: all subsets of the others."
    n = len(labels)
    def worth(some):
        return np.mean([sum(labels[i] == own for i in [i for i in row if i in some][:k]) / k for row, own in zip(indices, asked)])
    gains = np.zeros(n)
    known = {frozenset(some): worth(some) for size in range(n + 1) for some in combinations(range(n), size)}
    for i in range(n):
        for some in (some for some in known if i not in some):
            gains[i] += (known[some | {i}] - known[some]) / comb(n - 1, len(some)) / n
    return gains


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_shapley_is_that_of_all_subsets(k, n_queries, seed):
    rng = np.random.default_rng(seed)
    labels, asked = rng.integers(0, 3, 10), rng.integers(0, 3, n_queries)
    indices = np.array([rng.permutation(10) for _ in range(n_queries)])
    assert np.allclose(knn_shapley(indices, labels, asked, n_neighbors=k), by_subsets(indices, labels, asked, k), atol=1e-12)


def test_shapley_of_the_nearest_only_is_close(fashion):
    part, asked = fashion[0][:1500], fashion[0][1500:2000]
    indices = KNN(1500).fit(part.images, part.labels).kneighbors(asked.images)[1]
    exact = knn_shapley(indices, part.labels, asked.labels)
    match = (np.asarray(part.labels)[indices[:, :5]] == np.asarray(asked.labels)[:, None]).mean()
    assert np.isclose(exact.sum(), match)
    for m in (5, 20, 100):
        assert np.abs(knn_shapley(indices[:, :m], part.labels, asked.labels) - exact).max() < 1 / m
    with pytest.raises(ValueError, match="indices must hold the 5 nearest or more, got 4"): knn_shapley(indices[:, :4], part.labels, asked.labels)
    with pytest.raises(ValueError, match="labels must be one for each of"): knn_shapley(indices, part.labels, asked.labels[:3])
    with pytest.raises(TypeError, match="n_neighbors"): knn_shapley(indices, part.labels, asked.labels, n_neighbors=1.5)


def test_wrong_labels_have_low_values():
    images, labels = load_digits(return_X_y=True)
    rng, wrong = np.random.default_rng(0), np.random.default_rng(1).permutation(len(labels))[:90]
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 90)) % 10
    values = knn_shapley(table(images, 50)[1], labels, labels)
    lowest = np.argsort(values)[:90]
    assert np.isin(lowest, wrong).mean() > 0.9


# Tests of two sets, and of order

def test_p_values_of_drift_are_uniform_on_shuffled_splits():
    images, labels = load_digits(return_X_y=True)
    indices, rng = table(images[:900], 5)[1], np.random.default_rng(0)
    ps = [drift_test(indices, rng.permutation(900) < 300, n_permutations=99, random_state=seed).p for seed in range(300)]
    assert kstest(ps, "uniform").pvalue > 0.005 and np.mean(np.array(ps) <= 0.05) < 0.09


def test_drift_is_seen_and_leaks_are_no_drift():
    images, labels = load_digits(return_X_y=True)
    images = images[np.random.default_rng(0).permutation(len(images))]
    sets = np.arange(len(images)) < 900
    assert drift_test(table(images, 5)[1], sets).p > 0.01
    moved = images.copy()
    moved[900:, ::2] += 4
    told = drift_test(table(moved, 5)[1], sets)
    assert told.p == 1 / 500 and told.found > told.expected
    leaked = images.copy()
    leaked[900:1000] = leaked[:100]
    assert drift_test(table(leaked, 5)[1], sets).p > 0.05
    with pytest.raises(ValueError, match="sets must hold two values"): drift_test(table(images[:9])[1], np.arange(9))


def test_order():
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(images))
    assert order_test(table(images[rows], 5)[1]).p > 0.01
    told = order_test(table(images[np.argsort(labels, kind="stable")], 5)[1])
    assert told.p == 1 / 200 and told.found < told.expected / 2
    assert order_test(np.full((4, 2), 7)).p == 1                        # nobody is of this set
    for bad in ([1, 2], np.zeros((3, 2)), np.zeros((0, 2), int)):
        with pytest.raises(ValueError, match="indices must be a table"): order_test(bad)


# Outliers and groups

def test_outliers_by_class_and_alone():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(200, 5)), 20 + 4 * rng.normal(size=(200, 5)), [[9] * 5, [20] * 5]])
    labels = np.repeat([0, 1, 0, 1], [200, 200, 1, 1])
    found = outliers(table(points, 10)[0], labels)
    assert found["row"].iloc[0] == 400 and 401 not in found["row"].tolist() and (found["ratio"] > 1).all() and len(found) < 20
    assert (np.diff(found["ratio"]) <= 0).all()
    assert len(outliers(np.zeros((9, 3)))) == 0                         # copies of one image
    lonely = outliers(table(points, 10)[0], np.arange(402))             # classes of one image each
    assert set(lonely["row"]) == set(outliers(table(points, 10)[0])["row"])
    with pytest.raises(ValueError, match="distances must be a table"): outliers([1.0, 2.0])


def test_weak_groups_are_apart_and_weak():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(300, 3)), 30 + rng.normal(size=(60, 3))])
    right = np.r_[np.ones(300, bool), rng.random(60) < 0.3]
    found = weak_groups(table(points, 20)[1], right)
    members = np.concatenate(found["members"].tolist())
    assert len(members) == len(set(members)) and (members >= 300).all() and (found["wrong"] > 0.4).all() and found["wrong"].is_monotonic_decreasing
    assert len(weak_groups(table(points, 20)[1], np.ones(360, bool))) == 0 and len(weak_groups(table(points, 20)[1], np.zeros(360, bool))) == 0
    with pytest.raises(ValueError, match="right must be a table"): weak_groups(table(points, 20)[1], right[:5])


# Rates of wrong labels

@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("way", ["any class", "the next"])
def test_noise_is_within_its_band(rate, way):
    images, true = load_digits(return_X_y=True)
    indices, inside, bands = table(images, 50)[1], 0, []
    for seed in range(10):
        rng, labels = np.random.default_rng(seed), true.copy()
        wrong = rng.permutation(len(true))[:round(rate * len(true))]
        labels[wrong] = (labels[wrong] + (rng.integers(1, 10, len(wrong)) if way == "any class" else 1)) % 10
        told = noise_matrix(indices, labels, random_state=seed)
        cells = np.zeros((10, 10))
        np.add.at(cells, (true, labels), 1)
        truth = (cells / cells.sum(axis=1, keepdims=True)).ravel()
        bands.append(((told["low"] - 1e-9 <= truth) & (truth <= told["high"] + 1e-9)).mean())
        off = told[told["looks like"] != told["labelled"]]["images"].sum() / told["images"].sum()
        inside += abs(off - rate) < 2.6 * (rate * (1 - rate) / told["images"].sum())**0.5 + 0.005
    assert np.mean(bands) >= 0.9 and inside >= 8                         # bands of 95 %, of a few images each; two in ten may miss by chance


def test_noise_of_names_of_many_and_of_small_classes():
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(40, 5)) * 50, 12, axis=0) + rng.normal(size=(480, 5))
    labels = np.repeat([f"name {i}" for i in range(40)], 12)
    told = noise_matrix(table(points, 11)[1], labels)
    assert len(told) == 1600 and told[told["looks like"] == told["labelled"]]["share"].min() == 1
    with pytest.raises(ValueError, match="share must be above 0"): noise_matrix(table(points, 11)[1], labels, share=0)
