"""Reading whatever is there: folders, archives, tables and stores, labelled or not, whole or broken."""
import builtins
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fashion_proto.audit import audit
from fashion_proto.faults import image_faults, image_measures
from fashion_proto.reading import read_images, read_sets
from PIL import Image
from scipy.ndimage import gaussian_filter


def draw(path, shape=(20, 30), mode="RGB", seed=0, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **more)
    return path


# Faults of single images

@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int16, bool])
@pytest.mark.parametrize("colours", [False, True])
def test_measures_have_their_units(dtype, colours):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 16, 12, 3) if colours else (9, 16, 12))
    images[0] = 0
    images = images > 127 if dtype is bool else (images / 255).astype(dtype) if np.dtype(dtype).kind == "f" else (images * (np.iinfo(dtype).max // 255)).astype(dtype)
    table = image_measures(images)
    assert (table[["height", "width"]].to_numpy() == [16, 12]).all() and table["range"][0] == 0 and table["information"][0] == 0 and table["sharpness"][0] == 0
    whole = table.iloc[1:]
    assert whole["brightest"].between(0.8 if colours and dtype is not bool else 0.6, 1).all() and whole["darkest"].between(0, 0.4).all() and (whole["contrast"] > 0.05).all()
    assert whole["colour"].isna().all() != colours
    found = image_faults(table)
    assert found[found["fault"] == "blank"]["row"].tolist() == [0] and 0 not in found[found["fault"] != "blank"]["row"].tolist()


@pytest.mark.parametrize("kind, spoil", [
    ("dark", lambda x: x * 0.12), ("bright", lambda x: 255 - (255 - x) * 0.12), ("low contrast", lambda x: 128 + (x - 128) * 0.1),
    ("blurred", lambda x: gaussian_filter(x, (0, 1.5, 1.5))), ("blank", lambda x: np.full_like(x, 7))])
def test_planted_faults_of_garments(fashion, kind, spoil):
    images, rows = fashion[0].images[:3000].copy(), np.random.default_rng(1).permutation(3000)[:30]
    images[rows] = spoil(images[rows].astype(float)).round()
    found = image_faults(image_measures(images))
    own = found[found["fault"] == kind]
    assert np.isin(rows, own["row"]).mean() >= 0.9 and np.isin(own["row"][:30], rows).mean() >= 0.9      # the worst are the planted ones
    assert len(own) < 300 and (own["value"] <= own["low"]).all()


def test_cut_off_grey_and_odd_sizes():
    high, wide = np.mgrid[:40, :40]
    disc = ((high - 20)**2 + (wide - 20)**2 < 120) * 200.
    images = np.stack([np.roll(disc, (i % 5, i % 3), (0, 1)) + np.random.default_rng(i).random((40, 40)) * 5 for i in range(60)])
    images[7] = np.roll(disc, 18, 0)[:, ::1]
    images[7][:5] = 0
    table = image_measures(images.round().astype(np.uint8))
    assert image_faults(table).query("fault == 'cut off'")["row"].tolist() == [7]
    colours = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    colours[3] = colours[3, ..., :1]
    assert image_faults(image_measures(colours)).query("fault == 'grey among colours'")["row"].tolist() == [3]
    table.loc[5, ["height", "width"]] = 400, 400
    table.loc[6, ["height", "width"]] = 20, 80
    odd = image_faults(table)
    assert odd.query("fault == 'odd size'")["row"].tolist() == [5] and odd.query("fault == 'odd aspect ratio'")["row"].tolist() == [6]


def test_sharpness_is_judged_within_the_class():
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.random((60, 24, 24)), (0, 3, 3))
    rough = rng.random((60, 24, 24))
    rough[5] = gaussian_filter(rough[5], 1)
    table = image_measures(np.concatenate([smooth, rough]))
    labels = ["sky"] * 60 + ["wall"] * 60
    assert 65 in image_faults(table, labels).query("fault == 'blurred'")["row"].tolist()
    assert 65 not in image_faults(table).query("fault == 'blurred'")["row"].tolist()
    with pytest.raises(ValueError, match="labels must be one for each of 120"): image_faults(table, labels[:3])


# Folders

def test_flat_folder_mixed_sizes_and_loose_files(tmp_path):
    draw(tmp_path / "a.png", (20, 30))
    draw(tmp_path / "b.jpg", (300, 200), seed=1)
    draw(tmp_path / "c.png", (9, 9), "L", seed=2)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    (found,) = read_sets(tmp_path)
    assert found.images.shape == (3, 64, 64, 3) and found.labels is None and found.files == ("a.png", "b.jpg", "c.png")
    assert [name for name, _ in found.skipped] == ["readme.txt"] and "compared at 64 x 64" in found.notes[0]
    assert found.measures[["height", "width"]].to_numpy().tolist() == [[20, 30], [300, 200], [9, 9]]
    assert found.original(1).shape == (300, 200, 3) and found.original(2).shape == (9, 9)
    draw(tmp_path / "dog" / "d.png", (20, 30), seed=3)
    (mixed,) = read_sets(tmp_path)
    assert mixed.labels.tolist() == [None, None, None, "dog"]
    (boxed,) = read_sets(tmp_path, size=(10, 40), fit="letterbox")
    assert boxed.images.shape[1:3] == (10, 40) and "ground of their border" in boxed.notes[1]


def test_small_pictures_of_one_size_stay_as_they_are(tmp_path):
    for i in range(4): draw(tmp_path / "ab"[i % 2] / f"{i}.png", (30, 20), seed=i)
    (found,) = read_sets(tmp_path)
    assert found.images.shape == (4, 30, 20, 3) and not found.notes and np.array_equal(found.images[0], found.original(0))


def test_turned_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "a.jpg", (20, 50), exif=exif)
    (found,) = read_sets(tmp_path)
    assert found.original(0).shape == (50, 20, 3) and found.measures[["height", "width"]].to_numpy().tolist() == [[50, 20]]


