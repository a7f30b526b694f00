"""The loaders: every source, and everything that can be wrong with one."""
import dataclasses
import gzip
import hashlib
import http.server
import os
import struct
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from fashion_proto import data
from fashion_proto.core import fast_csv, fetch
from fashion_proto.data import LABELS, LabelledImages, as_float, load_fashion_mnist, read_csv, read_idx

NAMES = list(fetch.PAYLOADS)


def idx(array):
    "`array` as an IDX file of unsigned bytes."
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def official(fashion, tmp_path_factory):
    "A folder with the official files, packed anew."
    folder = tmp_path_factory.mktemp("official")
    train, test = fashion
    for name, part in zip(NAMES, (train.images, train.labels.codes.astype(np.uint8), test.images, test.labels.codes.astype(np.uint8))):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(part), 1))
    return folder


@pytest.fixture(scope="session")
def csv_pair(fashion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kaggle")
    text = [str(i) for i in range(256)]                  # what `to_csv` writes, in a fifth of the time
    for part, name in zip(fashion, fetch.CSV_PAIR):
        frame = part.frame()
        rows = (",".join([text[x] for x in row]) for row in frame.to_numpy().tolist())
        (folder / name).write_text("\n".join([",".join(frame.columns), *rows, ""]))
        assert (folder / name).read_text().startswith(frame[:100].to_csv(index=False))
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    "An empty cache, no Debian package, no variable, no mirror; gives the cache."
    cache = tmp_path / "cache"
    monkeypatch.setattr(data.platformdirs, "user_cache_path", lambda name: cache)
    monkeypatch.setattr(data, "_DEBIAN", tmp_path / "no package")
    monkeypatch.setattr(fetch, "MIRRORS", [])
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    return cache


def same(a, b):
    return all((x.images == y.images).all() and (x.labels == y.labels).all() for x, y in zip(a, b))


# ---- IDX -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["u1", "i1", ">i2", ">i4", ">f4", ">f8"])
def test_read_idx_types(tmp_path, kind):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    code = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}[kind]
    path = tmp_path / "a"
    path.write_bytes(bytes([0, 0, code, 3]) + struct.pack(">3I", 2, 3, 4) + array.tobytes())
    got = read_idx(path)
    assert (got == array).all() and got.dtype == array.dtype.newbyteorder("=") and got.flags.writeable
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert (read_idx(str(path)) == array).all()


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize("content, message", [
    (b"", "no IDX file.*got nothing"),
    (b"\0\0\x08", "no IDX file"),
    (b"\x01" + GOOD[1:], "must start with 00 00.*got 01 00 08 02"),
    (b"\0\0\x07" + GOOD[3:], "no IDX file"),
    (b"\0\0\x08\0", "no IDX file"),
    (GOOD[:-1], r"header for 6 bytes, shape \(2, 3\), but 5 bytes follow"),
    (GOOD + b"x", "header for 6 bytes.*but 7 bytes follow"),
    (GOOD[:9], "but 0 bytes follow"),
    (bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"abc", "but 3 bytes follow"),
    (gzip.compress(GOOD, mtime=0)[:-4], "not a whole gzip file"),
    (gzip.compress(GOOD, mtime=0)[:12], "not a whole gzip file"),
    (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "not a whole gzip file"),
    (b"\x1f\x8b and then text", "not a whole gzip file"),
    (gzip.compress(b"label,pixel1\n", mtime=0), "no IDX file"),
])
def test_read_idx_refuses(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as e: read_idx(path)
    assert str(path) in str(e.value)


def test_read_idx_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError): read_idx(tmp_path / "none")


# ---- CSV -------------------------------------------------------------------------------------------------------------

HEADER = ",".join(fast_csv.COLUMNS)
ROW = ",".join(["3"] + [str(i % 256) for i in range(784)])


def written(tmp_path, text):
    path = tmp_path / "some.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("text", [
    f"{HEADER}\n{ROW}\n{ROW}\n", f"{HEADER}\n{ROW}\n{ROW}", f"{HEADER}\r\n{ROW}\r\n{ROW}\r\n", f"{HEADER}\n{ROW}\n{ROW}\n\n\n",
    f"\ufeff{HEADER}\n{ROW}\n{ROW}\n", ",".join(f'"{c}"' for c in fast_csv.COLUMNS) + f"\n{ROW}\n{ROW}\n"])
