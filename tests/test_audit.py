"""The audit against loops and planted faults: pairs, groups, leaks, labels, the report in a browser, files of all kinds, refusals."""
import gzip
import json
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from fashion_proto import audit as module, copies, labels as leaks_and_labels
from fashion_proto.audit import audit, duplicate_groups, label_issues, leaks, near_duplicates, read_images
from fashion_proto.averages import AveragePrototypes
from fashion_proto.core.report import grey_levels, in_percent
from fashion_proto.data import LabelledImages
from fashion_proto.knn import KNN


def some(seed, n=60, shape=(6, 5), dtype=np.uint8):
    "Random images among which are copies: paler, inverted, flat, mirrored and moved ones."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (n, *shape)).astype(float)
    images[1] = images[0] * 0.5 + 10
    images[2] = 200 - images[0]
    images[3] = images[4] = 7
    images[5] = images[6][:, ::-1]
    images[7] = np.roll(images[8], (1, -1), (0, 1))
    images[9] = np.roll(images[10][:, ::-1], (0, 1), (0, 1))
    images[11] = images[12]
    return images.astype(dtype)


def correlation(a, b):
    a, b = (np.ravel(x).astype(float) - np.mean(x, dtype=float) for x in (a, b))
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return (a * b).sum() / size if size else 0.


def cosine(a, b):
    a, b = np.ravel(a).astype(float), np.ravel(b).astype(float)
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return (a * b).sum() / size if size else 0.


def best(a, b, flips, shifts, measure=correlation):
    "The greatest similarity of two images over all positions, with the windows in the first."
    high, wide = a.shape[:2]
    values = []
    for image in (a, a[:, ::-1]) if flips else (a,):
        values.append(measure(image, b))
        inner = b[shifts:high - shifts, shifts:wide - shifts]
        for y in range(2 * shifts + 1):
            for x in range(2 * shifts + 1):
                if (y, x) != (shifts, shifts):
                    values.append(measure(image[y:y + inner.shape[0], x:x + inner.shape[1]], inner))
    return max(values)


# near_duplicates

@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("flips, shifts", [(False, 0), (True, 0), (False, 1), (True, 1), (True, 2)])
def test_pairs_are_those_of_the_loop(dtype, flips, shifts):
    images = some(0, n=20, dtype=dtype)
    found = near_duplicates(images, threshold=0.6, flips=flips, shifts=shifts)
    loop = {(i, j): max(best(images[i], images[j], flips, shifts), best(images[j], images[i], flips, shifts))
            for i in range(len(images)) for j in range(i + 1, len(images))}
    expected = {pair: value for pair, value in loop.items() if value >= 0.6}
    assert set(zip(found["first"], found["second"])) == set(expected) and len(expected) > 2
    np.testing.assert_allclose(found["similarity"], [expected[pair] for pair in zip(found["first"], found["second"])], atol=1e-7)
    assert (np.diff(found["similarity"]) <= 0).all() and found["similarity"].max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_agreement_inside_is_that_of_the_loop(channels, dtype):
    "Things on paper, each of them in several pairs; one that differs nowhere from its ground."
    rng = np.random.default_rng(channels)
    images = np.full((12, 36, 32, channels), 200, dtype)
    images[:10, 6:30, 8:26] = rng.normal(100, 30, (10, 24, 18, channels)).clip(0, 255)
    images[4:8] = (0.7 * images[:4] + rng.normal(50, 5, images[:4].shape)).clip(0, 255)
    images[11] = rng.integers(0, 256, images[11].shape)          # no ground
    i, j = (side.ravel() for side in np.indices((12, 12)))

    def off(image):
        less = image.astype(float) - np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0)
        return less, (np.abs(less) > 0.1 * np.ptp(image.astype(float))).any(axis=2)

    def agree(one, other):
        (a, off_a), (b, off_b) = off(one), off(other)
        seen = np.pad(off_a & off_b, 1, mode="edge")
        both = np.all([seen[1 + down:37 + down, 1 + right:33 + right] for down in (-1, 0, 1) for right in (-1, 0, 1)], axis=0)
        a, b = a[both], b[both]
        moment = [sum(((x - x.mean(axis=0)) * (y - y.mean(axis=0))).sum(axis=0)) if len(x) else 0. for x, y in ((a, b), (a, a), (b, b))]
        grain = 0.03**2 * np.sqrt((a**2).sum() * (b**2).sum())
        return moment[0] + grain >= 0.5 * (np.sqrt(moment[1] * moment[2]) + grain)

    expected = [agree(images[p], images[q]) for p, q in zip(i, j)]
    assert copies._agree_inside(images, i, images, j).tolist() == expected and 30 < sum(expected) < 120
    apart = [off(image)[1] for image in images]
    grounded = [own[[0, -1]].mean() + own[:, [0, -1]].mean() <= 1 for own in apart]
    assert copies._has_ground(images, j).tolist() == [grounded[q] for q in j] and sum(grounded) == 11


