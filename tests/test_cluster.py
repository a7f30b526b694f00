"""`ClusterKNN`: the answers of `KNN` for any cut, every kind of source, clusters with workers that die, come late or are none, files that are missing, cut or changed."""
import logging
import os
import pickle
import signal
import sys
import threading
import time
import weakref

import dask.array
import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from conftest import ROOT
from fashion_proto.cluster import ClusterKNN, _variants
from fashion_proto.copies import near_duplicates
from fashion_proto.core import pieces, shards
from fashion_proto.core.shards import ask, merged, make_shard
from fashion_proto.knn import KNN


@parametrize_with_checks([ClusterKNN(progress=False), ClusterKNN(2, weights="distance", shard_size=20, progress=False)])
def test_sklearn(estimator, check): check(estimator)


def same(ours, theirs):
    for one, other in zip(ours, theirs): assert (one == other).all()


@pytest.fixture(scope="module")
def garments(fashion):
    train, test = fashion
    return train.images[:9000], np.asarray(train.labels)[:9000], test.images[:300]


@pytest.fixture(scope="module")
def whole(garments): return KNN(5).fit(*garments[:2])


# The same answers

@settings(max_examples=25, deadline=None)
@given(st.integers(2, 90), st.integers(1, 60), st.integers(1, 12), st.sampled_from(["euclidean", "manhattan", "chebyshev"]),
       st.sampled_from([np.uint8, np.int64, np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_any_cut_gives_the_same(n, size, k, metric, kind, seed):
    "Copies across shards, shards smaller than k, and a grid on which most distances tie."
    rng = np.random.default_rng(seed)
    X, y, k = (rng.integers(0, 3, (n, 3)) / 7 * 7).astype(kind), rng.integers(0, 3, n), min(k, n - 1)
    ours, theirs = (model.fit(X, y) for model in (ClusterKNN(k, metric=metric, shard_size=size, n_jobs=2, progress=False), KNN(k, metric=metric)))
    queries = (X[:20] + 1).astype(kind)
    for asked in None, queries:
        same(ours.kneighbors(asked), theirs.kneighbors(asked))
        for one, other in zip(ours.radius_neighbors(asked, 1.5), theirs.radius_neighbors(asked, 1.5)): same(one, other)
    assert (ours.predict(queries) == theirs.predict(queries)).all() and (ours.predict_proba(queries) == theirs.predict_proba(queries)).all()


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("cuts", [[4500], [3, 6000, 6001], [5000, 5000, 8999]])
def test_by_bounds_and_without(garments, tmp_path, kind, cuts):
    "Large and small shards, an empty one, and any order of arrival."
    images, labels, queries = garments
    images, queries = (a.astype(kind).reshape(len(a), -1) for a in (images, queries[:60]))
    expected = KNN(5).fit(images, labels).kneighbors(queries)
    ends, cards = [0, *cuts, len(images)], []
    for i, (a, b) in enumerate(zip(ends, ends[1:])):
        if a < b: cards.append(make_shard(images[a:b], i, a, b - a, str(tmp_path / f"{i}"), (784,), images.dtype, "euclidean"))
    answers = [ask(card, "euclidean", queries, 5, 0, None) for card in cards]
    for order in np.random.default_rng(0).permuted([range(len(cards))] * 2, axis=1):
        found, best = merged(5, *(answers[i] for i in order)), None
        for i in order: best = merged(5, *([best] if best else []), ask(cards[i], "euclidean", queries, 5, 0, best))
        for answer in found, best: same(answer[:2], expected)


def test_cosine(garments):
    images, labels, queries = garments
    ours, theirs = (model.fit(images, labels) for model in (ClusterKNN(5, metric="cosine", shard_size=4000, progress=False), KNN(5, metric="cosine")))
    (far, at), (near, same_at) = ours.kneighbors(queries), theirs.kneighbors(queries)
    np.testing.assert_allclose(far, near, rtol=1e-12, atol=1e-15)
    assert (at == same_at).mean() > 0.999 and (ours.predict(queries) == theirs.predict(queries)).mean() > 0.99


def test_shards_out_of_reach_are_not_asked():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(c, 1, (100, 4)) for c in (0, 1000, 5000)])
    model = ClusterKNN(3, shard_size=100, n_jobs=1, progress=False).fit(X, np.repeat([0, 1, 2], 100))
    assert (model.trace(X[:50])["asked"] == [50, 0, 0]).all()
    same(model.kneighbors(X[:50]), KNN(3).fit(X, np.zeros(300)).kneighbors(X[:50]))


def test_limits_save_a_third(fashion):
    "Points compared in full, on the second and later shards."
    images, labels = fashion[0].images[:40_000], fashion[0].labels[:40_000]
    model = ClusterKNN(10, shard_size=10_000, progress=False).fit(images, labels)
    with_limits, without = (model.trace(fashion[1].images[:400], limits=limits) for limits in (True, False))
    later = [trace.loc[trace["wave"] > 0, "in_full"].sum() for trace in (with_limits, without)]
    assert later[0] < 2 / 3 * later[1]


# Sources

def test_every_source(garments, whole, tmp_path):
    images, labels, queries = garments
    np.save(tmp_path / "all.npy", images)
    for i, part in enumerate(np.split(images, [2000, 2003])): np.save(tmp_path / f"part{i}.npy", part)
    zarr.create_array(tmp_path / "all.zarr", data=images, chunks=(1000, 28, 28))
    np.save(tmp_path / "labels.npy", labels.astype(str))
    pd.DataFrame({"name": labels}).to_parquet(tmp_path / "labels.parquet")
    expected = whole.kneighbors(queries)
    for X in (images, str(tmp_path / "all.npy"), [tmp_path / f"part{i}.npy" for i in range(3)], np.load(tmp_path / "all.npy", mmap_mode="r"),
              zarr.open_array(tmp_path / "all.zarr", mode="r"), tmp_path / "all.zarr", dask.array.from_array(images, chunks=(3500, 14, 28))):
        for y in (labels, tmp_path / "labels.npy", (tmp_path / "labels.parquet", "name"), dask.array.from_array(labels.astype(str))):
            model = ClusterKNN(5, shard_size=4000, progress=False).fit(X, y)
            same(model.kneighbors(queries), expected)
            assert model.image_shape_ == (28, 28) and model.predict(queries[:5]).tolist() == whole.predict(queries[:5]).tolist()
            if X is not images: break
    np.save(tmp_path / "queries.npy", queries)
    same(model.kneighbors(tmp_path / "queries.npy"), expected)


def test_sources_that_are_wrong(garments, tmp_path):
    images, labels, _ = garments
    np.save(tmp_path / "a.npy", images[:50])
    np.save(tmp_path / "wide.npy", images[:50, :, :20])
    np.save(tmp_path / "floats.npy", images[:50] / 255)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    for X, error, text in [("none.npy", FileNotFoundError, "none.npy"), (["a.npy", "wide.npy"], ValueError, "wide.npy"), (["a.npy", "floats.npy"], ValueError, "float64"),
                           ("cut.npy", ValueError, "cut.npy is damaged")]:
        X = [tmp_path / name for name in X] if isinstance(X, list) else tmp_path / X
        with pytest.raises(error, match=text): ClusterKNN().fit(X, np.tile(labels[:50], 2))
    with pytest.raises(ValueError, match="y must be one for each of 50"): ClusterKNN().fit(tmp_path / "a.npy", labels[:49])
    with pytest.raises(TypeError, match="dtype"): ClusterKNN().fit(dask.array.from_array(labels.astype(str)[:, None]), labels)
    lying = dask.array.map_blocks(lambda block: block.astype(float), dask.array.from_array(images[:50], chunks=(25, 28, 28)), dtype=np.uint8)
    with pytest.raises(ValueError, match="from row"): ClusterKNN(progress=False).fit(lying, labels[:50])
    nan = dask.array.from_array(np.full((50, 3), np.nan))
    with pytest.raises(ValueError, match="finite"): ClusterKNN(progress=False).fit(nan, labels[:50])


@pytest.mark.parametrize("new, error, text", [
    (dict(n_neighbors=0), ValueError, "n_neighbors"), (dict(n_neighbors=51), ValueError, "n_samples = 50"), (dict(shard_size=0), ValueError, "shard_size"),
    (dict(shard_size=2.5), TypeError, "shard_size"), (dict(folder="/nowhere"), FileNotFoundError, "folder must exist"), (dict(client="tcp://here"), TypeError, "client must be"),
    (dict(metric="l2"), ValueError, "metric must be one of"), (dict(metric=np.dot), TypeError, "metric must have a name"), (dict(progress=3), TypeError, "progress")])
def test_parameters_that_are_wrong(garments, new, error, text):
    with pytest.raises(error, match=text): ClusterKNN(**new).fit(garments[0][:50], garments[1][:50])


def test_too_little_memory_is_said(garments, monkeypatch):
    monkeypatch.setattr(shards, "memory_left", lambda: 10**6)
    with pytest.raises(MemoryError, match="shard_size must be smaller: 9000 images take 0.21 GB"): ClusterKNN(progress=False).fit(*garments[:2])


# Files

def test_save_and_load(garments, whole, tmp_path):
    images, labels, queries = garments
    model = ClusterKNN(5, shard_size=4000, progress=False).fit(images, labels)
    model.save(tmp_path / "index")
    back = ClusterKNN.load(tmp_path / "index")
    held = model.shards_[0].path
    del model
    assert not os.path.exists(held)                                    # the temporary folder went with its owner
    same(back.kneighbors(queries), whole.kneighbors(queries))
    assert back.get_params() == ClusterKNN(5, shard_size=4000, progress=False).get_params() and back.image_shape_ == (28, 28)
    assert (back.predict(queries) == whole.predict(queries)).all()
    back.fit(images[:100], labels[:100]).save(tmp_path / "index")       # over the old one
    assert len(list((tmp_path / "index").glob("*.shard"))) == 1 and ClusterKNN.load(tmp_path / "index").n_samples_fit_ == 100
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="path must be a new folder"): back.save(tmp_path / "other")
    with pytest.raises(TypeError, match="weights"): back.set_params(weights=np.ones_like).save(tmp_path / "third")
    assert not (tmp_path / "third").exists()
    with pytest.raises(FileNotFoundError, match="nothing"): ClusterKNN.load(tmp_path / "nothing")