def test_read_csv_forms(tmp_path, text):
    got = read_csv(written(tmp_path, text))
    assert got.images.shape == (2, 28, 28) and got.images.dtype == np.uint8 and list(got.labels) == ["Dress"] * 2
    assert (got.images[1].ravel() == np.arange(784) % 256).all()


def test_read_csv_columns_in_another_order(tmp_path, fashion):
    table = fashion[1][:100].frame()
    path = tmp_path / "turned.csv"
    table[table.columns[::-1]].to_csv(path, index=False)
    assert (read_csv(path).images == fashion[1].images[:100]).all()


@pytest.mark.parametrize("text, message", [
    ("", "785 missing"),
    (f"{HEADER}\n", "only a header"),
    (HEADER, "only a header"),
    (HEADER.replace(",pixel7,", ",") + f"\n{ROW[:-2]}\n", r"1 missing \['pixel7'\]"),
    (HEADER.replace("pixel7,", "pixel8,") + f"\n{ROW}\n", r"missing \['pixel7'\].*repeated \['pixel8'"),
    (HEADER + f",more\n{ROW},1\n", r"unknown or repeated \['more'\]"),
    (f"{HEADER}\n{ROW}\n" + ROW.replace("3,", "x,", 1) + "\n", "line 3: label must be a whole number from 0 to 9, got 'x'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",256,", 1) + "\n", "line 2: pixel256 must be .* from 0 to 255, got '256'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",-1,", 1) + "\n", "pixel256 .*got '-1'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",2.5,", 1) + "\n", "pixel256 .*got '2.5'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",,", 1) + "\n", "pixel256 .*got ''"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",2:5,", 1) + "\n", "pixel256 .*got '2:5'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",0255,", 1) + "\n", "pixel256 .*got '0255'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",٣,", 1) + "\n", "pixel256 .*got"),
    (f"{HEADER}\n" + ROW.replace(",255,", ", 25,", 1) + "\n", "pixel256 .*got ' 25'"),
    (f"{HEADER}\n" + ROW.replace(",255,", ",1e999999,", 1) + "\n", "pixel256 .*got '1e9"),
    (f"{HEADER}\n" + ROW.replace("3,", "10,", 1) + "\n", "label must be a whole number from 0 to 9, got '10'"),
    (f"{HEADER}\n{ROW}\n{ROW[:-4]}\n", "line 3: must have 785 fields, got 784"),
    (f"{HEADER}\n{ROW}\n{ROW},7\n", "line 3: must have 785 fields, got 786"),
    (f"{HEADER}\n{ROW}\n\n{ROW}\n", "line 3: must have 785 fields"),
    (f"{HEADER}\n{ROW}\r{ROW}\n", "line 2: must have 785 fields, got 1569"),
    (f"{HEADER}\n{ROW}\r\r\n{ROW}\r\r\n", "line 2: pixel784 must be"),
    (f"{HEADER}\n{ROW}\n\f{ROW}\n", "line 3: label must be"),
    (HEADER.encode() + b"\n" + bytes(range(256)) * 20, "must"),
    (gzip.compress(b"x" * 3000, mtime=0), "missing"),
])
def test_read_csv_refuses(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as e: read_csv(path)
    assert str(path) in str(e.value)


def test_read_csv_names_a_line_far_into_a_large_file(tmp_path, csv_pair):
    lines = (csv_pair / "fashion-mnist_test.csv").read_text().split("\n")
    lines[7000] = lines[7000][:-1] + "?"
    with pytest.raises(ValueError, match="line 7001: pixel784 must be"): read_csv(written(tmp_path, "\n".join(lines)))


def test_read_csv_without_a_final_newline_at_every_place_of_a_block(tmp_path, monkeypatch):
    for n in 1, 2, 3:
        for size in range(len(ROW) - 3, len(ROW) + 4):
            text = f"{HEADER}\n" + "\n".join([ROW] * n)
            blocks = [fast_csv.read_block(written(tmp_path, text), start, start + size, fast_csv.COLUMNS)
                      for start in range(len(HEADER) + 1, len(text), size)]
            assert sum(len(codes) for codes, _ in blocks) == n


def test_small_numbers_against_python():
    rng = np.random.default_rng(0)
    for _ in range(200):
        table = rng.integers(0, 256, (rng.integers(1, 5), rng.integers(1, 6)))
        text = "".join(",".join(map(str, row)) + "\n" for row in table)
        assert (fast_csv.small_numbers(text.encode(), table.shape[1]) == table).all()
        at = rng.integers(len(text))
        bad = text[:at] + rng.choice(list(" -.x:/0123456789,\n")) + text[at + 1:]
        fields = [line.split(",") for line in bad.removesuffix("\n").split("\n")]
        fine = bad.endswith("\n") and all(len(f) == table.shape[1] and all(c.isdigit() and len(c) <= 3 and int(c) < 256 for c in f) for f in fields)
        got = fast_csv.small_numbers(bad.encode(), table.shape[1])
        assert (got is not None) == fine, bad
        if fine: assert (got == np.array(fields, int)).all()


def test_csv_pair_is_the_earlier_release(csv_pair, fashion):
    with pytest.warns(UserWarning, match="earlier release"): got = load_fashion_mnist(csv_pair)
    assert same(got, fashion) and "earlier release" in repr(got[0])


def test_csv_pair_with_other_counts(tmp_path, fashion):
    for part, name in zip(fashion, fetch.CSV_PAIR): part[:1000].frame().to_csv(tmp_path / name, index=False)
    with pytest.raises(ValueError, match="must have 6000 images of each label"): load_fashion_mnist(tmp_path)


def test_read_csv_memory(csv_pair):
    path = csv_pair / "fashion-mnist_train.csv"
    tracemalloc.start()
    images = read_csv(path).images
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * images.nbytes


# ---- where the files are ---------------------------------------------------------------------------------------------

def test_load_gives_the_official_images(fashion):
    train, test = fashion
    assert train.images.shape == (60000, 28, 28) and test.images.shape == (10000, 28, 28) and train.images.flags.writeable
    assert tuple(train.labels.categories) == LABELS and train.labels.codes[:5].tolist() == [9, 0, 0, 3, 0]
    assert (np.bincount(train.labels.codes) == 6000).all() and (np.bincount(test.labels.codes) == 1000).all()


def test_load_costs_little_more_than_unpacking_and_hashing(official):
    "Measured in turns with that, so that a busy machine does not matter."
    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def unpack(): return [hashlib.sha256(gzip.decompress(p.read_bytes())).digest() for p in sorted(official.glob("*.gz"))]

    pairs = ((seconds(unpack), seconds(lambda: load_fashion_mnist(official))) for _ in range(5))
    assert any(load < 2 * plain for plain, load in pairs)


def test_path_and_variable(official, fashion, monkeypatch, nowhere, tmp_path):
    assert same(load_fashion_mnist(str(official)), fashion)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(official))
    assert same(load_fashion_mnist(), fashion)
    with pytest.raises(FileNotFoundError, match="path must name a folder.*none"): load_fashion_mnist(tmp_path / "none")
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="FASHION_MNIST_DIR must name a folder"): load_fashion_mnist()
    assert same(load_fashion_mnist(official), fashion)


