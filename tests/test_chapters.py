"""Each chapter runs from the top in a kernel of its own, on the real data, and its assertions hold."""
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "nbs/_tools"))
from run_notebooks import chapters, run


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_chapter_runs(path):
    nb = run(path, ["timing"])
    shown = [o for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs]
    warnings = [o.text for o in shown if o.output_type == "stream" and o.name == "stderr"]
    assert not warnings, warnings