@pytest.mark.parametrize("sets, ours, others", [(("train", "val"), 2, 2), (("train", "val", "test"), 2, 4), (("training", "testing"), 2, 2)])
def test_root_with_sets(tmp_path, sets, ours, others):
    for i, name in enumerate(sets):
        for label in "ab": draw(tmp_path / name / label / f"{i}.png", seed=10 * i + ord(label))
    train, test = read_sets(tmp_path)
    assert len(train) == ours and len(test) == others and sorted(set(test.labels)) == ["a", "b"] and train.files[0].startswith(sets[0])
    with pytest.raises(ValueError, match="train must be one set, got the path of two"): audit(tmp_path, tmp_path)
    assert audit(tmp_path).leaks is not None


def test_empty_classes_are_told(tmp_path):
    for i in range(3): draw(tmp_path / "a" / f"{i}.png", seed=i)
    for i in range(3): draw(tmp_path / "b" / f"{i}.png", seed=i + 5)
    (tmp_path / "c").mkdir()
    found = audit(tmp_path)
    assert found.classes.loc["c", "train"] == 0 and found.findings["found"]["rare_classes"] == 3


def test_broken_files_of_many_kinds_are_listed(tmp_path):
    good = draw(tmp_path / "good.png").read_bytes()
    jpeg = draw(tmp_path / "good.jpg", (64, 64)).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(40):
        data = bytearray(good if i % 2 else jpeg)
        for at in rng.integers(0, len(data), 6): data[at] = rng.integers(256)
        (tmp_path / f"flipped{i}.{'png' if i % 2 else 'jpg'}").write_bytes(bytes(data))
        (tmp_path / f"cut{i}.png").write_bytes(good[:int(rng.integers(0, len(good) - 20))])
    (found,) = read_sets(tmp_path)
    assert len(found) + len(found.skipped) == 82 and len(found.skipped) >= 40 and all(why for _, why in found.skipped)
    report = audit(found)
    assert report.findings["found"]["unreadable"] == len(found.skipped)
    with pytest.raises(ValueError, match="path must hold pictures that can be read, got 1 files"):
        (tmp_path / "none").mkdir()
        (tmp_path / "none" / "x.png").write_bytes(b"x")
        read_sets(tmp_path / "none")


# Arrays, tables, stores

def test_arrays_by_name_and_without_labels(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (12, 5, 5)).astype(np.uint8), np.array(list("abc") * 4)
    np.save(tmp_path / "i.npy", images)
    np.save(tmp_path / "l.npy", labels)
    assert read_sets(tmp_path / "i.npy")[0].labels is None
    assert isinstance(read_sets(tmp_path / "i.npy")[0].images.base, np.memmap) or isinstance(read_sets(tmp_path / "i.npy")[0].images, np.memmap)
    assert read_sets(tmp_path / "i.npy", labels=tmp_path / "l.npy")[0].labels.tolist() == labels.tolist()
    np.savez(tmp_path / "a.npz", pixels=images, kind=labels, other=np.arange(12))
    with pytest.raises(ValueError, match="images must say which array"): read_sets(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="images must name one of pixels, kind, other"): read_sets(tmp_path / "a.npz", images="pixel")
    (found,) = read_sets(tmp_path / "a.npz", images="pixels", labels="kind")
    assert np.array_equal(found.images, images) and found.labels.tolist() == labels.tolist()
    np.savez(tmp_path / "bare.npz", anything=images)
    assert read_sets(tmp_path / "bare.npz")[0].labels is None
    np.savez(tmp_path / "objects.npz", images=np.array([None, 1], dtype=object))
    with pytest.raises(ValueError, match="Python objects are not loaded"): read_sets(tmp_path / "objects.npz")
    for name in ("i.npy", "a.npz"):
        (tmp_path / f"cut_{name}").write_bytes((tmp_path / name).read_bytes()[:200])
        with pytest.raises(ValueError): read_sets(tmp_path / f"cut_{name}")
    with pytest.raises(FileNotFoundError, match="path must be a file or folder"): read_sets(tmp_path / "no")
    with pytest.raises(ValueError, match="fit must be one of"): read_sets(tmp_path / "i.npy", fit="crop")