def test_plain_files(official, fashion, tmp_path):
    for name in NAMES: (tmp_path / name).write_bytes(gzip.decompress((official / f"{name}.gz").read_bytes()))
    assert same(load_fashion_mnist(tmp_path), fashion)


def test_three_of_four(official, tmp_path):
    for name in NAMES[:3]: (tmp_path / f"{name}.gz").symlink_to(official / f"{name}.gz")
    with pytest.raises(FileNotFoundError, match="lacks t10k-labels-idx1-ubyte"): load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("change, message", [
    (lambda b: b[:-100], "not a whole gzip file"),
    (lambda b: gzip.compress(b"something else"), "no IDX file"),
    (lambda b: gzip.compress(idx(np.zeros((60000, 28, 28), np.uint8)), 1), "is not Fashion-MNIST.*MNIST's digits"),
    (lambda b: b"", "no IDX file"),
])
def test_one_bad_file(official, tmp_path, change, message):
    for name in NAMES[1:]: (tmp_path / f"{name}.gz").symlink_to(official / f"{name}.gz")
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(change((official / f"{NAMES[0]}.gz").read_bytes()))
    with pytest.raises(ValueError, match=message) as e: load_fashion_mnist(tmp_path)
    assert NAMES[0] in str(e.value)


@pytest.mark.parametrize("path", ["~nosuchuser/x", "x" * 5000])
def test_path_that_cannot_be(path):
    with pytest.raises(FileNotFoundError, match="path must name a folder"): load_fashion_mnist(path)


def test_unreadable_cache_is_passed_over(official, fashion, nowhere, monkeypatch):
    monkeypatch.setattr(data, "_DEBIAN", official)
    real = data._load_folder
    def load(folder):
        if folder == nowhere: raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)
    monkeypatch.setattr(data, "_load_folder", load)
    assert same(load_fashion_mnist(), fashion)


