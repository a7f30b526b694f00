"""Planted faults, found by our audit, by CleanVision and by cleanlab's Datalab on the same sets:
recall, precision and time.

Needs the `bench` extra. Three sets of pictures are written to files: garments, digits, and pieces
of the two photographs that come with scikit-learn, in colours and of many sizes. Twenty pictures
of each are spoiled in each way. Faults that nobody planted count against precision in all three,
though some are real.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from common import seconds
from PIL import Image
from scipy.ndimage import gaussian_filter

LIBRARIES = "numpy scipy pillow cleanlab cleanvision"
EACH = 20


def garments():
    from fashion_proto.data import load_fashion_mnist

    train, _ = load_fashion_mnist()
    return list(train.images[:4000]), np.asarray(train.labels[:4000])


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits().images, load_digits().target
    return list((images * 255 / 16).round().astype(np.uint8)), np.array([f"d{i}" for i in labels])


def photographs(n=1500):
    from sklearn.datasets import load_sample_images

    rng, out, labels = np.random.default_rng(0), [], []
    photos = load_sample_images().images
    for i in range(n):
        photo, side = photos[i % 2], rng.integers(96, 200)
        y, x = (rng.integers(0, size - side) for size in photo.shape[:2])
        out.append(photo[y : y + side, x : x + side])
        labels.append(["temple", "flower"][i % 2])
    return out, np.array(labels)


def blurred(image):
    sigma = max(1.2, min(image.shape[:2]) / 40)
    return gaussian_filter(image.astype(float), (sigma, sigma, 0)[: image.ndim])


def grey(image):
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)


def wide(image):
    return np.asarray(Image.fromarray(image).resize((image.shape[1] * 3, image.shape[0])))


def large(image):
    return np.asarray(Image.fromarray(image).resize((image.shape[1] * 6, image.shape[0] * 6)))


SPOILED = {
    "blank": lambda image: np.full_like(image, 90),
    "dark": lambda image: image * 0.12,
    "bright": lambda image: 255 - (255 - image) * 0.12,
    "low contrast": lambda image: 128 + (image - 128.0) * 0.1,
    "blurred": blurred,
    "odd size": large,
    "odd aspect ratio": wide,
    "grey among colours": grey,
}


def planted(images, labels):
    "The set with spoiled images and copies, and what was done to which rows."
    rng, images = np.random.default_rng(1), list(images)
    ways = dict(SPOILED)
    if images[0].ndim == 2:
        del ways["grey among colours"]
    rows = rng.permutation(len(images))[: EACH * (len(ways) + 2)].reshape(-1, EACH)
    truth = dict(zip([*ways, "exact copy", "near copy"], rows))
    for name, way in ways.items():
        for i in truth[name]:
            images[i] = np.asarray(way(images[i])).round().astype(np.uint8)
    copies = [images[i] for i in truth["exact copy"]]
    copies += [(images[i] * 0.8 + 25).round().astype(np.uint8) for i in truth["near copy"]]
    ends = np.concatenate([truth["exact copy"], truth["near copy"]])
    for at, name in enumerate(("exact copy", "near copy")):
        second = len(images) + at * EACH + np.arange(EACH)
        truth[name] = np.concatenate([truth[name], second])
    return images + copies, np.concatenate([labels, labels[ends]]), truth


def scores(found, truth):
    "Recall and precision of the rows that were found."
    hit = np.isin(truth, found).sum()
    return {"recall": hit / len(truth), "precision": hit / len(found) if len(found) else None}


def ours(folder):
    "Rows by kind, in the order of the files."
    from fashion_proto.audit import audit

    found = audit(folder)
    faults, pairs = found.faults, found.pairs
    out = {name: faults[faults["fault"] == name]["row"].to_numpy() for name in SPOILED}
    exact = np.concatenate([[], *same(found.given[0])])
    out["exact copy"] = exact
    out["near copy"] = np.setdiff1d(pairs[["first", "second"]].to_numpy().ravel(), exact)
    return found.files, out


def same(given):
    "Groups of files of the same content."
    groups = {}
    for i in range(len(given)):
        groups.setdefault(given.content(i), []).append(i)
    return [rows for rows in groups.values() if len(rows) > 1]


NAMES = {
    "dark": "dark",
    "bright": "light",
    "blurred": "blurry",
    "blank": "low_information",
    "low contrast": "low_information",
    "odd size": "odd_size",
    "odd aspect ratio": "odd_aspect_ratio",
    "grey among colours": "grayscale",
    "exact copy": "exact_duplicates",
    "near copy": "near_duplicates",
}


def cleanvision(folder):
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder), verbose=False)
    lab.find_issues(verbose=False)
    names = [str(Path(name).relative_to(folder)) for name in lab.issues.index]
    return names, {
        kind: np.flatnonzero(lab.issues[f"is_{name}_issue"]) for kind, name in NAMES.items()
    }


def quietly(call, *args, **more):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return seconds(call, *args, **more)


def on_files(make):
    "Both tools on one set of files."
    images, labels, truth = planted(*make())
    out = {"images": len(images)}
    with tempfile.TemporaryDirectory() as folder:
        for i, (image, label) in enumerate(zip(images, labels)):
            path = Path(folder, str(label).replace("/", " "), f"{i:05d}.png")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path)
        for name, tool in ("ours", ours), ("cleanvision", cleanvision):
            took, (files, rows) = quietly(tool, Path(folder))
            place = np.array([int(Path(file).stem) for file in files])
            told = {kind: scores(place[rows[kind].astype(int)], truth[kind]) for kind in truth}
            out[name] = {"seconds": took, "kinds": told}
    return out


def on_vectors():
    "Wrong labels, strangers and copies among garments, for our audit and for cleanlab's Datalab."
    from cleanlab import Datalab
    from fashion_proto.audit import audit
    from fashion_proto.data import LabelledImages, load_fashion_mnist
    from sklearn.datasets import load_sample_images

    train, _ = load_fashion_mnist()
    rng, images = np.random.default_rng(0), train.images[:6000].copy()
    codes = train.labels.codes[:6000].astype(int)
    rows = rng.permutation(6000)
    wrong, strange, first = rows[:120], rows[200:240], rows[300:360]
    codes[wrong] = (codes[wrong] + rng.integers(1, 10, 120)) % 10
    strip = load_sample_images().images[0][:280, :560].mean(axis=2)
    pieces = strip.reshape(10, 28, 20, 28).swapaxes(1, 2).reshape(200, 28, 28)[::5]
    images[strange] = pieces
    images = np.concatenate([images, (images[first] * 0.8 + 25).astype(np.uint8)])
    codes = np.concatenate([codes, codes[first]])
    truth = {
        "label": wrong,
        "outlier": strange,
        "near_duplicate": np.concatenate([first, 6000 + np.arange(60)]),
    }
    took, found = seconds(audit, LabelledImages(images, codes))
    mine = {
        "label": found.issues[found.issues["suspect"]].index.to_numpy(),
        "outlier": found.strange["row"].to_numpy(),
        "near_duplicate": np.unique(found.pairs[["first", "second"]].to_numpy()),
    }
    features = images.reshape(len(images), -1).astype(np.float32)
    features -= features.mean(axis=1, keepdims=True)
    lab = Datalab({"labels": codes}, label_name="labels", task="classification", verbosity=0)
    theirs, _ = quietly(lab.find_issues, features=features)
    told = {
        kind: np.flatnonzero(lab.get_issues(kind)[f"is_{kind}_issue"].to_numpy()) for kind in truth
    }
    return {
        "images": len(images),
        "ours": {"seconds": took, "kinds": {k: scores(mine[k], truth[k]) for k in truth}},
        "datalab": {"seconds": theirs, "kinds": {k: scores(told[k], truth[k]) for k in truth}},
    }


def measure():
    warnings.simplefilter("ignore")
    made = {make.__name__: on_files(make) for make in (garments, digits, photographs)}
    return {"files": made, "vectors": on_vectors()}


if __name__ == "__main__":
    import json

    sys.stdout.write(json.dumps(measure(), indent=1, default=float))
