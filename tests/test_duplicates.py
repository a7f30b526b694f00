"""The counter of duplicates against comparing all pairs, and on planted copies."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fashion_proto.data import LabelledImages
from fashion_proto.duplicates import count_duplicates, find_duplicates


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=12),
       st.sampled_from(["uint8", "int16", "float32", "float64"]))
def test_against_all_pairs(a, b, dtype):
    x, y = (np.array(v, dtype).reshape(-1, 1, 1) * np.ones((1, 2, 3), dtype) for v in (a, b))
    groups = find_duplicates(x)
    assert {(i, j) for g in groups for i in g for j in g if i < j} == {(i, j) for i in range(len(a)) for j in range(len(a)) if i < j and a[i] == a[j]}
    assert [g[0] for g in groups] == sorted(g[0] for g in groups) and all((np.diff(g) > 0).all() for g in groups)
    across = find_duplicates(x, y)
    assert {(i, j) for g, h in across for i in g for j in h} == {(i, j) for i in range(len(a)) for j in range(len(b)) if a[i] == b[j]}


def test_values_not_bytes():
    assert [g.tolist() for g in find_duplicates(np.array([[0.0, 1], [-0.0, 1]]))] == [[0, 1]]
    (g, h), = find_duplicates(np.array([[1, 2]], np.uint8), np.array([[1.0, 2.0]]))
    assert g.tolist() == h.tolist() == [0]
    assert find_duplicates(np.array([[255]], np.uint8), np.array([[-1]], np.int8)) == []
    turned = np.arange(12, dtype=np.uint8).reshape(3, 4).T
    assert find_duplicates(turned) == [] and len(find_duplicates(np.r_[turned, turned])) == 4


def test_official_files_have_none(fashion):
    assert (count_duplicates(*fashion) == 0).all(axis=None)


def test_planted_in_the_real_data(fashion):
    train, test = fashion
    rng = np.random.default_rng(1)
    twice, shared = rng.choice(60000, 43, replace=False), rng.choice(60000, 10, replace=False)
    labels = list(train.labels) + list(train.labels[twice][:40]) + ["Bag" if label != "Bag" else "Coat" for label in train.labels[twice][40:]]
    got = count_duplicates(LabelledImages(np.concatenate([train.images, train.images[twice]]), labels),
                           LabelledImages(np.concatenate([test.images, test.images[:1], train.images[shared]]),
                                          list(test.labels) + list(test.labels[:1]) + list(train.labels[shared])))
    assert got.loc["within train"].tolist() == [43, 3] and got.loc["within test"].tolist() == [1, 0] and got.loc["across"].tolist() == [10, 0]


@pytest.mark.parametrize("images, other, error, message", [
    (np.zeros(3), None, ValueError, r"images must have 2 dimensions or more.*\(3,\)"),
    (np.zeros((2, 3)), np.zeros((2, 4)), ValueError, r"other must hold images of shape \(3,\)"),
    (np.array([["a"]]), None, TypeError, "images must be numbers"),
    (np.zeros((2, 3)), np.array([[None] * 3]), TypeError, "other must be numbers"),
    (np.zeros((1, 2), np.longdouble), None, TypeError, "up to 64 bits"),
    (np.array([[2**53 + 1]]), np.array([[2.0**53]]), TypeError, "compared exactly with int64, got float64"),
    (np.array([[2**53]]), np.array([[2**53 + 1]], np.uint64), TypeError, "compared exactly"),
    (np.full((2, 3), np.nan), None, ValueError, "NaN.*got 6")])
def test_refuses(images, other, error, message):
    with pytest.raises(error, match=message): find_duplicates(images, other)


def test_empty_sets():
    assert find_duplicates(np.empty((0, 28, 28))) == [] and find_duplicates(np.empty((0, 4)), np.ones((1, 4))) == []
