"""The pages one can play with: what `explore` takes, what it writes, and how it behaves in a browser."""
import base64
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from fashion_proto.averages import AveragePrototypes
from fashion_proto.core.pages import flipbook, pointed
from fashion_proto.core.report import grey_levels
from fashion_proto.explore import explore
from fashion_proto.knn import KNN


@pytest.fixture(scope="module")
def few(fashion):
    "Some training and some validation images."
    train, valid = fashion[0].split()
    return train[:1500], valid[:400]


@pytest.fixture(scope="module")
def models(few):
    train, rows = few[0], few[0].images.reshape(-1, 784)
    pipe = make_pipeline(PCA(20, random_state=0), AveragePrototypes())
    return {"Averages": AveragePrototypes().fit(train.images, train.labels), "KNN": KNN().fit(train.images, train.labels),
            "theirs": KNeighborsClassifier().fit(rows, train.labels), "pipe": pipe.fit(rows, train.labels),
            "forest": RandomForestClassifier(10, random_state=0).fit(rows, train.labels)}


@pytest.fixture
def opened(browser, tmp_path):
    "A function that saves an explorer, opens the page from the disk and gives page, errors and requests."
    pages = []

    def open_page(found, hash="", split=False, touch=False, **options):
        found.save(tmp_path / "page.html", split=split)
        context = browser.new_context(has_touch=touch, **({"viewport": {"width": 1280, "height": 900}} | options))
        page = context.new_page()
        page.errors, page.outside = [], []
        page.on("console", lambda m: page.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.errors.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith((f"file://{tmp_path}", "data:", "blob:")) else page.outside.append(r.url))
        page.goto(f"file://{tmp_path}/page.html{hash}")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        assert not page.errors and not page.outside
        page.context.close()


@pytest.mark.parametrize("images, labels, error, words", [
    (np.zeros((3, 4, 4)), ["a", "b"], ValueError, "labels must be one for each of 3"),
    (np.full((2, 4, 4), np.nan), ["a", "b"], ValueError, "images must be finite"),
    (np.zeros((2, 16)), ["a", "b"], ValueError, "images must have 3 dimensions"),
    (np.zeros((2, 5, 5, 2)), ["a", "b"], ValueError, "images must be at most"),
    (np.zeros((0, 4, 4)), [], ValueError, "images must not be empty"),
    (np.zeros((20_001, 1, 1), np.uint8), ["a"] * 20_001, ValueError, "images must be at most 20000"),
    (np.array([["a"]]), ["a"], TypeError, "images must be numbers"),
])
def test_bad_input(images, labels, error, words):
    with pytest.raises(error, match=words): explore(KNN(1).fit(np.zeros((1, 16)), ["a"]), images, labels)


def test_bad_models(few, models, tmp_path):
    valid = few[1]
    with pytest.raises(TypeError, match="must have predict"): explore(PCA(), valid.images, valid.labels)
    with pytest.raises(ValueError, match="model must be"): explore({}, valid.images, valid.labels)
    with pytest.raises(ValueError, match=r"layouts\['x'\] must have two numbers for each of 400"):
        explore(models["KNN"], valid.images, valid.labels, layouts={"x": np.zeros((3, 2))})
    with pytest.raises(TypeError, match="layouts must be"): explore(models["KNN"], valid.images, valid.labels, layouts=[1])
    with pytest.raises(ValueError, match="train must have the"): explore(models["KNN"], valid.images, valid.labels, train=(valid.images[:3], valid.labels[:3]))
    with pytest.raises(FileNotFoundError): explore(models["KNN"], valid.images[:5], valid.labels[:5]).save(tmp_path / "no" / "page.html")


