"""Each chapter runs from the top in a kernel of its own, on the real data, and its assertions hold."""
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "nbs/_tools"))
from run_notebooks import Book, chapters

OUT = ROOT / "_proc/nbs"


@pytest.fixture(scope="module")
def said():
    "What the runner says; it runs only the chapters for which something has changed since they ran, here or for `make book`."
    command = [sys.executable, "nbs/_tools/run_notebooks.py", "--flags", "timing", "--out", "_proc/nbs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize("path", chapters(), ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_chapter_runs(said, path):
    book = Book([path], out=OUT)
    assert book.is_done(path), said
    nb = nbformat.read(book.target(path), as_version=4)
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    assert code and not any(o.output_type == "error" for cell in code for o in cell.outputs)
    warnings = [o.text for cell in code for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not warnings, warnings
