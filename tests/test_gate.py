"""The gate: exit codes, limits, JSON and CSV, judgements; and the buttons of the report in a browser."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from fashion_proto.audit import audit
from fashion_proto.core.storage import static
from fashion_proto.data import LabelledImages
from fashion_proto.gate import _judged_rules, _main, _rules, read_reviewed, tables_of
from fashion_proto.reading import ImageSet, read_sets
from PIL import Image

COMMAND = Path(sys.executable).parent / "fashion-proto"


def command(*arguments, **more):
    return subprocess.run([COMMAND, "audit", *map(str, arguments)], capture_output=True, text=True, **more)


def code_of(*arguments):
    "The exit code of the command, run in this process."
    try: _main(["audit", *map(str, arguments)])
    except SystemExit as ending: return ending.code
    return 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory, fashion):
    "Two folders of pictures, with 5 leaks, 4 copies within training, and 3 wrong labels."
    root, train = tmp_path_factory.mktemp("pair"), fashion[0]
    def save(folder, i, image, label):
        path = root / folder / label.replace("/", " ") / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    names = list(train.labels.categories)
    for i in range(600):
        label = names[(train.labels.codes[i] + 5) % 10] if i in (100, 101, 102) else train.labels[i]
        save("train", i, train.images[i], label)
    for i in range(4): save("train", 900 + i, train.images[200 + i], train.labels[200 + i])
    for i in range(2000, 2300): save("test", i, train.images[i], train.labels[i])
    for i in range(5): save("test", 900 + i, train.images[300 + i] // 2 + 20, train.labels[300 + i])
    return root / "train", root / "test"


@pytest.mark.parametrize("limits, code", [("leaks>0", 1), ("leaks>3%,labels>50%", 0), ("leeks>0", 2)])
def test_exit_codes(pair, capsys, limits, code):
    "In this process; a shell is told of 1 and 0 below, and of 2 in test_use.py."
    assert code_of(*pair, "--fail-on", limits) == code
    done = capsys.readouterr()
    assert ("FAILED" in done.out) == (code == 1) and ("--fail-on must name" in done.err) == (code == 2)


@pytest.fixture(scope="module")
def found(pair):
    return audit(*pair)


@pytest.mark.parametrize("limits, broken", [
    ("leaks>3%", 0), ("leaks>1%,labels>50%", 1), ("leaks", 1), ("duplicates>4", 1), ("duplicates>5", 0), ("duplicates>=5", 1), ("blank", 0), ("high", 1),
    ("unreadable>0,blank>0%", 0), ("leaks > 0", 1), ("low contrast>90%", 0), ("low-contrast", 1), ("medium,low", 2), ("", 0)])
def test_limits(found, limits, broken):
    assert sum(is_broken for *_, is_broken in _judged_rules(_rules(limits), found.findings)) == broken


@pytest.mark.parametrize("limits", ["leaks>x", "leaks<1", "leaks>-1", ">0", "leaks>0 labels>0", "leaks>1%%"])
def test_limits_that_are_none(limits):
    with pytest.raises(ValueError, match="--fail-on must name kinds of findings"): _rules(limits)


def test_errors_are_2_and_write_nothing(pair, tmp_path, capsys):
    out = tmp_path / "out.json"
    np.save(tmp_path / "nan.npy", np.full((4, 3), np.nan))
    (tmp_path / "bad.json").write_text('{"format": "other"}')
    for more in ([tmp_path / "none"], [tmp_path / "nan.npy"], [*pair, "--accept", tmp_path / "none.json"], [*pair, "--accept", tmp_path / "bad.json"],
                 [pair[0], "--fail-on", "leaks>0"], [pair[0].parent, pair[1]], [*pair, "--csv", tmp_path / "no" / "folder"], [*pair, "--out", out]):
        with pytest.raises(SystemExit) as stop: _main(["audit", *map(str, more), "--json", str(out)])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and "error:" in said and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "nan.npy"]
    assert command("--help").returncode == 0


def test_json_csv_and_report_agree(pair, tmp_path):
    done = command(pair[0].parent, "--json", tmp_path / "o.json", "--csv", tmp_path / "t", "--out", tmp_path / "r.html", "--fail-on", "leaks>0", "--fail-on", "labels>90%")
    assert done.returncode == 1
    told = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    pytest.importorskip("jsonschema").Draft202012Validator(json.loads(static("audit.schema.json"))).validate(told)
    findings = {row["kind"]: row for row in told["findings"]}
    assert findings["leaks"]["found"] >= 5 and findings["duplicates"]["found"] == 5 and findings["exact_duplicates"]["found"] == 4 and told["version"] == 1
    assert [rule["broken"] for rule in told["gate"]["rules"]] == [True, False] and not told["gate"]["passed"]
    for name, rows in told["tables"].items():
        table = pd.read_csv(tmp_path / "t" / f"{name}.csv")
        assert len(table) == len(rows)
    copies = pd.read_csv(tmp_path / "t" / "copies.csv")
    assert (copies["first_file"].str.endswith(".png")).all() and copies["similarity"].is_monotonic_decreasing
    suspects = pd.read_csv(tmp_path / "t" / "labels.csv")
    assert suspects["image_file"].str.contains("/010[0-2].png").sum() >= 2
    assert (tmp_path / "r.html").stat().st_size < 10_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "r.html", "t"]


def test_judgements_hold_when_files_move(pair, found, tmp_path):
    told = [{"kind": "copies", "images": [found.content(i) for i in ends], "judgement": "fine"} for ends in found.pairs[["first", "second"]].to_numpy().tolist()]
    suspects = found.issues[found.issues["suspect"]]
    told += [{"kind": "labels", "images": [found.content(i)], "label": row["label"], "judgement": "wrong"} for i, row in suspects.iterrows()]
    told += [{"kind": fault, "images": [found.content(i)], "judgement": "fine"} for fault, i in zip(found.faults["fault"], found.faults["row"])]
    told += [{"kind": "outliers", "images": [found.content(i)], "judgement": "fine"} for i in found.strange["row"]]
    path = tmp_path / "reviewed.json"
    path.write_text(json.dumps({"format": "fashion-proto reviewed", "version": 1, "judgements": told}))
    for part in pair:                                                   # other names, another order
        for i, file in enumerate(sorted(part.rglob("*.png"), reverse=True)):
            to = tmp_path / part.name / file.parent.name / f"new{i}.png"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)
    moved = tmp_path / "train", tmp_path / "test", "--accept", path
    assert code_of(*moved, "--json", tmp_path / "o.json", "--fail-on", "leaks,duplicates,exact_duplicates,labels,outliers,dark,blurred") == 0
    counts = {row["kind"]: row["found"] for row in json.loads((tmp_path / "o.json").read_text())["findings"]}
    assert counts["confirmed"] == len(suspects) and not counts["labels"]
    assert code_of(*moved, "--fail-on", "confirmed") == 1
    shutil.copy(pair[0] / "Bag" / sorted(os.listdir(pair[0] / "Bag"))[0], tmp_path / "test" / "Bag" / "leak.png")
    assert code_of(*moved, "--fail-on", "leaks") == 1        # what is new is told


def test_a_judgement_is_for_one_label(fashion):
    part = fashion[0][:800]
    labels = np.asarray(part.labels, dtype=object).copy()
    labels[:6] = ["Bag" if label != "Bag" else "Trouser" for label in labels[:6]]
    found = audit(ImageSet(part.images, labels))
    row = found.issues[found.issues["suspect"]].iloc[0]
    told = {("labels", (found.content(row.name),), row["label"]): "fine"}
    again = audit(ImageSet(part.images, labels), judged=told)
    assert row.name not in again.issues.index
    labels[row.name] = next(name for name in part.labels.categories if name not in (row["label"], row["suggested"]))
    assert row.name in audit(ImageSet(part.images, labels), judged=told).issues.index


@pytest.mark.parametrize("content, says", [("{", "must hold JSON"), ('{"format": "x"}', "must be a file that a report has saved"),
    ('{"format": "fashion-proto reviewed", "version": 2}', "must be of version 1, got 2"), ('[]', "must be a file that a report"),
    ('{"format": "fashion-proto reviewed", "version": 1, "judgements": [{"kind": "copies"}]}', "must have kind, images and judgement"),
    ('{"format": "fashion-proto reviewed", "version": 1, "judgements": [{"kind": "copies", "images": ["a"], "judgement": "maybe"}]}', "must be 'fine' or 'wrong'")])
def test_reviewed_files_are_checked(tmp_path, content, says):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError, match=says): read_reviewed(tmp_path / "r.json")


def test_unlabelled_and_partly_labelled(fashion):
    images = np.concatenate([fashion[0].images[:300], fashion[0].images[:2]])
    bare = audit(images)
    assert bare.issues is None and bare.findings["found"]["exact_duplicates"] == 2 and bare.findings["found"]["missing_labels"] == 302
    assert "labels" not in bare.findings.index and "would be told, too" in bare._repr_html_()
    labels = np.r_[np.asarray(fashion[0].labels[:300], dtype=object), [None, None]]
    some = audit(ImageSet(images, labels))
    assert some.findings["found"]["missing_labels"] == 2 and not some.issues.index.isin([300, 301]).any() and np.isnan(some.values[300:]).all()
    one = audit(LabelledImages(images, ["a"] * 302))
    assert one.issues is None and len(one.pairs) >= 2


def test_blank_copies_are_duplicates_too(fashion):
    images = np.concatenate([fashion[0].images[:100], np.zeros((5, 28, 28), np.uint8), fashion[0].images[:1]])
    counts = audit(images, np.zeros((2, 28, 28), np.uint8)).findings["found"]
    assert counts["duplicates"] == 4 + 1 + 1 and counts["exact_duplicates"] == 7 and counts["blank"] == 7


def test_threshold_for_vectors_is_chosen():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 64))
    near = points[:20] + 0.02 * rng.normal(size=(20, 64))
    found = audit(np.concatenate([points, near]))
    assert set(zip(found.pairs["first"], found.pairs["second"])) == {(i, 400 + i) for i in range(20)}
    tight = 1 + 0.001 * np.concatenate([points, near])                  # all alike, by the cosine
    assert audit(tight).options["threshold"] > 0.999


def test_one_table_gives_the_pairs_of_the_search(fashion):
    from fashion_proto.copies import _pairs_within, near_duplicates
    from fashion_proto.labels import _nearest
    images = fashion[0].images[:500]
    images = np.concatenate([images, np.repeat(images[:1], 130, axis=0), np.repeat(images[1:2], 60, axis=0) // 2 + 9])[np.random.default_rng(0).permutation(690)]
    for k in (3, 50, 689):
        near = _nearest(images, k, "correlation", 1)
        for threshold in (0.9, 0.98):
            assert _pairs_within(images, threshold, "correlation", False, 0, 1, near).equals(near_duplicates(images, threshold=threshold))


@pytest.mark.parametrize("k", [3, 50, 110, 500])
@pytest.mark.parametrize("metric", ["correlation", "euclidean"])
def test_lists_among_many_copies_are_those_of_the_search(fashion, k, metric):
    from fashion_proto.copies import _patterns
    from fashion_proto.knn import KNN
    from fashion_proto.labels import _nearest
    images = fashion[0].images
    images = np.concatenate([images[:400], np.repeat(images[:1], 300, axis=0), np.repeat(images[1:2], 120, axis=0), images[:1] // 2 + 5])[np.random.default_rng(0).permutation(821)]
    plain = KNN(k, metric="cosine" if metric == "correlation" else metric).fit(_patterns(images, metric), np.zeros(821)).kneighbors()
    for ours, theirs in zip(_nearest(images, k, metric, -1), plain): assert np.array_equal(ours, theirs)


def test_audit_takes_paths_and_sets(pair, found):
    assert audit(read_sets(pair[0])[0], pair[1]).findings.equals(found.findings)
    tables = tables_of(found)
    assert {"findings", "copies", "leaks", "labels", "outliers", "image_faults", "weak_groups", "confused", "values", "classes", "unreadable"} == set(tables)
    assert tables["copies"].shape[0] == len(found.pairs)


# The report in a browser

NASTY = ["<b>&\"'", "emoji 🧥 coat", "שלום עולם", "مرحبا"]


@pytest.fixture(scope="module")
def report(tmp_path_factory, fashion):
    folder = tmp_path_factory.mktemp("report")
    train = fashion[0]
    names = np.array(NASTY, dtype=object)[train.labels.codes % 4]
    names[:5] = names[5:10]
    for i in range(260):
        label = folder / "pics" / names[i].replace("/", "_")
        label.mkdir(parents=True, exist_ok=True)
        Image.fromarray(train.images[i]).save(label / f"{i} {NASTY[i % 4].replace('/', '_')}.png")
    for i in range(3): Image.fromarray(train.images[i]).save(folder / "pics" / names[i].replace("/", "_") / f"copy {i}.png")
    audit(folder / "pics").save(folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_by_axe_wide_and_narrow(report, browser, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrongs = []
    page.on("console", lambda message: wrongs.append(message.text))
    page.on("pageerror", lambda error: wrongs.append(str(error)))
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width and not wrongs
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert "<b>&\"'" in page.locator("main").inner_text() and "שלום עולם" in page.locator("main").inner_text() and page.locator("main b").count() == 0
    if width == 360:                                                     # no column is hidden
        assert page.evaluate("[...document.querySelectorAll('.wide')].every(box => box.scrollWidth <= box.clientWidth + 1)")
    page.close()


def test_judging_in_the_browser_and_running_again(report, browser, tmp_path):
    page = browser.new_page(viewport={"width": 900, "height": 900})
    page.goto(report.as_uri())
    assert page.locator(".save").is_hidden()
    first = page.locator("details:has(#audit-near) figure[data-key]").first
    first.get_by_role("button", name="is fine").click()
    page.locator("details:has(#audit-labels) figure[data-key]").first.get_by_role("button", name="wrong label").click()
    assert page.locator(".save").get_by_text("2 new judgements").is_visible() and "judged" in first.get_attribute("class")
    with page.expect_download() as got: page.get_by_role("button", name="Save reviewed.json").click()
    got.value.save_as(tmp_path / "reviewed.json")
    told = read_reviewed(tmp_path / "reviewed.json")
    assert sorted(told.values()) == ["fine", "wrong"]
    found = audit(report.parent / "pics", judged=told)
    assert found.findings["found"]["confirmed"] == 1
    found.save(tmp_path / "again.html")
    page.goto((tmp_path / "again.html").as_uri())                        # what is saved next holds the earlier ones, too
    page.locator("details:has(#audit-near) figure[data-key]").first.get_by_role("button", name="is a copy").click()
    with page.expect_download() as got: page.get_by_role("button", name="Save reviewed.json").click()
    got.value.save_as(tmp_path / "more.json")
    assert len(read_reviewed(tmp_path / "more.json")) == 3
    page.close()


def test_filters_and_large_pictures(report, browser):
    page = browser.new_page(viewport={"width": 900, "height": 900})
    page.goto(report.as_uri())
    shown = page.locator("ul.findings li:visible").count()
    page.get_by_role("button", name="high", exact=True).click()
    assert 0 < page.locator("ul.findings li:visible").count() < shown
    page.get_by_role("button", name="high", exact=True).click()
    page.get_by_role("searchbox").fill("copy 1.png")
    assert 0 < page.locator("figure:visible").count() < 12
    page.get_by_role("searchbox").fill("")
    image = page.locator("figure img").first
    image.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible() and page.locator("dialog img").bounding_box()["width"] > 300
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()
    page.emulate_media(media="print")
    assert page.locator(".tools:visible").count() == 0
    page.close()


def test_the_snippets_are_valid():
    yaml = pytest.importorskip("yaml")
    text = "".join("".join(cell["source"]) for cell in json.loads((ROOT / "nbs/09c_gate.ipynb").read_text())["cells"])
    for block in text.split("```yaml\n")[1:]: assert yaml.safe_load(block.split("```")[0])


def test_measured_results_are_what_the_issue_asks_for():
    faults = json.loads((ROOT / "bench/results/faults.json").read_text())
    for told in faults["files"].values():
        assert min(kind["recall"] for kind in told["ours"]["kinds"].values()) >= 0.9
    assert set(faults["vectors"]) == {"images", "ours", "datalab"}
    scale = json.loads((ROOT / "bench/results/audit_scale.json").read_text())["cases"]
    assert scale["Fashion-MNIST"]["seconds"] < 60 and all(told["report_MB"] < 10 and told["peak_MB"] < 4000 for told in scale.values())


def test_main_is_where_it_was():
    from fashion_proto.audit import _main as moved
    assert moved is _main