def test_page_agrees_with_python(few, models, opened):
    "For each image and model: what it is called, its neighbours in their order, distances, and votes."
    valid = few[1]
    page = opened(explore(models, valid.images, valid.labels))
    told = page.evaluate("""async () => { const out = {};
        for (const [j, m] of explorer.models.entries()) { const r = await explorer.reasons(j);
            out[m.name] = { called: [...m.predicted].map(i => explorer.names[i]), rows: r.near && [...r.near.place].map(p => r.gallery.row[p]),
                labels: r.near && [...r.near.place].map(p => explorer.names[r.gallery.label[p]]), distances: r.near && [...r.near.distance],
                votes: r.votes && [...r.votes.share], top: r.votes && [...r.votes.label].map(i => explorer.names[i]) }; }
        return out; }""")
    rows = valid.images.reshape(-1, 784)
    labels = np.asarray(few[0].labels)
    for name, model in models.items():
        X = rows
        assert told[name]["called"] == list(model.predict(X)), name
        if hasattr(model, "kneighbors"):
            distances, indices = model.kneighbors(X)
            assert told[name]["rows"] == indices.ravel().tolist() and told[name]["labels"] == labels[indices.ravel()].tolist()
            assert np.allclose(told[name]["distances"], distances.ravel(), rtol=1e-6)
        if hasattr(model, "predict_proba"):
            shares = model.predict_proba(X)
            top = np.argsort(-shares, axis=1, kind="stable")[:, :3]
            assert told[name]["top"] == np.asarray(model.classes_)[top].ravel().tolist()
            assert np.allclose(told[name]["votes"], np.take_along_axis(shares, top, 1).ravel(), atol=1e-6)
    assert told["pipe"]["rows"][:5] and told["forest"]["rows"] is None
    near = np.linalg.norm(models["Averages"].prototypes_ - valid.images[0], axis=(1, 2))
    assert told["Averages"]["rows"][:5] == np.argsort(near)[:5].tolist()


def test_pictures_are_those_of_the_images(few, models, opened):
    "The picture of a tile is the image it stands for, on the grey scale of the book."
    valid = few[1]
    page = opened(explore(models["KNN"], valid.images, valid.labels), split=True)
    for i in (0, 123, 399):
        seen = page.evaluate("""async i => { const at = explorer.places[i], image = await explorer.sheet('images', Math.floor(at / 500));
            const c = document.createElement('canvas'); c.width = c.height = 28; const g = c.getContext('2d');
            g.drawImage(image, at % 500 % 25 * 28, Math.floor(at % 500 / 25) * 28, 28, 28, 0, 0, 28, 28);
            return [...g.getImageData(0, 0, 28, 28).data].filter((_, j) => j % 4 === 0); }""", i)
        assert np.abs(255 - valid.images[i].ravel().astype(int) - seen).mean() < 12


def test_links_lead_to_the_true_neighbours(few, models, opened):
    valid = few[1]
    page = opened(explore(models["KNN"], valid.images, valid.labels), "#map/17")
    page.wait_for_function("explorer.map.hit === 17 && explorer.map.k === 10")
    links = page.evaluate("[...explorer.map.links]")
    other = KNN(10).fit(valid.images, valid.labels).kneighbors()[1]
    assert links == other.ravel().tolist()
    kept, at = page.evaluate("[[...explorer.map.layout.kept], Array.from({length: 400}, (_, i) => explorer.map.at(i))]")
    places = np.array(at)
    assert np.isfinite(places).all() and 0 < np.mean(kept) < 5
    near = cKDTree(places).query(places, 11)[1]
    again = [len(set(near[i]) & set(other[i])) for i in range(400)]
    assert np.mean(np.array(kept) == again) > 0.97          # places are rounded to 1 in 65 535


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_paths_by_mouse_and_touch(few, models, opened, width, scheme):
    valid, phone = few[1], width < 500
    page = opened(explore(models, valid.images, valid.labels), split=True, touch=phone, viewport={"width": width, "height": 760}, color_scheme=scheme)
    press = (lambda spot: spot.tap()) if phone else (lambda spot: spot.click())
    press(page.get_by_role("button", name="KNN"))
    called = models["KNN"].predict(valid.images)
    own = np.flatnonzero((np.asarray(valid.labels) == "Shirt") & (called == "Pullover"))
    press(page.get_by_role("button", name="of Shirt called Pullover"))
    assert page.get_by_role("heading", name=f"Shirt, called Pullover: {len(own)}").is_visible()
    press(page.get_by_role("button", name=f"image {own[0]}", exact=True))
    page.get_by_text(f"Image {own[0]}: Shirt").wait_for()
    row = models["KNN"].kneighbors(valid.images[own[:1]])[1][0, 0]
    assert page.get_by_text(f"row {row}", exact=True).is_visible()
    assert page.evaluate("decodeURIComponent(location.hash)") == f"#knn/Shirt/Pullover/{own[0]}"
    press(page.get_by_role("button", name="Averages:"))
    assert page.evaluate("decodeURIComponent(location.hash)").startswith("#averages/Shirt/")
    press(page.get_by_role("button", name="Where is it on the map?"))
    page.wait_for_function(f"explorer.map.hit === {own[0]}")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_deep_link(few, models, opened):
    valid = few[1]
    called = models["KNN"].predict(valid.images)
    i = int(np.flatnonzero(called != np.asarray(valid.labels))[0])
    link = "#" + "/".join(quote(str(part), safe="") for part in ("knn", valid.labels[i], called[i], i))
    page = opened(explore(models, valid.images, valid.labels), link)
    page.get_by_text(f"Image {i}: {valid.labels[i]}").wait_for()
    page.evaluate("location.hash = '#nothing/of/this/999999'")
    page.get_by_text("Click a cell").wait_for()