def test_files_that_are_missing_cut_or_changed(garments, tmp_path):
    images, labels, queries = garments
    for harm, error in [(os.remove, FileNotFoundError), (lambda path: os.truncate(path, 5000), ValueError), (lambda path: os.replace(other, path), ValueError)]:
        model = ClusterKNN(5, shard_size=4000, progress=False).fit(images, labels)
        other = ClusterKNN(5, folder=tmp_path, progress=False).fit(images[::-1][:4000], labels[:4000])
        kept, other = other, other.shards_[0].path
        path = model.shards_[1].path
        model.kneighbors(queries[:3])                                  # opened, then harmed
        harm(path)
        with pytest.raises(error, match=f"{path}.*|{os.path.basename(path)}"): model.kneighbors(queries[:3])
        del kept


def test_copies_of_a_model(garments, whole):
    images, labels, queries = garments
    model = ClusterKNN(5, shard_size=5000, n_jobs=1, progress=False).fit(images, labels)
    path = model.shards_[0].path
    again = pickle.loads(pickle.dumps(model))
    same(again.kneighbors(queries), whole.kneighbors(queries))
    del again
    assert os.path.exists(path) and clone(model).get_params() == model.get_params()
    fig = model.explain(queries[0])
    assert len(fig.axes) > 4
    graph = model.kneighbors_graph(queries[:9])
    assert (graph != whole.kneighbors_graph(queries[:9])).nnz == 0