@pytest.mark.parametrize("flips, shifts", [(False, 0), (True, 1)])
def test_pairs_across_two_sets(flips, shifts):
    images, other = some(1), some(1, n=40)[::-1]
    found = near_duplicates(images, other, threshold=0.6, flips=flips, shifts=shifts)
    expected = {(i, j) for i, a in enumerate(images) for j, b in enumerate(other) if max(best(a, b, flips, shifts), best(b, a, flips, shifts)) >= 0.6}
    assert set(zip(found["first"], found["second"])) == expected and len(expected) >= 13
    back = near_duplicates(other, images, threshold=0.6, flips=flips, shifts=shifts)
    assert {(j, i): s for i, j, s in zip(back["first"], back["second"], back["similarity"])} == pytest.approx(
        {(i, j): s for i, j, s in zip(found["first"], found["second"], found["similarity"])})


def test_position_leads_from_the_first_to_the_second():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (9, 8)).astype(np.uint8)
    for mirrored in (False, True):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                other = np.roll(image[:, ::-1] if mirrored else image, (down, right), (0, 1))
                for pair in ((image, other), (other, image)):
                    row, = near_duplicates(np.stack(pair), threshold=0.99, flips=True, shifts=1).itertuples()
                    first = pair[0][:, ::-1] if row.mirrored else pair[0]
                    np.testing.assert_array_equal(np.roll(first, (row.down, row.right), (0, 1))[1:-1, 1:-1], pair[1][1:-1, 1:-1])
                    assert row.mirrored == mirrored and row.similarity == pytest.approx(1)
                row, = near_duplicates(image[None], other[None], threshold=0.99, flips=True, shifts=1).itertuples()
                assert (row.mirrored, row.down, row.right) == (mirrored, down, right)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.8, 1.0]), st.booleans())
def test_vectors_by_their_cosine(seed, threshold, whole):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (25, 4)).astype(np.int8 if whole else np.float64)
    found = near_duplicates(rows, threshold=threshold)
    expected = {(i, j) for i in range(25) for j in range(i + 1, 25) if cosine(rows[i], rows[j]) >= threshold - 1e-12}
    assert set(zip(found["first"], found["second"])) == expected
    by_pattern = near_duplicates(rows, threshold=threshold, metric="correlation")
    assert set(zip(by_pattern["first"], by_pattern["second"])) == {
        (i, j) for i in range(25) for j in range(i + 1, 25) if correlation(rows[i], rows[j]) >= threshold - 1e-12}


def test_colours_and_brightness():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 200, (30, 8, 8, 3))
    images[1] = images[0][:, ::-1]
    images[2] = images[0] // 2
    images[3] = images[0][..., ::-1]                           # other colours
    found = near_duplicates(images.astype(np.uint8), threshold=0.99, flips=True)
    assert set(zip(found["first"], found["second"])) == {(0, 1), (0, 2), (1, 2)}


def test_no_pairs_and_one_image():
    found = near_duplicates(np.random.default_rng(0).normal(size=(9, 4, 4)), threshold=1)
    assert len(found) == 0 and list(found) == ["first", "second", "similarity", "mirrored", "down", "right"]
    assert len(near_duplicates(np.ones((1, 4, 4)))) == 0
    assert len(near_duplicates(np.ones((5, 4, 4)))) == 0       # flat: no pattern


@pytest.mark.parametrize("scale, plus", [(1e-30, 0), (1e30, 0), (1, 1e9), (255, 0), (1e200, 0), (1e-200, 0), (1e-305, 0), (-1, 0)])
def test_scale_and_offset_do_not_matter(scale, plus):
    images = some(4, dtype=np.float64)
    before, after = (near_duplicates(x, threshold=0.7) for x in (images, images * scale + plus))
    assert set(zip(before["first"], before["second"])) == set(zip(after["first"], after["second"]))


def test_single_precision_to_its_ends():
    images = some(4, dtype=np.float32)
    pairs = set(zip(*near_duplicates(images, threshold=0.7)[["first", "second"]].to_numpy().T))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1e36, -1.7e36, 1e-36):
            assert set(zip(*near_duplicates(images * np.float32(scale), threshold=0.7)[["first", "second"]].to_numpy().T)) == pairs