def test_path_is_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"): load_fashion_mnist(written(tmp_path, "x"))


def test_nothing_anywhere(nowhere):
    with pytest.raises(FileNotFoundError) as e: load_fashion_mnist()
    for word in str(nowhere), "no package", "make data", "apt-get install dataset-fashion-mnist", "FASHION_MNIST_DIR", "download":
        assert word in str(e.value)


def handler(folder, cut=(), wrong=()):
    "A server of the files in `folder` that breaks off half way through those in `cut` and sends other data for those in `wrong`."
    class Handler(http.server.BaseHTTPRequestHandler):
        asked = []

        def log_message(self, *args): pass

        def do_GET(self):
            name = self.path.strip("/")
            self.asked.append(name)
            if not (folder / name).is_file(): return self.send_error(404)
            content = gzip.compress(idx(np.zeros((2, 2), np.uint8))) if name in wrong else (folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:len(content) // 2] if name in cut else content)
            if name in cut: self.connection.close()
    return Handler


def files(cache):
    return sorted(p.name for p in cache.iterdir()) if cache.exists() else []


def test_download_goes_on_to_the_next_mirror(official, fashion, nowhere, serve, monkeypatch):
    first = f"{NAMES[0]}.gz"
    dropping, wrong, good = handler(official, cut=[first]), handler(official, wrong=[first]), handler(official)
    monkeypatch.setattr(fetch, "MIRRORS", [serve(dropping), serve(wrong) + "/", serve(good) + "/"])
    assert same(load_fashion_mnist(), fashion)
    assert files(nowhere) == sorted(f"{n}.gz" for n in NAMES)
    assert wrong.asked == [first] and good.asked == [first]
    monkeypatch.setattr(fetch, "MIRRORS", [])
    assert same(load_fashion_mnist(), fashion), "the second time it is all in the cache"


def test_download_that_fails_leaves_no_part_and_can_go_on(official, fashion, nowhere, serve, monkeypatch):
    last = f"{NAMES[3]}.gz"
    monkeypatch.setattr(fetch, "MIRRORS", [serve(handler(official, cut=[last], wrong=[f"{NAMES[1]}.gz"]))])
    with pytest.raises(FileNotFoundError, match="download: "): load_fashion_mnist()
    assert set(files(nowhere)) <= {f"{NAMES[0]}.gz", f"{NAMES[2]}.gz"}
    for name in files(nowhere): fetch.verified(nowhere / name, name.removesuffix(".gz"))
    monkeypatch.setattr(fetch, "MIRRORS", [serve(handler(official))])
    assert same(load_fashion_mnist(), fashion)


def test_damaged_cache_is_named(official, nowhere):
    nowhere.mkdir()
    for name in NAMES: (nowhere / f"{name}.gz").write_bytes((official / f"{name}.gz").read_bytes()[:1000])
    with pytest.raises(ValueError, match="the cache is damaged; remove the file and"): load_fashion_mnist()
    (nowhere / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(ValueError, match="the cache is damaged; remove the file and"): load_fashion_mnist()


def test_two_processes_fill_the_cache_at_once(official, serve, tmp_path):
    url = serve(handler(official))
    code = ("import sys; from pathlib import Path; from fashion_proto import data\n"
            f"data._DEBIAN = Path('/nowhere'); data.MIRRORS[:] = ['{url}/']\n"
            f"data.platformdirs.user_cache_path = lambda name: Path({str(tmp_path / 'cache')!r})\n"
            "train, test = data.load_fashion_mnist(); assert len(train) == 60000 and len(test) == 10000")
    env = {k: v for k, v in os.environ.items() if k != "FASHION_MNIST_DIR"}
    jobs = [subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE) for _ in range(2)]
    for job in jobs: assert job.wait(120) == 0, job.stderr.read().decode()
    for job in jobs: job.stderr.close()
    assert files(tmp_path / "cache") == sorted(f"{n}.gz" for n in NAMES)


def test_cache_that_cannot_be_written(official, nowhere, serve, monkeypatch, tmp_path):
    good = handler(official)
    monkeypatch.setattr(fetch, "MIRRORS", [serve(good)])
    (tmp_path / "file").write_text("")
    blocked = [tmp_path / "file" / "cache"]
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        blocked.append(tmp_path / "locked")
    for cache in blocked:
        monkeypatch.setattr(data.platformdirs, "user_cache_path", lambda name: cache)
        with pytest.raises(FileNotFoundError, match="cannot be written"): load_fashion_mnist()
    assert not good.asked, "nothing is fetched that could not be kept"


# ---- LabelledImages, as_float ----------------------------------------------------------------------------------------

def test_labelled_images(fashion):
    train = fashion[0]
    image, label = train[0]
    assert label == "Ankle boot" and image.shape == (28, 28) and train[np.int64(-1)][1] == train.labels[-1]
    assert len(train[(2,)]) == len(train[np.array(3)]) == 1
    assert len(train[:7]) == 7 and len(train[train.labels == "Bag"]) == 6000 and list(train[[3, 1]].labels) == [train.labels[3], train.labels[1]]
    assert train[:0].images.shape == (0, 28, 28)
    with pytest.raises(dataclasses.FrozenInstanceError): train.images = None
    frame = train[:3].frame()
    assert frame.shape == (3, 785) and frame.columns[0] == "label" and frame["label"].tolist() == [9, 0, 0]
    assert (frame.iloc[1, 1:].to_numpy() == train.images[1].ravel()).all()


@pytest.mark.parametrize("labels", [["b", "a", "b"], np.array([2, 1, 2]), pd.Series(["b", "a", "b"], index=[5, 6, 7])])
def test_labelled_images_of_ones_own(labels):
    pair = LabelledImages(np.zeros((3, 4)), labels)
    assert pair.labels.codes.tolist() == [1, 0, 1] and pair.frame().shape == (3, 5)


@pytest.mark.parametrize("images, labels, message", [
    (np.zeros((3, 4)), ["a"], "as many as images, 3, got 1"), (np.zeros(3), [1, 2, 3], r"2 dimensions or more, got shape \(3,\)"),
    (np.zeros((2, 2)), ["a", None], "must not be missing, got 1")])
def test_labelled_images_refuses(images, labels, message):
    with pytest.raises(ValueError, match=message): LabelledImages(images, labels)


@pytest.mark.parametrize("files", [("a", "b", "c"), ["a", "b", "c"], np.array(["a", "b", "c"])])
def test_names_of_files_travel_with_their_images(files):
    named = LabelledImages(np.zeros((3, 4)), list("xyx"), files=files)
    assert named.files == ("a", "b", "c") and named[1:].files == ("b", "c") and named[[2, 0]].files == ("c", "a")
    train, valid = named.split(1 / 3)
    assert sorted(train.files + valid.files) == ["a", "b", "c"]


@pytest.mark.parametrize("files", [["a"], ["a", "b", "c", "d"]])
def test_files_must_be_as_many_as_images(files):
    with pytest.raises(ValueError, match=f"files must be as many as images, 3, got {len(files)}"):
        LabelledImages(np.zeros((3, 4)), list("xyx"), files=files)


def test_split(fashion):
    train = fashion[0]
    a, b = train.split(), train.split()
    assert (a[1].images == b[1].images).all() and len(a[0]) == 48000 and len(a[1]) == 12000
    rows = LabelledImages(np.arange(60000).reshape(-1, 1), train.labels)
    small, valid = rows.split(random_state=7)
    assert sorted(np.r_[small.images[:, 0], valid.images[:, 0]]) == list(range(60000)), "each image is in one part, once"
    assert (np.diff(small.images[:, 0]) > 0).all() and (valid.labels == train.labels[valid.images[:, 0]]).all()
    assert (np.bincount(train.split(stratify=True)[1].labels.codes) == 1200).all()
    assert len(train[:100].split(0.07)[1]) == 7 and len(train[:100].split(np.float32(0.2))[1]) == 20
    with pytest.raises(ValueError, match="must leave images of 2 to train on"): train[:2].split(0.9)
    for bad in 0, 1, -0.1, 1.5, float("nan"):
        with pytest.raises(ValueError, match="valid_fraction must be between 0 and 1"): train.split(bad)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint16"])
def test_as_float(dtype):
    got = as_float(np.array([[0, 51, 255]], dtype))
    assert got.dtype == np.float32 and np.allclose(got, [[0, 0.2, 1]]) and as_float(got) is not got
    assert (as_float(got) == got).all() and as_float(np.empty((0, 28, 28), dtype)).shape == (0, 28, 28)


@pytest.mark.parametrize("bad, error", [(np.array([256]), ValueError), (np.array([-1]), ValueError), (np.array([1.5]), ValueError),
                                        (np.array([np.nan]), ValueError), (np.array(["1"]), TypeError), (np.array([True]), TypeError)])
def test_as_float_refuses(bad, error):
    with pytest.raises(error, match="images"): as_float(bad)
