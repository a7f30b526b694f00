"""The notebooks are clean, and the package and README.md are what they give; the package stays light."""
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import ROOT

CHAPTERS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
CORE = sorted((ROOT / "nbs/core").glob("*.ipynb"))


def test_package_notebooks_and_readme_agree(tmp_path):
    copy = tmp_path / "book"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "_docs", "_proc", "__pycache__", "*.egg-info", ".pytest_cache"))
    before = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    bin = os.path.dirname(sys.executable)
    for command in [f"{bin}/nbdev_export"], [f"{bin}/nbdev_clean"], [sys.executable, "nbs/_tools/build_readme.py"]:
        subprocess.run(command, cwd=copy, check=True)
    after = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    changed = sorted(str(p) for p in before.keys() | after.keys() if before.get(p) != after.get(p) and p.name != ".last_checked")
    assert not changed, f"run `make prepare` and commit: {changed}"


def test_import_is_light():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import fashion_proto"], check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_package_needs_no_tool_of_the_book():
    code = "".join(p.read_text() for p in (ROOT / "fashion_proto").rglob("*.py") if p.name != "_modidx.py")
    assert not re.search(r"^\s*(import|from) (nbdev|fastcore|pytest|IPython|playwright)", code, re.M)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_keeps_the_rules(path):
    nb = nbformat.read(path, as_version=4)
    code = [c for c in nb.cells if c.cell_type == "code" and "#| hide" not in c.source and "#| default_exp" not in c.source]
    assert path.stat().st_size < 800_000
    for cell in code:
        assert not [o for o in cell.outputs if o.output_type == "error"]
        if any("image/png" in o.get("data", {}) for o in cell.outputs): assert "#| fig-alt:" in cell.source, cell.source
    earlier = {p.stem.split("_", 1)[1] for p in CHAPTERS if p.name < path.name}
    imported = set(re.findall(r"fashion_proto\.(\w+)", "".join(re.findall(r"(?m)^\s*(?:from|import) .*", "\n".join(c.source for c in code)))))
    assert imported <= earlier | {"core", path.stem.split("_", 1)[1]}, "a chapter imports earlier chapters only"


def test_every_public_name_is_in_the_table_and_on_the_api_page():
    from fashion_proto._modidx import d
    index = (ROOT / "nbs/index.ipynb").read_text()
    api = (ROOT / "nbs/api.md").read_text()
    names = [k.rsplit(".", 1)[1] for syms in d["syms"].values() for k in syms if k.count(".") == 2]
    missing = [n for n in names if not n.startswith("_") and f"`{n}`" not in index]
    assert not missing
    assert all(f"automodule:: {m}" in api for m in d["syms"] if not m.startswith("fashion_proto.core."))
    assert len([n for n in names if not n.startswith("_")]) <= 55