def test_threads_do_not_matter(fashion):
    images = fashion[0].images[:4000]
    one, two = (near_duplicates(images, threshold=0.96, flips=True, n_jobs=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    rows = images.reshape(len(images), -1).astype(float)
    table = np.corrcoef(rows)
    np.fill_diagonal(table, 0)
    plain = one[~one["mirrored"]]
    assert len(near_duplicates(images, threshold=0.96)) == (table >= 0.96).sum() // 2 >= len(plain) > 300


def test_planted_copies_of_garments(fashion):
    images, rng = fashion[0].images[:4000], np.random.default_rng(7)
    rows = rng.choice(len(images), 1200, replace=False)
    grain, pale, moved, turned = np.split(images[rows].astype(float), 4)
    copies = [grain + rng.normal(0, 8, grain.shape), pale * rng.uniform(0.6, 1.4, (300, 1, 1)), np.roll(moved, (-1, 1), (1, 2)), turned[:, :, ::-1]]
    both = np.concatenate([images, np.concatenate(copies).round().clip(0, 255).astype(np.uint8)])
    found = near_duplicates(both, flips=True, shifts=1)
    pairs = set(zip(found["first"], found["second"]))
    caught = np.array([(row, 4000 + i) in pairs for i, row in enumerate(rows)])
    assert (caught.reshape(4, 300).mean(axis=1) >= 0.985).all()
    plain = near_duplicates(both)
    assert set(zip(plain["first"], plain["second"])) <= pairs


@pytest.mark.parametrize("images, more, error, match", [
    (np.zeros((0, 4, 4)), {}, ValueError, "images must not be empty"), (np.zeros(4), {}, ValueError, "images must have a row for each"),
    (np.full((3, 4, 4), np.nan), {}, ValueError, "images must be finite"), (np.full((3, 4, 4), np.inf), {}, ValueError, "images must be finite"),
    (np.full((3, 4), "a"), {}, TypeError, "images must be numbers"), (np.zeros((3, 4, 4)), {"other": np.zeros((3, 4, 5))}, ValueError, "other must hold images of shape"),
    (np.zeros((3, 4, 4)), {"threshold": 0}, ValueError, "threshold must be above 0"), (np.zeros((3, 4, 4)), {"threshold": 1.01}, ValueError, "threshold must be above 0"),
    (np.zeros((3, 4, 4)), {"threshold": float("nan")}, ValueError, "threshold must be above 0"), (np.zeros((3, 4, 4)), {"threshold": "high"}, TypeError, "threshold must be a number"),
    (np.zeros((3, 4, 4)), {"shifts": 2}, ValueError, "shifts must be from 0 to 1"), (np.zeros((3, 4, 4)), {"shifts": -1}, ValueError, "shifts must be from 0 to 1"),
    (np.zeros((3, 4, 4)), {"shifts": 1.0}, TypeError, "shifts must be a whole number"), (np.zeros((3, 4, 4)), {"flips": 1}, TypeError, "flips must be True or False"),
    (np.zeros((3, 4)), {"flips": True}, ValueError, "flips and shifts must be left out for vectors"), (np.zeros((3, 4)), {"shifts": 1}, ValueError, "flips and shifts must be left out"),
    (np.zeros((3, 4, 4)), {"metric": "euclidean"}, ValueError, "metric must be one of"), (np.zeros((3, 4, 4)), {"n_jobs": 0}, ValueError, "n_jobs"),
])
def test_near_duplicates_refuses(images, more, error, match):
    with pytest.raises(error, match=match): near_duplicates(images, **more)


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(copies, "_MOST_PAIRS", 100)
    with pytest.raises(ValueError, match="threshold must be so high that no more than 100 pairs"):
        near_duplicates(np.tile(np.arange(12.).reshape(1, 3, 4), (60, 1, 1)))


# duplicate_groups

@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda pair: pair[0] != pair[1]), max_size=40))
def test_groups_have_a_representative_and_are_apart(links):
    groups = duplicate_groups(pd.DataFrame(links, columns=["first", "second"], dtype=int))
    linked = {frozenset(pair) for pair in links}
    rows = [row for group in groups for row in group]
    assert len(rows) == len(set(rows)) and all(len(group) > 1 for group in groups)
    assert all(frozenset((group[0], row)) in linked for group in groups for row in group[1:])
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    kept = set(range(15)) - {row for group in groups for row in group[1:]}
    assert not any(pair <= kept for pair in linked)            # whoever keeps these keeps no pair


def test_groups_refuse():
    with pytest.raises(ValueError, match="lacks second"): duplicate_groups(pd.DataFrame({"first": [1]}))
    assert duplicate_groups(pd.DataFrame(columns=["first", "second"])) == []
    with pytest.raises(TypeError, match="row numbers, got dtype float64"): duplicate_groups(pd.DataFrame({"first": [1.5], "second": [2]}))
    with pytest.raises(ValueError, match="two images each"): duplicate_groups(pd.DataFrame({"first": [1], "second": [1]}))


# leaks

def two_sets(seed=0, n=80, m=50):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 200, (3, 5, 5))
    def draw(k):
        codes = rng.integers(0, 3, k)
        return (centres[codes] + rng.normal(0, 45, (k, 5, 5))).clip(0, 255).astype(np.uint8), np.array(["a", "b", "c"])[codes]
    (images, labels), (tests, names) = draw(n), draw(m)
    tests[:5] = images[10:15] // 2 + 20
    names[:5] = labels[10:15]
    names[1] = "a" if labels[11] != "a" else "b"
    return LabelledImages(images, labels), LabelledImages(tests, names)


def test_leaks_are_told_with_their_labels():
    train, test = two_sets()
    images, accuracy = leaks(train, test, threshold=0.99)
    twins = images.set_index("test").loc[range(5)]
    assert twins["train"].tolist() == [10, 11, 12, 13, 14] and twins["agree"].tolist() == [True, False, True, True, True]
    assert (images["agree"] == (images["test_label"] == images["train_label"])).all() and images["test"].is_unique
    assert accuracy["method"].tolist() == ["averages"] * 2 + ["5 neighbours"] * 2