def test_without_dask(garments):
    code = ("import sys; sys.modules['dask'] = None\nfrom fashion_proto.cluster import ClusterKNN\n"
            "try: ClusterKNN().fit([[0.], [1.], [2.], [3.], [4.]], [0, 1, 0, 1, 0])\nexcept ModuleNotFoundError as e: print(e)")
    import subprocess
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 'pip install "fashion_proto[cluster]"' in done.stdout


# Clusters

@pytest.fixture(scope="module", autouse=True)
def forks():
    "Workers are forked from a process that has imported the package, which takes seconds; chapter 13 starts them in Dask's own way."
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "fashion_proto.cluster"])
        yield


def cluster(n=2, **more):
    return LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL, **more)


def test_on_a_cluster(garments, whole, tmp_path):
    "The active client is found; workers read the files; a late worker is used; scikit-learn's clone keeps the client."
    images, labels, queries = garments
    np.save(tmp_path / "all.npy", images)
    with cluster(1) as one, Client(one) as client:
        for X in tmp_path / "all.npy", images:
            model = ClusterKNN(5, shard_size=2000, folder=tmp_path, progress=False).fit(X, labels)
            same(model.kneighbors(queries), whole.kneighbors(queries))
        assert set(model.trace(queries)["process"]) == {os_pid for os_pid in client.run(os.getpid).values()}
        one.scale(2)
        client.wait_for_workers(2)
        assert len(set(pd.concat([model.trace(np.repeat(queries, 10, axis=0)) for _ in range(3)])["process"])) == 2
        assert clone(ClusterKNN(client=client)).client is client
        pairs = near_duplicates(images[:900], threshold=0.95)
        chunks = dask.array.from_array(images[:900], chunks=(400, 28, 28))
        np.save(tmp_path / "some.npy", images[:900])
        for stored in chunks, chunks.persist(), tmp_path / "some.npy":
            pd.testing.assert_frame_equal(near_duplicates(stored, threshold=0.95), pairs, check_exact=False)
    with pytest.raises(ValueError, match="client must be connected"): ClusterKNN(client=client).fit(images, labels)
    same(model.kneighbors(queries), whole.kneighbors(queries))          # by threads, now that there is no client