def test_labels_with_gaps(tmp_path):
    (tmp_path / "a.csv").write_text("label,x,y\n1,2,3\n,4,5\n2,6,7\n")
    assert read_sets(tmp_path / "a.csv")[0].labels.tolist() == [1, None, 2]
    (tmp_path / "b.csv").write_text("u,v\n2,3\n4,5\n")
    assert read_sets(tmp_path / "b.csv")[0].labels is None
    (tmp_path / "c.csv").write_text("label,x,y\ncat,2,3\nNA,4,5\n,6,7\n")
    assert read_sets(tmp_path / "c.csv")[0].labels.tolist() == ["cat", "NA", None]         # a class may be called NA
    with pytest.raises(ValueError, match="exactly one of labels"): read_images(tmp_path / "b.csv")


def test_tables_of_paths(tmp_path):
    for i in range(4): draw(tmp_path / "pics" / f"{i}.png", seed=i)
    pd.DataFrame({"file_name": [f"pics/{i}.png" for i in range(4)] + ["pics/none.png"], "target": list("abab") + [None]}).to_csv(tmp_path / "t.csv", index=False)
    (found,) = read_sets(tmp_path / "t.csv")
    assert found.files[0] == "pics/0.png" and found.labels.tolist() == list("abab") and [name for name, _ in found.skipped] == ["pics/none.png"]


def hugging_face(path, rows, labels, flat=False):
    import pyarrow
    import pyarrow.parquet
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    images = [{"bytes": row.read_bytes(), "path": row.name} for row in rows]
    columns = {"image.bytes": [image["bytes"] for image in images]} if flat else {"image": images}
    table = pyarrow.table(columns | {"label": labels}).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize("flat", [False, True])
def test_parquet_as_hugging_face_writes_it(tmp_path, flat):
    pytest.importorskip("pyarrow")
    rows = [draw(tmp_path / "pics" / f"{i}.jpg", (40, 30), seed=i) for i in range(5)]
    rows[4].write_bytes(b"broken")
    hugging_face(tmp_path / "one.parquet", rows, [0, 1, -1, 1, 0], flat)
    (found,) = read_sets(tmp_path / "one.parquet")
    assert found.labels.tolist() == ["cat", "dog", None, "dog"] and found.classes == ("cat", "dog") and len(found.skipped) == 1
    (folder,) = read_sets(tmp_path / "pics")
    assert [found.content(i) for i in range(4)] == [folder.content(i) for i in range(4)]        # a judgement holds in either
    data = tmp_path / "data"
    data.mkdir()
    hugging_face(data / "train-00000-of-00002.parquet", rows[:2], [0, 1])
    hugging_face(data / "train-00001-of-00002.parquet", rows[2:3], [1])
    hugging_face(data / "test-00000-of-00001.parquet", rows[:2], [0, 1])
    train, test = read_sets(data)
    assert len(train) == 3 and len(test) == 2 and audit(data).findings["found"]["leaks"] == 2


def test_parquet_of_numbers_paths_and_lists(tmp_path):
    pytest.importorskip("pyarrow")
    numbers = np.random.default_rng(0).normal(size=(6, 4))
    pd.DataFrame(numbers, columns=list("wxyz")).assign(label=list("ababab")).to_parquet(tmp_path / "n.parquet")
    assert np.allclose(read_sets(tmp_path / "n.parquet")[0].images, numbers)
    pd.DataFrame({"embeddings": list(numbers), "label": list("ababab")}).to_parquet(tmp_path / "e.parquet")
    assert np.allclose(read_sets(tmp_path / "e.parquet")[0].images, numbers)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "n.parquet").read_bytes()[:300])
    with pytest.raises(ValueError, match="cut.parquet is damaged"): read_sets(tmp_path / "cut.parquet")


def test_zarr_arrays_and_groups(tmp_path):
    zarr = pytest.importorskip("zarr")
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 6)).astype(np.uint8)
    zarr.save_array(str(tmp_path / "one.zarr"), images)
    assert np.array_equal(read_sets(tmp_path / "one.zarr")[0].images, images)
    group = zarr.open_group(str(tmp_path / "two.zarr"), mode="w")
    group.create_array("images", data=images)
    group.create_array("labels", data=np.arange(7) % 2)
    (found,) = read_sets(tmp_path / "two.zarr")
    assert np.array_equal(found.images, images) and found.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    (tmp_path / "not.zarr").mkdir()
    (tmp_path / "not.zarr" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="is not a zarr store one can read"): read_sets(tmp_path / "not.zarr")


@pytest.mark.parametrize("module, name, line", [("pyarrow", "a.parquet", r'pip install "fashion_proto\[parquet\]"'), ("zarr", "a.zarr", r'pip install "fashion_proto\[zarr\]"')])
def test_a_missing_library_gives_the_line_that_installs_it(tmp_path, monkeypatch, module, name, line):
    (tmp_path / name).write_bytes(b"x")
    real = builtins.__import__
    def refuse(asked, *args, **more):
        if asked.split(".")[0] == module: raise ImportError(asked)
        return real(asked, *args, **more)
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == module]: monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match=line): read_sets(tmp_path / name)


def test_extras_are_declared():
    text = (Path(__file__).parent.parent / "setup.py").read_text()
    assert '"parquet"' in text and '"zarr"' in text
