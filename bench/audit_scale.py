"""How long a whole audit takes and how much memory it needs, each in a process of its own:
Fashion-MNIST; 20 000 vectors in 1000 classes; 50 000 and 200 000 embeddings of 768 numbers; 8000
photographs of 1000 x 1000 pixels; and 5000 copies of one picture.

Makes its own data, but for Fashion-MNIST; the photographs are pieces of the two that come with
scikit-learn. The embeddings are a mixture of 1000 Gaussians.
"""

import json
import resource
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import alone, seconds

LIBRARIES = "numpy numba scipy scikit-learn pillow"


def fashion():
    from fashion_proto.data import load_fashion_mnist

    return load_fashion_mnist()


def mixture(n, features, classes=1000, spread=1.0):
    from fashion_proto.data import LabelledImages

    rng = np.random.default_rng(0)
    centres, codes = rng.normal(size=(classes, features)), rng.integers(0, classes, n)
    vectors = np.empty((n, features), np.float32)
    for part in np.array_split(np.arange(n), max(1, n // 10_000)):
        vectors[part] = centres[codes[part]] + spread * rng.normal(size=(len(part), features))
    return (LabelledImages(vectors, codes),)


def photographs(folder, n=8000):
    "Files in two folders, written here."
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos, rng = load_sample_images().images, np.random.default_rng(0)
    places = rng.integers(0, (227, 440), size=(n, 2))
    for name in "temple", "flower":
        Path(folder, name).mkdir()

    def write(i):
        y, x = places[i]
        piece = Image.fromarray(photos[i % 2][y : y + 200, x : x + 200]).resize((1000, 1000))
        piece.save(Path(folder, ("temple", "flower")[i % 2], f"{i}.jpg"), quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(n)))
    return (str(folder),)


def copies():
    from fashion_proto.data import LabelledImages, load_fashion_mnist

    train, _ = load_fashion_mnist()
    rows = np.r_[:3000, np.zeros(5000, int)]
    return (LabelledImages(train.images[rows], np.asarray(train.labels)[rows]),)


CASES = {
    "Fashion-MNIST": fashion,
    "20 000 vectors in 1000 classes": lambda: mixture(20_000, 64),
    "50 000 embeddings of 768": lambda: mixture(50_000, 768, spread=1.5),
    "200 000 embeddings of 768": lambda: mixture(200_000, 768, spread=1.5),
    "8000 photographs of 1000 x 1000": photographs,
    "3000 garments and 5000 copies of one": copies,
}


def ours(case):
    "Seconds and the peak of memory of a process that does nothing else, in MB (Linux)."
    from fashion_proto.audit import audit
    from fashion_proto.data import load_fashion_mnist

    train, _ = load_fashion_mnist()
    audit(train[:1500])  # warm
    with tempfile.TemporaryDirectory() as folder:
        sets = CASES[case](folder) if case.startswith("8000 photo") else CASES[case]()
        took, found = seconds(audit, *sets)
        report = Path(folder, "report.html")
        writing, _ = seconds(found.save, report)
        size = report.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": took, "peak_MB": peak, "report_s": writing, "report_MB": size}


def measure():
    return {"cases": {case: alone(__file__, case) for case in CASES}}


if __name__ == "__main__":
    print(json.dumps(ours(sys.argv[1])))
