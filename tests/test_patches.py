"""`PatchPrototypes`, `ClassMetric`, `PatchKNN`: scikit-learn's contract, oracles in double precision, mirror images, threads, hostile input."""
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.core import scatter
from fashion_proto.knn import KNN
from fashion_proto.metric import ClassMetric, _folds
from fashion_proto.patches import PatchPrototypes
from fashion_proto.patchknn import PatchKNN

pytestmark = [pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning"),
              pytest.mark.filterwarnings("ignore:Number of distinct clusters:sklearn.exceptions.ConvergenceWarning")]


@parametrize_with_checks([PatchPrototypes(40), ClassMetric(), ClassMetric(n_folds=0, n_pairs=0), PatchKNN(),
                          PatchKNN([PatchPrototypes(6), PatchPrototypes(4, n_cells=2)], 5, weights="uniform")])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def garments(n=60, shape=(13, 12), seed=0):
    "Smooth random images in three kinds, so that there is something to learn."
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    base = np.random.default_rng(99).random((3, *shape))
    return (255 * np.clip(0.7 * base[y] + 0.3 * rng.random((n, *shape)), 0, 1)).astype(np.uint8), y


# ---- PatchPrototypes ---------------------------------------------------------------------------------------------------

def oracle(model, images):
    "The numbers in double precision, from the pictures of the prototypes alone: whole patches, all prototypes, image and mirror image apart."
    images = images.reshape(-1, *model._shape).astype(float)
    height, width = model.patch_shape_
    pixels = (images - model._centre) / model._unit
    flat = model.prototypes_.reshape(len(model.prototypes_), -1).astype(float)
    shift, to_even, to_odd = (part.astype(float) for part in model._learned[:3])

    def white(patches):
        parts = [patches[:, :, : width // 2], patches[:, :, ::-1][:, :, : width // 2], patches[:, :, width // 2: width - width // 2]]
        left, right, middle = (part.reshape(len(patches), -1) for part in parts)
        return np.hstack([np.hstack([(left + right) / 2**0.5, middle]) @ to_even - shift, (left - right) / 2**0.5 @ to_odd])

    prototypes = white(flat.reshape(-1, height, width, model._shape[2]))

    def numbers(image):
        rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
        patches = np.array([image[r:r + height, c:c + width] for r in range(rows) for c in range(columns)])
        mean, spread = patches.mean(axis=(1, 2, 3)), patches.var(axis=(1, 2, 3))
        patches = (patches - mean[:, None, None, None]) / np.sqrt(spread + 0.08)[:, None, None, None]
        d = cdist(white(patches), prototypes)
        near = np.hstack([np.maximum(d.mean(axis=1, keepdims=True) - d, 0), mean[:, None], spread[:, None] ** 0.5])
        return pool(near.reshape(rows, columns, -1), model.n_cells)

    pairs = len(prototypes) // 2
    keep = [*range(pairs), -2, -1]
    return np.array([(numbers(image) + numbers(image[:, ::-1]))[..., keep].ravel() for image in pixels])


def pool(near, cells):
    "Averages over cells with fractional borders, by sampling each place at many points."
    fine = 60 * cells
    rows, columns = (np.arange(fine) * n // fine for n in near.shape[:2])
    return near[rows][:, columns].reshape(cells, 60, cells, 60, -1).mean(axis=(1, 3))


@pytest.mark.parametrize("shape, patch, cells", [((12, 12), 5, 4), ((13, 13), 4, 3), ((10, 15), 6, 2), ((13, 11, 3), 4, 2), ((12, 12, 1), 3, 1), ((6, 6), 6, 1)])
def test_numbers_are_those_of_the_oracle(shape, patch, cells):
    # so many that no image of one patch is a prototype itself: the root of a square of 0 has half of the digits only
    images = np.random.default_rng(0).integers(0, 256, (300, *shape)).astype(np.uint8)
    model = PatchPrototypes(30, patch, cells).fit(images)
    expected = oracle(model, images[:4])
    ours = model.transform(images[:4])
    assert ours.dtype == np.float32 and ours.shape == (4, cells**2 * 17)
    np.testing.assert_allclose(ours, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(13, 12), (12, 13), (9, 9, 3), (28, 28)])
@pytest.mark.parametrize("cells", [1, 2, 3, 4, 5])
def test_mirror_images_are_the_same(shape, cells):
    images = np.random.default_rng(1).random((30, *shape))
    for patch in 1, 4, 5:
        model = PatchPrototypes(16, patch, cells).fit(images)
        one, other = model.transform(images), model.transform(images[:, :, ::-1])
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())
        upside = model.transform(images[:, ::-1])
        assert cells == 1 or np.abs(one - upside).max() > 1e-3 * np.abs(one).max()


def test_prototypes_are_closed_under_mirroring():
    images, _ = garments()
    assert len(PatchPrototypes(20, 1).fit(images).prototypes_) == 2                    # a pixel alone has no contrast
    for patch in 2, 4, 5:
        model = PatchPrototypes(20, patch).fit(images)
        assert model.prototypes_.shape == (20, patch, patch) and model.patch_shape_ == (patch, patch)
        np.testing.assert_array_equal(model.prototypes_[10:], model.prototypes_[:10, :, ::-1])
    colour = PatchPrototypes(20, 4).fit(np.repeat(images[..., None], 3, axis=3))
    assert colour.prototypes_.shape == (20, 4, 4, 3)
    np.testing.assert_allclose(colour.prototypes_[..., 0], colour.prototypes_[..., 1], atol=1e-4)


def test_scale_and_offset_of_pixels_do_not_matter():
    images, _ = garments()
    expected = PatchPrototypes(20).fit_transform(images)
    for other in images / 255, images * 1e6 - 3e7, images.astype(np.int64) * 1000, images.astype(np.float32) * 1e-9:
        np.testing.assert_allclose(PatchPrototypes(20).fit_transform(other), expected, atol=2e-2 * expected.max())


def test_threads_and_seeds():
    images, y = garments(300)
    for make in (lambda **own: PatchPrototypes(20, **own)), (lambda **own: PatchKNN([PatchPrototypes(20, random_state=own.pop("random_state", 0))], **own)):
        one, two, third = (make(n_jobs=n).fit(images, y).transform(images) for n in (1, 2, 3))
        assert (one == two).all() and (one == third).all()
        assert np.abs(make(random_state=1).fit(images, y).transform(images) - one).max() > 1e-3
    assert (PatchPrototypes(20).fit(images).transform(images[7:8]) == PatchPrototypes(20).fit(images).transform(images)[7]).all()


def test_rows_are_images_of_width_one_unless_told():
    images, _ = garments()
    rows = images.reshape(len(images), -1)
    assert PatchPrototypes(20).fit(rows).image_shape_ == (156, 1)
    told = PatchPrototypes(20, image_shape=(13, 12)).fit(rows)
    assert (told.transform(rows) == PatchPrototypes(20).fit(images).transform(images)).all() and told.image_shape_ == (13, 12)
    assert (told.transform(images) == told.transform(rows)).all()


def test_few_patches_and_constant_images():
    few = PatchPrototypes(800).fit(np.arange(2 * 36).reshape(2, 6, 6) % 7)
    assert len(few.prototypes_) < 800 and np.isfinite(few.transform(np.zeros((3, 6, 6)))).all()
    for value in 0, 7.5:
        blank = PatchPrototypes(10).fit(np.full((5, 9, 9), value))
        assert len(blank.prototypes_) == 2 and np.isfinite(blank.transform(np.full((2, 9, 9), value + 1.0))).all()


@pytest.mark.parametrize("parameters, error, match", [
    (dict(n_prototypes=7), ValueError, "n_prototypes must be even, .*got 7"), (dict(n_prototypes=0), ValueError, "n_prototypes must be from 1"),
    (dict(n_prototypes=2.0), TypeError, "n_prototypes must be a whole number, got 2.0"), (dict(patch_size=13), ValueError, "patch_size must be at most 12 for images of 13 x 12, got 13"),
    (dict(patch_size="6"), ValueError, "patch_size must be one of auto, got '6'"), (dict(patch_size=True), TypeError, "patch_size must be a whole number"),
    (dict(n_cells=0), ValueError, "n_cells must be"), (dict(n_cells=None), TypeError, "n_cells must be"), (dict(n_jobs=0), ValueError, "n_jobs must be"),
    (dict(image_shape=(12, 13)), ValueError, "image_shape must be that of the images"), (dict(image_shape=(156,)), ValueError, "image_shape must be"),
    (dict(image_shape=(-13, -12)), ValueError, "image_shape must be")])
def test_bad_parameters(parameters, error, match):
    with pytest.raises(error, match=match): PatchPrototypes(**parameters).fit(garments()[0])


def test_bad_images():
    images, y = garments()
    model = PatchPrototypes(10).fit(images)
    with pytest.raises(NotFittedError): PatchPrototypes().transform(images)
    for bad, match in (images[:, :, ::2], "must have images of shape"), (np.full((2, 13, 12), np.nan), "NaN"), (images[:0], "0 sample"):
        with pytest.raises(ValueError, match=match): model.transform(bad)
    with pytest.raises(ValueError, match="NaN"): PatchPrototypes().fit(np.full((2, 13, 12), np.nan))
    with pytest.raises(ValueError, match="infinity"): PatchKNN().fit(np.full((2, 13, 12), np.inf), [0, 1])
    with pytest.raises(ValueError, match="height, width, channels"): PatchPrototypes().fit(np.zeros((2, 3, 4, 5, 6)))


# ---- ClassMetric -------------------------------------------------------------------------------------------------------

def clouds(n=600, d=12, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2 * rng.normal(size=(classes, d))[y] + 5
    return X, y


def test_coordinates_are_those_of_linear_discriminant_analysis():
    X, y = clouds()
    metric = ClassMetric(1e-9, n_pairs=0).fit(X, y)
    ours = metric.transform(X)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(X, y).transform(X)
    # the same distances between all rows, but for n against n - classes in the scatter
    ratio = (cdist(ours, ours) / np.where(np.eye(len(X)), 1, cdist(theirs, theirs)))[~np.eye(len(X), dtype=bool)]
    assert np.ptp(ratio) < 1e-6 and abs(ratio.mean() - 1) < 0.01
    within = sum(((ours[y == c] - ours[y == c].mean(axis=0)).T @ (ours[y == c] - ours[y == c].mean(axis=0))) for c in range(4)) / len(X)
    assert np.allclose(np.linalg.eigvalsh(within), [0, 1, 1, 1], atol=1e-6)


def test_pairs_are_fishers_direction():
    X, y = clouds()
    metric = ClassMetric(1e-9, n_pairs=2).fit(X, y)
    assert metric.transform(X).shape == (600, 6) and len(metric.pairs_) == 2
    for at, (i, j) in enumerate(metric.pairs_):
        own = (y == i) | (y == j)
        theirs = LinearDiscriminantAnalysis(solver="eigen").fit(X[own], y[own]).transform(X)[:, 0]
        ours = metric.transform(X)[:, 4 + at]
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 1 - 1e-9
        within = np.concatenate([ours[y == c] - ours[y == c].mean() for c in (i, j)])
        assert abs(within.var() - 1) < 1e-6
    means = np.array([metric.transform(X)[y == c, :4].mean(axis=0) for c in range(4)])
    near = cdist(means, means)[np.triu_indices(4, 1)]
    assert [cdist(means, means)[pair] for pair in metric.pairs_] == sorted(near)[:2]


def test_held_out_rows_have_not_been_seen():
    X, y = clouds(300, 40)
    metric = ClassMetric(n_folds=3, n_pairs=0).fit(X, y)
    folds = _folds(y, 3)
    for fold in range(3):
        out = folds == fold
        changed = y.copy()
        changed[out] = np.roll(y[out], 1)                                          # labels of the fold itself
        sums = scatter.sums_of(X, np.flatnonzero(~out), y, 4, *scatter.mean_and_inverse_spread(X, 1), 1)
        low, scale = scatter.mean_and_inverse_spread(X, 1)
        expected = (X[out] - low) * scale @ scatter.class_axes(sums, 0.01 * 40)
        np.testing.assert_allclose(metric.held_out_[out], expected, rtol=1e-6, atol=1e-9)
    assert ClassMetric(n_folds=0).fit(X, y).held_out_ is None
    for c in range(4): assert np.ptp(np.bincount(folds[y == c])) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_blocks_and_precision(dtype, monkeypatch):
    X, y = clouds(900, 1100)
    one, two = (ClassMetric(n_jobs=n).fit(X.astype(dtype), y) for n in (1, 2))
    assert (one.axes_ == two.axes_).all() and (one.held_out_ == two.held_out_).all() and one.transform(X.astype(dtype)).dtype == dtype
    expected = ClassMetric().fit(X, y).transform(X)
    np.testing.assert_allclose(one.transform(X.astype(dtype)), expected, atol=2e-3)
    monkeypatch.setattr(scatter, "blocks", lambda n, row: [slice(i, i + 70) for i in range(0, n, 70)])
    np.testing.assert_allclose(ClassMetric().fit(X.astype(dtype), y).transform(X.astype(dtype)), expected, atol=2e-3)


def test_more_columns_than_rows_and_columns_that_are_the_same():
    X, y = clouds(60, 1200)
    X[:, 5] = 3
    X[:, 6:600] = X[:, :1]
    for dtype in np.float32, np.float64:
        z = ClassMetric().fit(X.astype(dtype), y).transform(X.astype(dtype))
        assert np.isfinite(z).all() and KNN(3).fit(z, y).score(z, y) > 0.9


def test_a_scatter_that_rounding_spoils():
    one = np.random.default_rng(0).normal(size=(1200, 1))
    x = scatter.solve_ridge((one @ one.T).astype(np.float32), 1e-6, one)
    assert np.isfinite(x).all() and np.corrcoef(x[:, 0], one[:, 0])[0, 1] > 0.8
    with pytest.raises(ValueError, match="X must have a scatter"): scatter.solve_ridge(-1e30 * np.eye(3), 1e-6, np.ones((3, 1)))


def test_fewer_rows_than_columns_give_what_all_columns_give(monkeypatch):
    X, y = clouds(80, 100)
    X[:, 3] = 0
    ours = ClassMetric().fit(X, y)
    monkeypatch.setattr(scatter, "row_space", lambda X, mean, scale: ((X - mean) * scale, np.eye(X.shape[1])))
    full = ClassMetric().fit(X, y)
    for some, all_ in (ours.held_out_, full.held_out_), (ours.transform(X), full.transform(X)): np.testing.assert_allclose(some, all_, atol=1e-8)
    assert ours.pairs_ == full.pairs_


def test_one_class_and_a_class_of_one():
    X, y = clouds(50)
    alone = ClassMetric().fit(X, np.zeros(50))
    assert (alone.transform(X) == 0).all() and alone.pairs_ == []
    y[:] = 0
    y[7] = 1
    metric = ClassMetric().fit(X, y)
    assert np.isfinite(metric.held_out_).all() and np.isfinite(metric.transform(X)).all()


@pytest.mark.parametrize("parameters, error", [(dict(shrinkage=0), ValueError), (dict(shrinkage=np.nan), ValueError), (dict(shrinkage="1"), TypeError), (dict(n_pairs=-1), ValueError),
                                               (dict(n_pairs=1.5), TypeError), (dict(n_folds=1), ValueError), (dict(n_folds=True), TypeError), (dict(n_jobs=0), ValueError)])
def test_bad_metric(parameters, error):
    with pytest.raises(error, match=f"{next(iter(parameters))} must"): ClassMetric(**parameters).fit(*clouds(50))


# ---- PatchKNN ----------------------------------------------------------------------------------------------------------

def test_distances_are_those_of_the_joined_coordinates():
    images, y = garments(200)
    labels = np.array(["a", "b", "c"])[y]
    sets = [PatchPrototypes(20), PatchPrototypes(12, 3, 2, random_state=5)]
    model = PatchKNN(sets, 7).fit(images, labels)
    z = np.hstack([metric.transform(patches.transform(images)) for patches, metric in model.sets_])
    assert (model.transform(images) == z).all() and z.shape == (200, 2 * (3 + 3)) and model.coordinates_.shape == (200, 6)
    distances, indices = model.kneighbors(images[:20])
    expected = np.sort(cdist(z[:20].astype(float), z.astype(float)), axis=1)[:, :7]
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    shares = model.set_shares(images[:20], indices)
    by_hand = [np.square(z[:20, None, own].astype(float) - z[indices][..., own]).sum(axis=2) for own in (slice(0, 6), slice(6, 12))]
    np.testing.assert_allclose(shares * distances[..., None]**2, np.stack(by_hand, axis=2), rtol=1e-3, atol=1e-4)
    total = shares.sum(axis=2)
    assert np.isclose(total[distances > 0], 1).all() and (total[distances == 0] == 0).all()
    assert model.predict(images).dtype == labels.dtype and (model.classes_[model.predict_proba(images).argmax(axis=1)] == model.predict(images)).all()
    assert (model.predict(images[:, :, ::-1]) == model.predict(images)).mean() > 0.98
    assert sets[0].get_params() == PatchPrototypes(20).get_params() and not hasattr(sets[0], "prototypes_")
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(images) == model.predict(images)).all() and (clone(model).fit(images, labels).predict(images) == model.predict(images)).all()


def test_new_images_of_the_same_kind_are_named():
    (images, y), (new, truth) = garments(150), garments(60, seed=7)
    assert PatchKNN().fit(images, y).score(new, truth) == 1
    assert PatchKNN([PatchPrototypes(20)]).fit(images[..., None].repeat(3, axis=3), y).score(new[..., None].repeat(3, axis=3), truth) == 1


def test_digits():
    digits = load_digits()
    for preset in "fast", [PatchPrototypes(60)]:
        assert PatchKNN(preset).fit(digits.images[:1000], digits.target[:1000]).score(digits.images[1000:], digits.target[1000:]) > 0.93
    by_rows = make_pipeline(PatchPrototypes(40, image_shape=(8, 8)), ClassMetric(), KNN(5))
    assert cross_val_score(by_rows, digits.data[:900], digits.target[:900], cv=3).mean() > 0.9


def test_garments_beat_pixels(fashion):
    train, _ = fashion
    images, labels, new, truth = train.images[:2000], np.asarray(train.labels[:2000]), train.images[50_000:51_500], np.asarray(train.labels[50_000:51_500])
    model = PatchKNN([PatchPrototypes(100)]).fit(images, labels)
    assert model.score(new, truth) > KNN(5).fit(images, labels).score(new, truth) + 0.03
    held_out = KNN(20).fit(model.coordinates_, labels)
    assert abs((held_out.predict(None) == labels).mean() - model.score(new, truth)) < 0.04


def test_one_class_few_images_and_seeds():
    images, y = garments(30)
    assert (PatchKNN().fit(images, ["x"] * 30).predict(images) == "x").all()
    assert PatchKNN("best").fit(images[:4], y[:4]).predict(images).shape == (30,)
    seeds = [[patches.random_state for patches, _ in PatchKNN("best", random_state=s).fit(images, y).sets_] for s in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2] and len(set(seeds[0])) == 3


@pytest.mark.parametrize("parameters, error", [(dict(preset="good"), ValueError), (dict(preset=[]), TypeError), (dict(preset=[3]), TypeError), (dict(n_neighbors=0), ValueError),
                                               (dict(n_neighbors=2.5), TypeError), (dict(weights="square"), ValueError), (dict(n_jobs=0), ValueError), (dict(image_shape=(3, 3)), ValueError)])
def test_bad_classifier(parameters, error):
    with pytest.raises(error, match=f"{next(iter(parameters))} must"): PatchKNN(**parameters).fit(*garments())


@pytest.mark.parametrize("scale, channels", [(1, 0), (1 / 255, 0), (16 / 255, 0), (1, 3), (-4.0, 0)])
def test_explain(scale, channels):
    images, y = garments(60)
    images = images if scale == 1 else images * scale
    if channels: images = np.repeat(images[..., None], 3, axis=3)
    for sets in [PatchPrototypes(10)], [PatchPrototypes(10), PatchPrototypes(10, 4)]:
        model = PatchKNN(sets, 12).fit(images, y)
        figure = model.explain(images[5], "two")
        titles = [ax.get_title() for ax in figure.axes]
        assert titles[0].startswith("two\ncalled") and len(figure.axes) == 12
        assert all(("+" in title) == (len(sets) > 1) for title in titles[1:11])
        plt.close(figure)
    with pytest.raises(ValueError, match="image must have the shape"): model.explain(images)
    with pytest.raises(ValueError, match="image must have the shape"): PatchKNN([PatchPrototypes(10, image_shape=None)]).fit(images.reshape(60, -1), y).explain(images[0])
    with pytest.raises(ValueError, match="indices must be a row for each of 2"): model.set_shares(images[:2], [[1]])
