"""Each chapter runs from the top in a kernel of its own, on the real data, and its assertions hold."""
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "nbs/_tools"))
from run_notebooks import chapters, copy_book, run


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    "A copy of the book, in which chapters may write down what later ones read."
    folder = tmp_path_factory.mktemp("book") / "nbs"
    copy_book(folder)
    return folder


@pytest.mark.parametrize("name", [str(p.relative_to(ROOT / "nbs")) for p in chapters()])
def test_chapter_runs(book, name):
    nb = run(book / name, ["timing"])
    shown = [o for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs]
    warnings = [o.text for o in shown if o.output_type == "stream" and o.name == "stderr"]
    assert not warnings, warnings