def test_a_worker_is_killed(garments, whole, tmp_path):
    "A real process, SIGKILL, in the middle of a search."
    images, labels, queries = garments
    many = np.tile(queries, (40, 1, 1))
    with cluster(2) as two, Client(two) as client:
        model = ClusterKNN(5, shard_size=1000, folder=tmp_path, client=client, progress=False).fit(images, labels)
        victim, done = list(client.run(os.getpid).values())[0], []
        thread = threading.Thread(target=lambda: done.append(model.kneighbors(many)))
        thread.start()
        time.sleep(0.4)
        assert thread.is_alive()
        os.kill(victim, signal.SIGKILL)
        thread.join(120)
        assert done and victim not in client.run(os.getpid).values()
        same(done[0], [np.tile(a, (40, 1)) for a in whole.kneighbors(queries)])


def test_no_workers_and_other_versions(garments, monkeypatch):
    images, labels, _ = garments
    with cluster(0) as none, Client(none) as client:
        with pytest.raises(TimeoutError, match="client must have workers"): pieces.check_workers(client, wait=0.5)
        none.scale(1)
        client.wait_for_workers(1)
        found = client.get_versions(packages=["fashion_proto", "numba"])
        next(iter(found["workers"].values()))["packages"]["numba"] = "0.1"
        monkeypatch.setattr(client, "get_versions", lambda **more: found)
        with pytest.raises(ValueError, match="'numba': '0.1'"): ClusterKNN(client=client).fit(images, labels)


# Two hundred thousand

def test_larger_than_what_is_mapped(fashion, tmp_path, monkeypatch):
    "Shards are opened and dropped again: the answers of `KNN` for 120 000 images, read from a file."
    train, test = fashion
    file = np.lib.format.open_memmap(tmp_path / "all.npy", "w+", np.uint8, (120_000, 28, 28))
    for start in range(0, 120_000, 30_000): file[start:start + 30_000] = _variants(train.images, start, start + 30_000)
    labels = np.asarray(train.labels.codes)[np.arange(120_000) % 60_000]
    monkeypatch.setattr(shards, "OPEN_BYTES", 6 * 10**7)
    model = ClusterKNN(5, shard_size=30_000, progress=False).fit(tmp_path / "all.npy", labels)
    found = model.kneighbors(test.images[:500])
    assert sum(size for *_, size in shards.opened.values()) < 1.2e8
    same(found, KNN(5).fit(np.load(tmp_path / "all.npy", mmap_mode="r"), labels).kneighbors(test.images[:500]))


def test_variants(fashion):
    images = fashion[0].images
    assert (_variants(images, 0, 100) == images[:100]).all() and (_variants(images, 75_000, 75_010, 1) != _variants(images, 75_000, 75_010)).any()
    with pytest.raises(ValueError, match="stop must be from 5 on"): _variants(images, 5, 4)
    with pytest.raises(TypeError, match="uint8"): _variants(images / 255, 0, 1)


# What else takes images that are not in memory

def test_pairs_of_pieces_keep_nothing():
    "Of twelve chunks no more are in memory at a time than two threads compare."
    alive, most = set(), []
    def chunk(block_info=None):
        images = np.random.default_rng(block_info[None]["chunk-location"][0]).random((30, 8, 8))
        alive.add(id(images))
        weakref.finalize(images, alive.discard, id(images))
        most.append(len(alive))
        return images

    chunks = dask.array.map_blocks(chunk, chunks=((30,) * 12, (8,), (8,)), dtype=float, meta=np.empty((0, 0, 0)))
    pairs = near_duplicates(chunks, threshold=0.5, n_jobs=2)
    assert len(most) == 12 * 12 and max(most) <= 6
    pd.testing.assert_frame_equal(pairs, near_duplicates(chunks.compute(), threshold=0.5), check_exact=False)


def test_near_duplicates_and_learning_curve(fashion, tmp_path):
    "The pairs and the errors of images in memory."
    from types import SimpleNamespace

    from fashion_proto.scaling import learning_curve
    train, valid = fashion[0][:1500], fashion[1][:300]
    np.save(tmp_path / "all.npy", train.images)
    chunks = dask.array.from_array(train.images, chunks=(650, 28, 28))
    for options in {}, dict(flips=True, shifts=1):
        expected = near_duplicates(train.images, threshold=0.97, **options)
        assert len(expected) > 5
        for stored in chunks, tmp_path / "all.npy":
            pd.testing.assert_frame_equal(near_duplicates(stored, threshold=0.97, **options), expected, check_exact=False)
    across = near_duplicates(chunks, valid.images, threshold=0.96)
    pd.testing.assert_frame_equal(across, near_duplicates(train.images, valid.images, threshold=0.96), check_exact=False)
    plain = learning_curve(train, valid, [100, 500], seeds=[0, 1])
    stored = learning_curve(SimpleNamespace(images=chunks, labels=train.labels), valid, [100, 500], seeds=[0, 1])
    pd.testing.assert_frame_equal(plain[["n", "seed", "error"]], stored[["n", "seed", "error"]])