def test_effect_of_leaks_is_that_of_the_loop():
    train, test = two_sets(1)
    images, accuracy = leaks(train, test, threshold=0.99)
    pairs = near_duplicates(train.images, test.images, threshold=0.99)
    kept, fresh = (np.setdiff1d(np.arange(len(part)), pairs[side]) for part, side in ((test, "second"), (train, "first")))
    known, truth = np.asarray(train.labels), np.asarray(test.labels)
    for i, model in enumerate((AveragePrototypes(), KNN(5))):
        right = model.fit(train.images, known).predict(test.images) == truth
        again = model.fit(train.images[fresh], known[fresh]).predict(test.images) == truth
        first, second = accuracy.iloc[2 * i], accuracy.iloc[2 * i + 1]
        assert first["before"] == second["before"] == pytest.approx(right.mean())
        assert first["after"] == pytest.approx(right[kept].mean()) and second["after"] == pytest.approx(again.mean())
        assert first["images"] == len(test) - len(kept) and second["images"] == len(train) - len(fresh)
        step = again.astype(float) - right
        assert second["band"] == pytest.approx(2 * step.std() / len(step)**0.5)


def test_band_of_left_out_images_is_that_of_many_draws():
    rng = np.random.default_rng(0)
    kept, right = rng.random(400) < 0.8, np.zeros(400, bool)
    right[kept], right[~kept] = rng.random(kept.sum()) < 0.7, rng.random((~kept).sum()) < 0.95
    change, band = leaks_and_labels._change_without(right, kept)
    draws = rng.integers(0, 400, (4000, 400))
    changes = [right[rows][kept[rows]].mean() - right[rows].mean() for rows in draws]
    assert change == pytest.approx(right[kept].mean() - right.mean()) and band == pytest.approx(2 * np.std(changes), rel=0.08)


