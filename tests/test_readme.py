"""What README.md says of installing without annoy is true."""
import re
import subprocess
import sys

from conftest import ROOT


def test_everything_but_the_trees_works_without_annoy():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "everything except the trees of chapter 8 works without it" in text
    modules = sorted(p.stem for p in (ROOT / "fashion_proto").glob("[a-z]*.py"))
    code = "\n".join(["import sys", "sys.modules['annoy'] = None", *(f"import fashion_proto.{m}" for m in modules),
                      "import numpy as np", "from fashion_proto.ann import ANN, engines", "from fashion_proto.trees import build_annoy",
                      "X = np.random.default_rng(0).normal(size=(2000, 8)); y = np.arange(2000) % 3",
                      "print(ANN(3).fit(X, y).setting_['engine'], engines().loc['annoy', 'install'])",
                      "try: build_annoy(X)", "except ImportError as error: print(error)"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"faiss pip install annoy\nannoy is not installed; this installs it.*pip install annoy", done.stdout)