def test_keyboard(few, models, opened):
    valid = few[1]
    page = opened(explore(models["KNN"], valid.images, valid.labels))
    page.locator(".matrix td button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.get_by_role("heading", name="T-shirt/top, rightly called").is_visible()
    page.locator(".scroll .tile[tabindex='0']").focus()
    for _ in range(20): page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.locator("h3", has_text="T-shirt/top").first.wait_for()
    page.get_by_role("button", name="Map", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator(".map canvas").focus()
    page.wait_for_function("explorer.map.k > 0")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("explorer.map.hit >= 0")
    first = page.evaluate("explorer.map.hit")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("explorer.map.hit") != first
    page.keyboard.press("+")
    hit = page.evaluate("explorer.map.hit")
    page.keyboard.press("Enter")
    page.get_by_text(f"Image {hit}:").wait_for()


def test_same_images_with_other_labels(few, opened):
    "Two models of the same images, one with wrong labels: each neighbour bears the label that its own model knows."
    train, valid = few
    wrong = np.roll(np.asarray(train.labels), 1)
    both = {"right": KNN().fit(train.images, train.labels), "wrong": KNN().fit(train.images, wrong)}
    page = opened(explore(both, valid.images[:50], valid.labels[:50]))
    told = page.evaluate("""async () => Promise.all([0, 1].map(async j => { const r = await explorer.reasons(j); return [...r.near.place].map(p => explorer.names[r.gallery.label[p]]); }))""")
    rows = both["right"].kneighbors(valid.images[:50])[1].ravel()
    assert told == [np.asarray(train.labels)[rows].tolist(), wrong[rows].tolist()]


def test_strange_labels_are_text(opened):
    names = ["</script><script>document.title='broken'</script>", "<b>\"quoted\"</b> & 'so'", "שלום 👕"]
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 9, 7), dtype=np.uint8), np.array(names, object)[np.arange(60) % 3]
    found = explore(KNN(1).fit(images[:20], labels[:20]), images, labels, title="<i>title</i>")
    page = opened(found)
    assert page.title() == "<i>title</i>" and page.locator("th[scope=row]").all_inner_texts() == sorted(names)
    assert "srcdoc=" in found._repr_html_() and "<script>document" not in found._repr_html_()


@pytest.mark.parametrize("case", ["one class", "300 classes", "no mistake", "floats", "colour", "one image", "numbers", "all equal"])
def test_odd_sets(opened, case):
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (600, 8, 8), dtype=np.uint8), np.arange(600) % 300
    if case == "one class": labels = np.full(600, "only")
    if case == "floats": images = rng.normal(size=(600, 8, 8)) * 5
    if case == "colour": images = rng.integers(0, 256, (600, 40, 30, 3), dtype=np.uint8)
    if case == "one image": images, labels = images[:1], labels[:1]
    if case == "all equal": images[:] = 7
    if case == "numbers": labels = labels % 4
    model = KNN(1).fit(images, labels) if case in ("no mistake", "one image", "one class") else KNN(1).fit(images, np.roll(labels, 1))
    page = opened(explore(model, images, labels))
    if case in ("no mistake", "one image", "one class"): assert page.get_by_text("No mistake").first.is_visible()
    if case == "300 classes":
        page.locator(".pairs button").first.click()
        page.locator(".scroll .tile").first.click()
        page.get_by_text("The nearest training images").wait_for()
    if case != "one image":
        page.get_by_role("button", name="Map", exact=True).click()
        page.wait_for_function("explorer.map.k > 0")