def test_no_leaks_and_only_leaks():
    train, _ = two_sets()
    far = LabelledImages(np.random.default_rng(9).integers(0, 256, (10, 5, 5)).astype(np.uint8), ["a", "b"] * 5)
    images, accuracy = leaks(train, far, threshold=0.999)
    assert len(images) == 0 and (accuracy["change"] == 0).all() and (accuracy["band"] == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, accuracy = leaks(train, train, threshold=0.999)
    assert len(images) == len(train) and accuracy["after"].isna().any()


def test_leaks_refuse():
    train, test = two_sets()
    with pytest.raises(TypeError, match="train must have images and labels"): leaks(train.images, test)
    with pytest.raises(ValueError, match="n_neighbors must be from 1 to"): leaks(train, test, n_neighbors=81)
    with pytest.raises(TypeError, match="test.labels must be of the kind of train.labels, str, got int"):
        leaks(train, LabelledImages(test.images, np.arange(len(test)) % 3))
    with pytest.raises(ValueError, match="test must hold images of shape"): leaks(train, LabelledImages(test.images[:, 1:], test.labels))
    class Gaps: images, labels = train.images, [None, *["a"] * 79]
    with pytest.raises(ValueError, match="train.labels must not be missing, got 1"): leaks(Gaps, test)


# label_issues

def wrong(labels, share, seed):
    rng = np.random.default_rng(seed)
    labels, rows = np.array(labels), rng.choice(len(labels), round(share * len(labels)), replace=False)
    classes = np.unique(labels)
    codes = np.searchsorted(classes, labels[rows])
    labels[rows] = classes[(codes + rng.integers(1, len(classes), len(rows))) % len(classes)]
    return labels, np.isin(np.arange(len(labels)), rows)


@pytest.mark.parametrize("kind", ["int", "str", "categorical"])
def test_planted_errors_among_digits(kind):
    digits = load_digits()
    labels, planted = wrong(digits.target, 0.05, 0)
    given_ = {"int": labels, "str": labels.astype(str), "categorical": pd.Categorical(labels.astype(str))}[kind]
    table = label_issues(digits.images, given_)
    assert average_precision_score(planted[table.index], table["doubt"]) > 0.93
    assert sorted(table.index) == list(range(len(labels))) and (np.diff(table["doubt"]) <= 0).all()
    assert (table["label"].to_numpy() == np.asarray(given_)[table.index]).all() and (table["label"] != table["suggested"]).all()
    first = table[planted[table.index]].head(50)
    assert (first["suggested"].astype(int) == digits.target[first.index]).mean() > 0.95
    for row in table.head(20).itertuples():
        assert all(np.asarray(given_)[j] == row.suggested and j != row.Index for j in row.accusers) and len(row.accusers) <= 5


@pytest.mark.parametrize("metric", [None, "euclidean", "cosine", "manhattan", "correlation"])
def test_vectors_and_metrics(metric):
    digits = load_digits()
    labels, planted = wrong(digits.target, 0.05, 1)
    table = label_issues(digits.data, labels, metric=metric, n_neighbors=15)
    assert average_precision_score(planted[table.index], table["doubt"]) > 0.85
    assert table["p_label"].between(0, 1).all() and table["p_suggested"].between(0, 1).all()
    assert (table["suspect"] == ((table["p_label"] < 0.05) & (table["p_suggested"] > 0.9))).all()


def test_garments_do_better_than_the_plain_vote(fashion):
    train = fashion[0][:6000]
    labels, planted = wrong(np.asarray(train.labels), 0.02, 2)
    table = label_issues(train.images, labels)
    _, indices = KNN(51, metric="cosine").fit(train.images - train.images.mean(axis=(1, 2), keepdims=True), labels).kneighbors(n_neighbors=50)
    plain = (labels[indices] != labels[:, None]).mean(axis=1)
    ours, theirs = average_precision_score(planted[table.index], table["doubt"]), average_precision_score(planted, plain)
    assert ours > 0.7 and ours > theirs + 0.1


def test_the_answers_do_not_depend_on_threads_or_order():
    digits = load_digits()
    one, two = (label_issues(digits.images, digits.target, n_jobs=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    back = label_issues(digits.images[::-1], digits.target[::-1])
    last = len(digits.target) - 1
    np.testing.assert_allclose(one.sort_index()["p_label"], back.sort_index()["p_label"][::-1], atol=0.02)
    assert len(set(one.index[:20]) & set(last - back.index[:20])) >= 18


def test_copies_and_tiny_sets():
    table = label_issues(np.zeros((6, 3)), list("aabbab"))     # all equal
    assert len(table) == 6 and np.isfinite(table["doubt"]).all()
    table = label_issues([[0.], [1.], [10.], [11.]], ["a", "a", "b", "b"], n_neighbors=1)
    assert np.isfinite(table["doubt"]).all()
    assert len(label_issues([[0.], [1.]], ["a", "b"])) == 2


@pytest.mark.parametrize("labels, more, error, match", [
    (["a"] * 4, {}, ValueError, "labels must be of two classes or more, got only"), (["a", "b", None, "a"], {}, ValueError, "labels must not be missing, got 1 that are, the first in row 2"),
    ([0, 1, float("nan"), 1], {}, ValueError, "labels must not be missing"), (["a", "b"], {}, ValueError, "labels must be one for each of 4"),
    (["a", "b", float("nan"), "a"], {}, ValueError, "labels must not be missing, got 1 that are, the first in row 2"),
    (["a", 1, "b", 2], {}, TypeError, "labels must be all strings or all numbers"), (np.zeros(4, "V3"), {}, TypeError, "labels must be strings or numbers"),
    (list("abab"), {"n_neighbors": 4}, ValueError, "n_neighbors must be from 1"), (list("abab"), {"n_neighbors": 0}, ValueError, "n_neighbors must be from 1"),
    (list("abab"), {"n_neighbors": 2.0}, TypeError, "n_neighbors must be a whole number"), (list("abab"), {"metric": "hamming"}, ValueError, "metric must be one of"),
])
def test_label_issues_refuses(labels, more, error, match):
    with pytest.raises(error, match=match): label_issues(np.arange(16.).reshape(4, 2, 2), labels, **more)


# audit and its report

@pytest.fixture(scope="module")
def found(fashion):
    train = fashion[0]
    part, exam = train[:3000], train[3000:3600]
    copies = np.concatenate([part.images[:3, :, ::-1], part.images[3:6] // 2 + 30])
    return audit(part, LabelledImages(np.concatenate([exam.images, copies, part.images[6:7]]), [*exam.labels, *part.labels[:7]]), flips=True)


def test_audit_counts_what_was_planted(found):
    assert found.duplicates.loc["across", "repeats"] == 1 and found.nearest.shape == (3607,) and found.counts.loc["exact repeats", "found"] == 1
    caught = found.leaks.images.set_index("test")
    assert caught.loc[range(600, 607), "train"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert found.counts.loc["leaked test images", "found"] == len(caught) and found.counts.loc["near duplicates", "found"] == len(found.near)
    across = found.near[(found.near["first_set"] == "train") & (found.near["second_set"] == "test")]
    assert set(zip(across["first"], across["second"])) >= {(i, 600 + i) for i in range(7)}
    assert set(found.issues["set"]) == {"train", "test"} and found.issues[found.issues["set"] == "test"]["row"].max() == 606
    assert "leaks " in repr(found) and "test images that training has, too" in repr(found)


def test_report_is_one_file_that_asks_for_nothing(found, tmp_path, browser):
    path = tmp_path / "report.html"
    found.save(path)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5_000_000 and "http" not in text.replace("http://www.w3.org", "") and [p.name for p in tmp_path.iterdir()] == ["report.html"]
    for width in (1280, 360):
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked, wrongs = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrongs.append(message.text))
        page.goto(path.as_uri())
        assert all(url.startswith(("file:", "data:")) for url in asked) and not wrongs
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.querySelectorAll('figure img, .chart img')].every(image => image.complete && image.naturalWidth > 0 && image.alt)")
        assert page.locator("figure").count() > 40 and page.locator("h2").all_inner_texts() == [
            "Copies", "Leaks", "Labels", "Classes confused", "Weak groups", "What images are worth", "Outliers", "Images by themselves", "The sets",
            "How this was made"]
        assert page.evaluate("Math.min(...[...document.querySelectorAll('figcaption, td, p')].map(e => parseFloat(getComputedStyle(e).fontSize)))") >= 12
        page.close()


def test_report_in_jupyter_is_that_of_the_file(found, tmp_path):
    found.save(tmp_path / "report.html")
    inner, whole = (re.sub(r"(</?h)\d|(details) open", r"\1\2", page) for page in (found._repr_html_().split("</style>")[1], (tmp_path / "report.html").read_text(encoding="utf-8")))
    assert inner in whole                                                # but for the level of its headings, and unfolded


def test_labels_cannot_break_the_page(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    report = audit(LabelledImages(images, np.array(["<b>x</b>", '"&'] * 20)))
    page = report._repr_html_()
    assert "<b>x</b>" not in page and "&lt;b&gt;x" in page


@pytest.mark.parametrize("shape, says", [((8,), "Vectors have no pictures"), ((8, 8, 3), "normalised correlation"), ((8, 8, 2), "normalised correlation"), ((6, 5), "normalised")])
@pytest.mark.parametrize("with_test", [False, True])
def test_audit_of_other_kinds(shape, says, with_test):
    rng = np.random.default_rng(0)
    def draw(n): return LabelledImages(rng.normal(size=(n, *shape)), rng.integers(0, 3, n))
    report = audit(draw(30), draw(20) if with_test else None)
    page = report._repr_html_()
    assert says in page and ("data:image/png" in page) and (report.leaks is None) == (not with_test)
    assert ("There is no second set" in page) != with_test


def test_repeats_are_counted_once_and_dtypes_are_joined():
    a = np.random.default_rng(0).integers(0, 255, (8, 4, 4))
    report = audit(LabelledImages(a.astype(np.int64), list("ab") * 4), LabelledImages(np.stack([a[0], a[0]]).astype(float), ["a", "a"]))
    assert report.counts.loc["exact repeats", "found"] == 2 and report.duplicates.loc["across", "repeats"] == 2


@pytest.mark.parametrize("shape, dtype", [((1, 1), np.uint8), ((1, 5, 3), np.uint8), ((4, 4), np.int8), ((4, 4, 1), float), ((4, 4, 4), float), ((4, 4), bool)])
def test_pictures_of_all_shapes(shape, dtype, tmp_path):
    images = (np.random.default_rng(0).normal(size=(30, *shape)) * 100).astype(dtype)
    report = audit(LabelledImages(images, [2020, 7] * 15))
    report.save(tmp_path / "r.html")
    assert "2,020" not in report._repr_html_() and ("are not drawn" in report._repr_html_()) == (shape == (4, 4, 4))


def test_ink_and_light_are_drawn_on_one_scale():
    dark = grey_levels(np.array([[[0, 0, 0, 255]] * 4] * 9, np.uint8))
    assert dark(np.array([[0, 255]], np.uint8)).tolist() == [[255, 0]]            # ink on paper
    bright = grey_levels(np.full((9, 4, 4), 200, np.uint8))
    assert bright(np.array([[0, 255]], np.uint8)).tolist() == [[0, 255]]
    signed = grey_levels(np.array([[[-100, 0, 100, 100]]], np.int8))
    assert signed(np.array([[-100, 0, 100]], np.int8)).tolist() == [[0, 128, 255]]


def test_audit_refuses_and_writes_nothing(found, tmp_path):
    with pytest.raises(ValueError, match="test must hold images of shape"):
        audit(LabelledImages(np.zeros((4, 3, 3)), list("abab")), LabelledImages(np.zeros((4, 3, 4)), list("abab")))
    with pytest.raises(ValueError, match="train must hold two images or more, got 1"): audit(np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="threshold must be above 0"): audit(np.eye(4), threshold=0)
    with pytest.raises(FileNotFoundError, match="path must be in an existing folder"): found.save(tmp_path / "no" / "report.html")
    with pytest.raises(IsADirectoryError, match="path must be a file"): found.save(tmp_path)
    with pytest.raises(TypeError, match="path must be a str"): found.save(3)
    assert list(tmp_path.iterdir()) == []


# read_images and the command

@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        file = tmp_path / "photos" / ["cat", "dog"][i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


def test_folder(folder):
    data = read_images(folder)
    assert data.images.shape == (24, 12, 10) and data.images.dtype == np.uint8 and list(data.labels[:12]) == ["cat"] * 12
    (folder / ".DS_Store").write_text("x")
    (folder / "cat" / ".hidden").write_text("x")
    Image.new("RGB", (10, 12), "red").save(folder / "dog" / "red.jpg")
    data = read_images(folder)
    assert data.images.shape == (25, 12, 10, 3) and data.images[-1][0, 0, 0] > 200
    Image.new("L", (20, 20)).save(folder / "dog" / "large.png")
    with pytest.raises(ValueError, match=r"one size, or be read with size=\(height, width\), got 2 sizes: 12 x 10 \(25\), 20 x 20 \(1\)"): read_images(folder)
    assert read_images(folder, size=(6, 7)).images.shape == (26, 6, 7, 3)


def test_folder_with_transparency_turned_and_hidden_files(folder):
    ring = Image.new("RGBA", (10, 12), (0, 0, 0, 0))
    ring.paste((0, 0, 0, 255), (2, 2, 6, 6))
    ring.save(folder / "cat" / "ring.png")
    turned = Image.new("L", (12, 10), 0)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "dog" / "turned.jpg", exif=exif)
    (folder / "cat" / ".checkpoints").mkdir()
    Image.new("L", (10, 12)).save(folder / "cat" / ".checkpoints" / "copy.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read_images(folder)
    assert len(data) == 26 and data.files[12] == "cat/ring.png" and data.images[12, 0, 0].tolist() == [255] * 3 and data.images[12, 3, 3].tolist() == [0] * 3
    (folder / "bird").mkdir()
    with pytest.raises(ValueError, match="must have images of each class, got none in bird"): read_images(folder)
    assert len(read_images(folder, skip_unreadable=True)) == 26
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "bird" / "x.png").write_bytes((folder / "cat" / "00.png").read_bytes())
    with pytest.raises(ValueError, match="1 files that are no images one can read.*gone.png"): read_images(folder)
    with pytest.warns(UserWarning, match="1 files were skipped"): data = read_images(folder, skip_unreadable=True)
    assert "cat/00.png (cat)" in audit(data, threshold=0.01)._repr_html_()


def test_unreadable_files_are_listed_and_skipped_only_on_request(folder):
    (folder / "cat" / "notes.txt").write_text("no image")
    whole = (folder / "dog" / "01.png").read_bytes()
    (folder / "dog" / "01.png").write_bytes(whole[:60])
    with pytest.raises(ValueError, match="2 files that are no images one can read") as error: read_images(folder)
    assert "notes.txt" in str(error.value) and "01.png" in str(error.value)
    with pytest.warns(UserWarning, match="2 files were skipped: .*notes.txt"): data = read_images(folder, skip_unreadable=True)
    assert len(data) == 23
    (folder / "stray.png").write_bytes(whole)
    with pytest.raises(ValueError, match="1 files are in none and so have no label: stray.png"): read_images(folder)


def test_empty_folder_and_no_folder(tmp_path):
    with pytest.raises(ValueError, match="must hold a folder of images for each class"): read_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="path must be a file or folder"): read_images(tmp_path / "none")


def write_idx(path, array, opener=open):
    with opener(path, "wb") as file:
        file.write(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_archives_tables_and_idx(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 4, 4)).astype(np.uint8), rng.integers(0, 3, 20).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "b.npz", X=images, y=labels)
    write_idx(tmp_path / "train-images-idx3-ubyte", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels)
    write_idx(tmp_path / "t-images.idx3-ubyte.gz", images, gzip.open)
    write_idx(tmp_path / "t-labels.idx1-ubyte.gz", labels, gzip.open)
    pixels = pd.DataFrame(images.reshape(20, 16), columns=[f"pixel{i}" for i in range(16)])
    pixels.sample(axis=1, frac=1, random_state=0).assign(label=labels).to_csv(tmp_path / "c.csv", index=False)     # in any order
    for name in ("a.npz", "b.npz", "train-images-idx3-ubyte", "t-images.idx3-ubyte.gz", "c.csv"):
        data = read_images(tmp_path / name)
        np.testing.assert_array_equal(data.images, images)
        assert data.images.dtype == np.uint8 and np.array_equal(np.asarray(data.labels), labels)
    pd.DataFrame({"a": [0.5, 1.5], "b": [1, 2], "class": ["x", "y"]}).to_csv(tmp_path / "v.csv", index=False)
    data = read_images(tmp_path / "v.csv")
    assert data.images.tolist() == [[0.5, 1], [1.5, 2]] and list(data.labels) == ["x", "y"]


@pytest.mark.parametrize("name, write, error, match", [
    ("a.npz", lambda p: np.savez(p, images=np.zeros((3, 2, 2))), ValueError, "must hold exactly one of labels"),
    ("a.npz", lambda p: np.savez(p, images=np.zeros((3, 2, 2)), X=np.zeros(3), y=np.zeros(3)), ValueError, "must hold exactly one of images"),
    ("a.npz", lambda p: np.savez(p, images=np.zeros((3, 2, 2)), labels=np.zeros(2)), ValueError, "labels of .* must be one for each of 3"),
    ("a.npz", lambda p: np.savez(p, images=np.zeros((3, 2, 2)), labels=np.array(["a", None, "b"], object)), ValueError, "Python objects are not loaded"),
    ("a.npz", lambda p: p.write_bytes(b"PK nothing"), ValueError, "a.npz is damaged"),
    ("a.csv", lambda p: p.write_text("label,a\nx,1\n,2\n"), ValueError, "labels of .* must not be missing, got 1 that are, the first in row 1"),
    ("a.csv", lambda p: p.write_text("a,b\n1,2\n"), ValueError, "must hold exactly one of labels"),
    ("a.csv", lambda p: p.write_text("label,a,b\nx,1,2,3\ny,1,2,4\n"), ValueError, "a.csv is damaged"),
    ("a.csv", lambda p: p.write_text(",label,a\n0,x,1\n"), ValueError, "columns must each have a name of their own"),
    ("a.csv", lambda p: p.write_text("label,a,label\nx,1,x\n"), ValueError, "columns must each have a name of their own, got .'label'"),
    ("a.csv", lambda p: p.write_text("label,a\n"), ValueError, "must hold rows and columns of numbers"),
    ("a.csv", lambda p: p.write_text("label\nx\n"), ValueError, "must hold rows and columns of numbers"),
    ("a.npz", lambda p: np.savez(p, images=np.zeros(3), labels=np.zeros(3)), ValueError, "images of .*a.npz must have 2 dimensions or more"),
    ("a.npz", lambda p: np.save(open(p, "wb"), np.zeros(3)), ValueError, "a.npz is damaged"),
    ("a.csv", lambda p: p.write_text("label,a\nx,one\n"), ValueError, "must hold numbers in all columns but label, got others in .*'a'"),
    ("a.csv", lambda p: p.write_text(""), ValueError, "a.csv is damaged"),
    ("x-images-idx3-ubyte", lambda p: write_idx(p, np.zeros((2, 3, 3), np.uint8)), FileNotFoundError, "must have its labels beside it"),
    ("notes.txt", lambda p: p.write_text("hello"), ValueError, "must be a folder, or a file"),
])
def test_read_images_refuses(tmp_path, name, write, error, match):
    write(tmp_path / name)
    with pytest.raises(error, match=match): read_images(tmp_path / name)


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "report.html"
    done = subprocess.run([sys.executable, "-c", "from fashion_proto.audit import _main; _main()", "audit", folder, folder, "--out", out, "--size", "8x6"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"leaks +24 ", done.stdout) and "The report is in" in done.stdout and "Leaks" in out.read_text(encoding="utf-8")
    out.unlink()
    csv = tmp_path / "data.csv"
    csv.write_text("label,a\nx,1\ny,2\n")
    for more, says in (([folder / "none", "--out", out], "path must be a file or folder"), ([folder, "--out", tmp_path / "no" / "r.html"], "existing folder"),
                       ([folder, "--out", out, "--threshold", "2"], "threshold must be above 0"), ([folder, "--out", out, "--size", "0"], "must be a number of pixels"),
                       ([csv, "--out", out, "--size", "8"], "size must be left out for arrays"), ([csv, "--out", csv], "--out must not be a file that is read")):
        with pytest.raises(SystemExit) as stop: module._main(["audit", *map(str, more)])
        assert stop.value.code == 2 and says in capsys.readouterr().err and not out.exists() and csv.read_text().startswith("label")


def test_the_command_is_installed():
    from importlib.metadata import entry_points
    assert [point.value for point in entry_points(group="console_scripts", name="fashion-proto")] == ["fashion_proto.gate:_main"]


# The measured results

def test_bench_keeps_what_the_issue_asks_for():
    kept = json.loads((Path(__file__).parent.parent / "bench/results/audit.json").read_text())
    assert kept["times_faster_than_sklearn"] >= 10 and kept["pairs_s"] < 20 and kept["peak_MB"] < 1000
    for row in kept["labels"]:
        assert row["ours"] >= max(row["cleanlab: neighbours"], row["cleanlab: logistic regression"])


# Where things are, and how the report looks

def test_the_audit_passes_on_its_parts_and_documents_its_fields():
    import dataclasses
    from fashion_proto import audit as facade
    assert facade.near_duplicates is copies.near_duplicates and facade.leaks is leaks_and_labels.leaks
    assert {"near_duplicates", "duplicate_groups", "leaks", "label_issues"} < set(facade.__all__)
    assert all(f"`{field.name}`" in facade.Audit.__doc__ for field in dataclasses.fields(facade.Audit))


def test_report_is_legible_in_the_dark(found, tmp_path, browser):
    found.save(tmp_path / "report.html")
    shades = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=scheme)
        page.goto((tmp_path / "report.html").as_uri())
        for name in ("color", "backgroundColor"):
            rgb = page.evaluate(f"getComputedStyle(document.querySelector('.fashion-audit td')).{name}")
            if name == "backgroundColor": rgb = page.evaluate("getComputedStyle(document.querySelector('.fashion-audit')).backgroundColor")
            shades[scheme, name] = np.mean([int(part) for part in re.findall(r"\d+", rgb)[:3]])
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        turned = page.evaluate("getComputedStyle(document.querySelector('.ink figure img')).filter")
        assert ("invert" in turned) == (scheme == "dark")
        page.close()
    assert shades["light", "backgroundColor"] - shades["light", "color"] > 200
    assert shades["dark", "color"] - shades["dark", "backgroundColor"] > 180


def test_leaks_are_told_in_per_cent_and_unknown_where_nothing_is_left():
    train, test = two_sets()
    told = in_percent(leaks(train, train, threshold=0.999).accuracy)
    assert told["after"].tolist()[0] == "" and told["change"].tolist()[0] == "" and told["before"].str.fullmatch(r"\d+\.\d%").all()
    assert in_percent(leaks(train, test, threshold=0.99).accuracy)["change"].str.fullmatch(r"[+-]\d+\.\d% ± \d+\.\d%").all()
