"""As people use it: threads, forks, wide and many, files as they are left, other libraries. Most come from public bug reports."""
import multiprocessing
import os
import resource
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_sample_image
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_info

import fashion_proto
from fashion_proto.ann import ANN
from fashion_proto.audit import audit, read_images
from fashion_proto.averages import AveragePrototypes, average_prototypes
from fashion_proto.copies import _MANY_COPIES as MANY_COPIES, near_duplicates
from fashion_proto.core.checks import blas_at_most, check_images, check_labels
from fashion_proto.core.products import WIDE, search
from fashion_proto.data import LabelledImages
from fashion_proto.kmeans import KMeansPrototypes
from fashion_proto.knn import KNN
from fashion_proto.labels import MANY_CLASSES, label_issues
from fashion_proto.lvq import LVQ
from fashion_proto.metric import ClassMetric
from fashion_proto.patches import PatchPrototypes
from fashion_proto.patchknn import PatchKNN
from fashion_proto.sure import PredictionSets, reliability


def blas(): return sorted((pool["prefix"], pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.images, data.target


# ---- processes and threads ---------------------------------------------------------------------------------------------

def test_searches_at_once_leave_blas_as_it_was():
    rng = np.random.default_rng(0)
    X = np.clip(rng.integers(0, 256, (50, 64))[rng.integers(0, 50, 8000)] + rng.normal(0, 10, (8000, 64)), 0, 255).astype(np.uint8)
    knn = KNN(3, n_jobs=1).fit(X, np.arange(8000) % 3)
    before, expected = blas(), knn.predict(X[:1300])
    for _ in range(10):
        found = {}
        threads = [threading.Thread(target=lambda n=n: found.update({n: knn.predict(X[:n])})) for n in (600, 900, 1300)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert all((own == expected[:n]).all() for n, own in found.items()) and len(found) == 3
    assert blas() == before


def test_blas_limits_that_overlap_end_as_they_began():
    before = blas()
    first, second = blas_at_most(1), blas_at_most(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert blas() == before


def _fit_all(X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (KNN(3), KMeansPrototypes(3), LVQ(2, max_iter=2), ANN(5, deterministic=False), ANN(5)): model.fit(X, y).predict(X[:50])
        PatchPrototypes(10).fit(X[:200].reshape(-1, 5, 4)).transform(X[:5].reshape(-1, 5, 4))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")           # Python 3.12 and later, where threads run
def test_fork_after_fit_does_not_hang():
    X, y = np.random.default_rng(0).normal(size=(3000, 20)).astype(np.float32), np.arange(3000) % 3
    _fit_all(X, y)
    child = multiprocessing.get_context("fork").Process(target=_fit_all, args=(X, y), daemon=True)
    child.start()
    child.join(100)
    assert child.exitcode == 0


def test_import_where_no_folder_can_be_written(tmp_path):
    shutil.copytree(Path(fashion_proto.__file__).parent, tmp_path / "fashion_proto", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in "", "core":
        (tmp_path / "fashion_proto" / folder / "__pycache__").write_text("no folder")
    nowhere = {"HOME": "/dev/null/none", "XDG_CACHE_HOME": "/dev/null/none", "PYTHONPATH": str(tmp_path), "MPLCONFIGDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | nowhere
    code = "import numpy as np, fashion_proto.ann, fashion_proto.patches, fashion_proto.audit; from fashion_proto.knn import KNN; print(KNN(1).fit(np.eye(3), [0, 1, 2]).predict(np.eye(3)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "[0 1 2]", done.stderr[-500:]


# ---- size --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, m, p", [(40, 500, 12), (500, 40, 12), (60, 50, WIDE + 900), (30, 200, WIDE + 1)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan", "chebyshev"])
def test_every_route_of_the_search_gives_the_neighbours_of_brute_force(n, m, p, metric):
    rng = np.random.default_rng(0)
    points = rng.integers(0, 3, (n, p)).astype(float)
    points[n // 2] = points[3]                                  # a tie
    queries = np.concatenate([points[:m // 2], rng.integers(0, 3, (m - m // 2, p))])[:m]
    far, at = search(queries, points, 4, metric, 0. if metric == "cosine" else points.mean(axis=0))
    expected = cdist(queries, points, {"manhattan": "cityblock"}.get(metric, metric))
    np.testing.assert_allclose(far, np.sort(expected, axis=1)[:, :4], atol=1e-7)
    np.testing.assert_allclose(np.take_along_axis(expected, at, axis=1), far, atol=1e-7)
    if metric != "cosine": assert (at == np.argsort(expected, axis=1, kind="stable")[:, :4]).all()


def test_wide_images_are_indexed_in_linear_memory():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (40, 32, 32, 3)).astype(float)
    X = np.clip(base[rng.integers(0, 40, 1200)] + rng.normal(0, 30, (1200, 32, 32, 3)), 0, 255).astype(np.uint8)
    model = ANN(5).fit(X, np.arange(1200) % 3)
    exact = KNN(5).fit(X, np.arange(1200) % 3).kneighbors(X[:100])[1]
    assert np.mean([np.isin(own, right).mean() for own, right in zip(model.kneighbors(X[:100])[1], exact)]) > 0.9


def test_labels_of_many_classes():
    rng, c = np.random.default_rng(0), 4 * MANY_CLASSES
    y = np.repeat(np.arange(c), 20)
    X = (rng.normal(size=(c, 64))[y] + rng.normal(0, 0.6, (len(y), 64))).astype(np.float32)
    given, wrong = y.copy(), rng.choice(len(y), 40, replace=False)
    given[wrong] = (given[wrong] + rng.integers(1, c, 40)) % c
    issues = label_issues(X, given)
    assert set(issues.index[:40]) == set(wrong) and (issues.loc[wrong, "suggested"] == y[wrong]).all()
    assert issues["p_label"].between(0, 1).all() and issues["p_suggested"].between(0, 1).all() and (issues["label"] != issues["suggested"]).all()


def test_thousands_of_copies_are_one_group():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8000, 8, 8), dtype=np.uint8)
    images[100:6500] = images[100]
    images[7000] = np.clip(images[100].astype(int) + 3, 0, 255)
    pairs = near_duplicates(images, threshold=0.99)
    copies = pairs[pairs["similarity"] == 1]
    assert (copies["first"] == 100).all() and sorted(copies["second"])[:6399] == [*range(101, 6500)]
    assert ((pairs["first"] == 100) & (pairs["second"] == 7000)).sum() == 1 and len(pairs) == 6400
    found = audit(LabelledImages(images, rng.integers(0, 3, 8000)), threshold=1.0)
    assert found.counts.loc["groups", "found"] == 1 and found.counts.loc["exact repeats", "found"] == 6399
    few = near_duplicates(np.repeat(images[:2], [MANY_COPIES, 1], axis=0))
    assert len(few) == MANY_COPIES * (MANY_COPIES - 1) // 2


# ---- files -------------------------------------------------------------------------------------------------------------

picture = Image.fromarray(np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0" + b"\0\x08\0\x02\x01\x12\0\x03" + bytes(20),
                                  b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8),
                                  b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x9c9c, 3, 1, 7, 0)])
def test_exif_that_is_none(tmp_path, exif):
    for label in "a", "b":
        (tmp_path / label).mkdir()
        picture.save(tmp_path / label / "odd.jpg", exif=exif)
    assert read_images(tmp_path).images.shape == (2, 40, 30)


def test_files_with_flipped_bytes_are_skipped_with_a_reason(tmp_path):
    rng = np.random.default_rng(0)
    for label in "a", "b":
        (tmp_path / label).mkdir()
        picture.save(tmp_path / label / "fine.png")
    for i, kind in enumerate(["png", "jpeg", "gif", "tiff"] * 60):
        path = tmp_path / "a" / f"{i}.{kind}"
        picture.save(path)
        data = bytearray(path.read_bytes())
        for at in rng.integers(0, len(data), 6): data[at] = rng.integers(256)
        path.write_bytes(data[:rng.integers(20, len(data))] if i % 3 == 0 else data)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data = read_images(tmp_path, skip_unreadable=True, size=(40, 30))
    assert {"a/fine.png", "b/fine.png"} <= set(data.files) and any("files were skipped" in str(w.message) for w in seen)


def test_the_root_of_a_data_set_is_refused(tmp_path):
    for part in "train", "val":
        for label in "cat", "dog":
            (tmp_path / part / label).mkdir(parents=True)
            picture.save(tmp_path / part / label / "0.png")
    with pytest.raises(ValueError, match="must be one set .* got the sets train, val: name one of them"): read_images(tmp_path)
    assert sorted(set(read_images(tmp_path / "train").labels)) == ["cat", "dog"]


def patched(path, target, local, central, change):
    "The archive with one field of each header changed."
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = data.find(magic)
        while at >= 0:
            struct.pack_into("<H", data, at + offset, change(struct.unpack_from("<H", data, at + offset)[0]))
            at = data.find(magic, at + 4)
    target.write_bytes(data)
    return target


def test_archives(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8), np.arange(3)
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    for name, where in {"encrypted": (6, 8, lambda flags: flags | 1), "deflate64": (8, 10, lambda method: 9)}.items():
        with pytest.raises(ValueError, match="damaged or not what it should be"): read_images(patched(tmp_path / "plain.npz", tmp_path / f"{name}.npz", *where))
    np.savez(tmp_path / "keras.npz", x_train=images, y_train=labels[:, None])
    assert (read_images(tmp_path / "keras.npz").images == images).all() and read_images(tmp_path / "keras.npz").labels.tolist() == [0, 1, 2]
    np.savez(tmp_path / "both.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(ValueError, match="must hold one set of images and labels, got another in x_test, y_test"): read_images(tmp_path / "both.npz")


def test_images_and_labels_as_arrays_come():
    assert check_images("X", np.eye(2) > 0).tolist() == [[1, 0], [0, 1]] and check_images("X", np.eye(2, dtype=">f4")).dtype.isnative
    with pytest.raises(ValueError, match=r"channels last, got shape \(5, 3, 8, 8\); X.transpose\(0, 2, 3, 1\)"): check_images("X", np.zeros((5, 3, 8, 8)))
    labels, codes, classes = check_labels("y", np.array([[3], [1]], ">i4"), 2)
    assert labels.tolist() == [3, 1] and codes.tolist() == [1, 0] and classes.dtype.isnative
    assert check_labels("y", np.array(["b", "a"], dtype=np.dtypes.StringDType()), 2)[2].tolist() == ["a", "b"]
    images, y = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8), (np.arange(60) % 3).astype(">i4")
    shares = KNN().fit(images, y).predict_proba(images)
    assert (average_prototypes(images, y) == average_prototypes(images, y.astype(int))).all()
    assert reliability(y, shares).equals(reliability(y.astype(int), shares)) and len(label_issues(images, y)) == 60
    assert audit(LabelledImages(images, y)).counts.equals(audit(LabelledImages(images, y.astype(int))).counts)


def test_grey_beside_colours():
    rng = np.random.default_rng(0)
    colour = LabelledImages(rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), np.arange(20) % 2)
    grey = LabelledImages(rng.integers(0, 256, (8, 8, 8), dtype=np.uint8), np.arange(8) % 2)
    assert audit(colour, grey).counts.loc["leaked test images", "found"] == audit(grey, colour).counts.loc["leaked test images", "found"] == 0
    same = LabelledImages(np.stack([grey.images] * 3, axis=3), grey.labels)
    assert audit(same, grey).counts.loc["leaked test images", "found"] == 8


def test_colours_are_no_pattern():
    def flat(*rgb): return np.broadcast_to(np.uint8(rgb), (16, 16, 3))
    noise = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    images = np.stack([flat(0, 0, 254), flat(0, 0, 90), flat(255, 255, 255), flat(40, 40, 40), *noise])
    found = audit(LabelledImages(images, np.arange(34) % 2))
    assert found.counts.loc["blank images", "found"] == 4 and len(found.near) == 0
    photo = load_sample_image("china.jpg")
    tiles = np.stack([photo[r:r + 32, c:c + 32] for r in range(0, 395, 32) for c in range(0, 609, 32)])
    assert len(near_duplicates(tiles)) <= 10 * len(near_duplicates(tiles.mean(axis=3))) + 10


@pytest.mark.parametrize("side, grain, channels", [(32, 10, 1), (48, 20, 3), (64, 15, 3)])
def test_textures_on_one_ground_are_no_copies(side, grain, channels):
    "Correlation alone calls all 780 pairs alike; real copies stay, also paler, with grain, mirrored."
    rng = np.random.default_rng(0)
    images, inner = np.full((40, side, side, channels), 250.), slice(side // 4, -(side // 4))
    images[:, inner, inner] = rng.normal(128, grain, images[:, inner, inner].shape)
    content = (images - images.mean(axis=(1, 2), keepdims=True)).reshape(40, -1)
    assert np.corrcoef(content).min() > 0.9
    images = images.round().astype(np.uint8)
    assert len(near_duplicates(images, threshold=0.9)) == 0
    copies = np.clip(images[:, :, ::-1] * 0.8 + rng.normal(20, 3, images.shape), 0, 255)
    found = near_duplicates(images, copies, threshold=0.9, flips=True)
    assert (found["first"] == found["second"]).all() and found["mirrored"].all() and len(found) == 40


def test_pictures_without_ground_or_without_room_are_listed_by_correlation_alone():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (40, 40))
    for side in 40, 31:
        images = np.repeat(one[None, :side, :side], 20, axis=0)
        images[:, 12:20, 12:20] = rng.integers(100, 150, (20, 8, 8))
        if side == 31:                           # a ground, but too small
            images[:, :8], images[:, -8:], images[:, :, :8], images[:, :, -8:] = 0, 0, 0, 0
        content = images.reshape(20, -1)
        expected = (np.corrcoef(content)[np.triu_indices(20, 1)] >= 0.9).sum()
        assert len(near_duplicates(images, threshold=0.9)) == expected == 190


def command(*arguments, **more):
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from fashion_proto.audit import _main; _main()"
    return subprocess.run([sys.executable, "-c", code, "audit", *map(str, arguments)], capture_output=True, **more)


@pytest.mark.parametrize("encoding", ["ascii", "utf-16"])
def test_the_command_writes_to_a_pipe_of_any_encoding(tmp_path, digits, encoding):
    np.savez(tmp_path / "digits \xd7.npz", images=digits[0][:200].astype(np.uint8), labels=digits[1][:200])
    done = command(tmp_path / "digits \xd7.npz", "--out", tmp_path / "report.html", env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and "severity" in done.stdout.decode(encoding), done.stderr
    assert "8 \xd7 8" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path, digits):
    np.savez(tmp_path / "digits.npz", images=digits[0][:300].astype(np.uint8), labels=digits[1][:300])
    report = tmp_path / "report.html"
    report.write_text("old")
    def no_room(): resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    done = command(tmp_path / "digits.npz", "--out", report, preexec_fn=no_room)
    assert done.returncode == 2 and str(report) in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    assert report.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["digits.npz", "report.html"]


def test_a_report_into_a_pipe_is_refused(tmp_path, digits):
    np.savez(tmp_path / "digits.npz", images=digits[0][:50].astype(np.uint8), labels=digits[1][:50])
    done = command(tmp_path / "digits.npz", "--out", "/dev/stdout")
    assert done.returncode == 2 and b"must be a regular file, got /dev/stdout" in done.stderr and not done.stdout


# ---- numbers and other libraries ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("scale", [1e-26, 1e20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", [AveragePrototypes(), KMeansPrototypes(2), LVQ(2), KNN(3), ANN(3)], ids=lambda m: type(m).__name__)
def test_squares_that_leave_single_precision(digits, model, dtype, scale):
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = model.fit(X[:1200].astype(dtype), y[:1200]).predict(X[1200:].astype(dtype))
        scaled = model.fit((X[:1200] * scale).astype(dtype), y[:1200]).predict((X[1200:] * scale).astype(dtype))
    assert (plain == scaled).mean() > 0.98 and (scaled == y[1200:]).mean() > 0.85


@pytest.mark.parametrize("model", [AveragePrototypes(), KMeansPrototypes(2)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_squares_that_leave_double_precision(digits, model, scale):
    X, y = digits
    assert model.fit(X[:1200] * scale, y[:1200]).score(X[1200:] * scale, y[1200:]) > 0.85


@pytest.mark.parametrize("dtype", [float, np.float32, np.uint8])
@pytest.mark.parametrize("model", [AveragePrototypes(), KMeansPrototypes(3), LVQ(3), KNN(), KNN(metric="cosine", weights="distance"), ANN(),
                                   PatchPrototypes(20), PredictionSets(KNN(10))], ids=lambda m: str(m)[:30])
def test_ordinary_use_has_nothing_to_warn_of(digits, model, dtype):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        model.fit(digits[0][:600].astype(dtype), digits[1][:600])
        (model.transform if hasattr(model, "transform") else model.predict)(digits[0][:100].astype(dtype))


def test_patches_refuse_what_cannot_be_squared(digits):
    with pytest.raises(ValueError, match="can be squared in double precision, got up to 2e-169"): PatchPrototypes(10).fit(digits[0] * 1e-170)


WHOLE, SHARES = (np.uint8, np.int8, np.int16, np.uint64), (np.float16, np.float32, np.longdouble)


@pytest.mark.parametrize("model, name, value", [
    (KNN(), "n_neighbors", 127), (KNN(), "n_jobs", 2), (ANN(), "n_neighbors", 127), (ANN(), "target_recall", 0.75),
    (KMeansPrototypes(), "n_prototypes", 100), (LVQ(2), "n_prototypes", 20), (LVQ(2), "max_iter", 100), (LVQ(2), "n_iter_no_change", 3),
    (LVQ(2), "learning_rate", 0.125), (LVQ(2), "validation_fraction", 0.25)], ids=lambda v: getattr(type(v), "__name__", v))
def test_a_number_of_any_kind_means_the_same(digits, model, name, value):
    X, y = digits[0].reshape(-1, 64), digits[1]
    expected = clone(model).set_params(**{name: value}).fit(X, y).predict(X[:100])
    for kind in WHOLE if isinstance(value, int) else SHARES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (clone(model).set_params(**{name: kind(value)}).fit(X, y).predict(X[:100]) == expected).all()
    with pytest.raises((TypeError, ValueError), match=name): clone(model).set_params(**{name: np.array([value])}).fit(X, y)


def test_moves_of_any_kind_of_number(digits):
    images = digits[0][:300]
    expected = near_duplicates(images, threshold=0.9, shifts=1)
    assert expected["down"].abs().max() == 1
    for kind in WHOLE: assert near_duplicates(images, threshold=0.9, shifts=kind(1)).equals(expected)


@pytest.mark.parametrize("model", [AveragePrototypes(), KMeansPrototypes(2), LVQ(2), KNN(3), ANN(3)], ids=lambda m: type(m).__name__)
def test_frames_and_strings_of_all_kinds(digits, model):
    X, y = digits[0].reshape(-1, 64), digits[1]
    frame, expected = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]), clone(model).fit(X, y).predict(X[:50])
    assert (clone(model).fit(frame.convert_dtypes(), pd.Series(y).astype("Int64")).predict(frame[:50].convert_dtypes()) == expected).all()
    for kind in "category", "string", np.dtypes.StringDType():
        labels = y.astype(str).astype(kind) if isinstance(kind, np.dtypes.StringDType) else pd.Series(y.astype(str)).astype(kind)
        assert (clone(model).fit(X, labels).predict(X[:50]) == expected.astype(str)).all()
    with pytest.raises(ValueError, match="NaN"): clone(model).fit(X, pd.Series([pd.NA, *y[1:]], dtype="Int64"))
    with pytest.raises(TypeError, match="toarray"): clone(model).fit(csr_matrix(X), y)


def test_label_issues_of_frames(digits):
    frame, y = pd.DataFrame(digits[0][:300].reshape(300, 64)), pd.Series(digits[1][:300])
    expected = label_issues(frame, y)
    assert label_issues(frame.convert_dtypes(), y.astype("Int64"))["p_label"].equals(expected["p_label"])
    with pytest.raises(ValueError, match="finite"): label_issues(frame.convert_dtypes().mask(frame > 15), y)
    with pytest.raises(TypeError, match="numbers"): label_issues(frame.astype(str), y)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")           # Python 3.12 and later, where threads run
@pytest.mark.parametrize("model", [LVQ(2), KNN(3), ANN(3)], ids=lambda m: type(m).__name__)
def test_jobs_and_mapped_files(digits, model, tmp_path):
    X, y = digits[0].reshape(-1, 64), digits[1]
    assert GridSearchCV(make_pipeline(clone(model)), {}, cv=2, n_jobs=2).fit(X, y).best_score_ > 0.85
    fitted = clone(model).fit(X, y)
    joblib.dump(fitted, tmp_path / "model.joblib")
    expected = fitted.predict(X[:50])
    assert (joblib.load(tmp_path / "model.joblib", mmap_mode="r").predict(X[:50]) == expected).all()
    for backend in "loky", "threading", "multiprocessing":
        with joblib.parallel_backend(backend, n_jobs=2):
            assert all((got == expected).all() for got in joblib.Parallel()(joblib.delayed(fitted.predict)(X[:50]) for _ in range(3)))
    with multiprocessing.get_context("spawn").Pool(1) as pool: assert (pool.apply_async(fitted.predict, (X[:50],)).get(60) == expected).all()
    if hasattr(model, "predict_proba"): assert CalibratedClassifierCV(clone(model), cv=2, n_jobs=2).fit(X, y).score(X, y) > 0.95


@pytest.mark.parametrize("other", [None, 1, 2.5])
@pytest.mark.parametrize("model", [KNN(), LVQ(), ANN(3), ClassMetric(), PatchKNN()], ids=lambda m: type(m).__name__)
def test_strings_beside_something_else_are_refused(model, other):
    with pytest.raises(TypeError, match=f"y must be all strings or all numbers, got strings and {other}"):
        model.fit(np.arange(24.).reshape(8, 3), np.array(["a", "b", other, "a"] * 2, object))


def test_transformers_name_what_they_give(digits):
    X, y = digits
    patches = PatchPrototypes(4, patch_size=3)
    for model, data in (patches, X), (ClassMetric(), X.reshape(-1, 64)), (PatchKNN([patches]), X):
        expected, names = model.fit(data, y).transform(data[:5]), model.get_feature_names_out()
        framed = clone(model).set_output(transform="pandas").fit(data, y)
        table = framed.transform(data[:5])
        assert list(table) == list(names) and (table.to_numpy() == expected).all()
        with config_context(transform_output="pandas"), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(clone(model).fit(data, y).transform(data[:5])) == list(names)
            if hasattr(model, "predict"): assert (framed.predict(data[:50]) == model.predict(data[:50])).all()


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
def test_graphs_are_those_of_scikit_learn(digits, mode):
    X, y = digits[0][:300].reshape(300, -1), digits[1][:300]
    ours, theirs = KNN(5).fit(X, y), KNeighborsClassifier(5, algorithm="brute").fit(X, y)
    for ask in (None, X[:20]):
        np.testing.assert_allclose(ours.kneighbors_graph(ask, mode=mode).toarray(), theirs.kneighbors_graph(ask, mode=mode).toarray())
    assert ANN(5).fit(X, y).kneighbors_graph(mode=mode).nnz == 1500
    within = ours.radius_neighbors_graph(X[:20], 25., mode=mode)
    assert within.shape == (20, 300) and (within.toarray() > 0).sum() == sum(map(len, ours.radius_neighbors(X[:20], 25.)[1])) - (20 if mode == "distance" else 0)
    with pytest.raises(ValueError, match="mode must be one of connectivity, distance, got 'both'"): ours.kneighbors_graph(mode="both")


@pytest.mark.parametrize("metric", ["chebyshev", "correlation", "minkowski", "canberra", lambda a, b: abs(a - b).max()])
@pytest.mark.parametrize("weights", [None, "distance", lambda far: np.exp(-far)])
def test_other_metrics_and_votes(digits, metric, weights):
    X, y = digits[0].reshape(-1, 64)[:400] + 1, digits[1][:400]
    ours = KNN(5, metric=metric, weights=weights).fit(X[:350], y[:350])
    theirs = KNeighborsClassifier(5, metric=metric, weights=weights, algorithm="brute").fit(X[:350], y[:350])
    np.testing.assert_allclose(ours.kneighbors(X[350:])[0], theirs.kneighbors(X[350:])[0])
    assert ours.search_ == "direct" and (ours.predict(X[350:]) == theirs.predict(X[350:])).mean() > 0.95


def test_votes_that_are_none(tmp_path):
    knn = KNN(2, weights=len).fit(np.eye(3), [0, 1, 1])
    with pytest.raises(ValueError, match=r"weights must give a vote from 0 on for each of \(3, 2\) distances"): knn.predict(np.eye(3))
    with pytest.raises(TypeError, match="must have names to be saved"): knn.save(tmp_path / "knn.npz")


class Net:
    classes_ = np.array(["no", "yes"])

    def predict_proba(self, X):
        p = 1 / (1 + np.exp(-np.asarray(X)[:, 0]))
        return np.c_[1 - p, p]


def test_sets_around_a_network_that_is_fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(0, 2, (400, 3))
    y = Net.classes_[(rng.random(400) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)]
    sets = PredictionSets(Net()).calibrate(X, y)
    assert sets.predict_set(X)[np.arange(400), (y == "yes").astype(int)].mean() >= 0.9 and set(sets.predict(X)) == {"no", "yes"}
    with pytest.raises(NotFittedError, match="must be fitted, and have classes_, got KNN without"): PredictionSets(KNN()).calibrate(X, y)