def test_neighbours_are_looked_up_once(few, models, monkeypatch):
    "Labels, votes and pictures come from one search, and the model is as it was."
    model, searched = models["KNN"], []
    monkeypatch.setattr(KNN, "kneighbors", lambda self, *args, kneighbors=KNN.kneighbors: searched.append(self) or kneighbors(self, *args))
    monkeypatch.setattr("fashion_proto.explore._links", lambda images, k: np.zeros((len(images), k), int))
    page = explore(model, few[1].images, few[1].labels)
    assert searched == [model] and "kneighbors" not in vars(model)
    names = np.array(page.data["names"])[np.frombuffer(base64.b64decode(page.data["models"][0]["predicted"]), "u2")]
    assert (names == model.predict(few[1].images)).all()


def test_twenty_thousand_images_stay_small(fashion, tmp_path, monkeypatch):
    "20 000 grey and as many in colours, with neighbours (of noise: any), below 25 MB."
    train = fashion[0]
    class Any:
        def predict(self, X): return np.random.default_rng(2).choice(train.labels.categories, len(X))
    explore(Any(), train.images[:20_000], train.labels[:20_000]).save(tmp_path / "grey.html")
    assert (tmp_path / "grey.html").stat().st_size < 25e6
    colours = np.random.default_rng(0).integers(0, 256, (20_000, 16, 16, 3), dtype=np.uint8)      # noise: nothing is harder to pack
    links = np.random.default_rng(1).integers(0, 20_000, (20_000, 10))
    monkeypatch.setattr("fashion_proto.explore._links", lambda images, k: links[:, :k])
    explore(Any(), colours, train.labels[:20_000]).save(tmp_path / "colour.html")
    assert (tmp_path / "colour.html").stat().st_size < 25e6


def test_labels_keep_their_order_and_train_may_be_given(few, models, opened):
    train, valid = few
    kept = pd.Categorical(np.asarray(valid.labels), categories=sorted(set(valid.labels), reverse=True))

    class Blind:                                   # knows rows, but keeps no images
        classes_ = models["KNN"].classes_
        def predict(self, X): return models["KNN"].predict(X)
        def kneighbors(self, X): return models["KNN"].kneighbors(X)

    page = opened(explore({"blind": Blind()}, valid.images, kept, train=train))
    assert page.locator("th[scope=row]").all_inner_texts() == list(kept.categories)
    page.locator(".matrix td button").first.click()
    page.locator(".scroll .tile").first.click()
    assert page.locator(".near .tile").count() == 5


def test_frame_survives_nbconvert(few, models, browser, tmp_path):
    "The page in its frame, in a notebook that was saved and converted to HTML."
    nbconvert, nbformat = pytest.importorskip("nbconvert"), pytest.importorskip("nbformat")
    shown = explore(models["KNN"], few[1].images[:50], few[1].labels[:50])._repr_html_()
    cell = nbformat.v4.new_code_cell("explore(...)", outputs=[nbformat.v4.new_output("execute_result", {"text/html": shown, "text/plain": "..."})])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "saved.ipynb")
    text, _ = nbconvert.HTMLExporter(template_name="basic").from_filename(str(tmp_path / "saved.ipynb"))
    (tmp_path / "saved.html").write_text(text, encoding="utf-8")
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/saved.html")
    frame = page.frame_locator("iframe")
    frame.locator(".matrix td button").first.click()
    frame.locator(".scroll .tile").first.click()
    frame.get_by_text("The nearest training images").wait_for()
    page.close()


def test_sliders_and_curves(few, browser):
    "A slider leads through its frames, by keys and buttons; the nearest point of a curve says what it is."
    images = few[0].images[:6]
    slider = flipbook("Ever more", "images:", [(i, images[:i], [f"no {j}" for j in range(i)], f"{i} of them") for i in (1, 2, 3)], grey_levels(images))
    curves = pointed("Two curves", {"a": [(0.9, 100), (0.95, 50)], "b": [(0.9, 900), (0.95, 800)]}, ["recall", "a second"], [0.85, 1], [10, 1000], [0.9])
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.set_content(slider._repr_html_() + curves._repr_html_())
    first, second = page.frame_locator("iframe").nth(0), page.frame_locator("iframe").nth(1)
    first.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert first.get_by_text("2 of them").is_visible() and first.locator(".tile").count() == 2
    first.get_by_role("button", name="one on").click()
    assert first.get_by_text("3 of them").is_visible() and first.get_by_text("no 2").is_visible()
    second.get_by_role("combobox").select_option("b")
    second.get_by_text("b is brought forward").wait_for()
    second.locator("svg").hover(position={"x": 250, "y": 60})
    second.get_by_text("recall 0.9").wait_for()
    page.close()
    assert not errors
