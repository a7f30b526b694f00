"""The notebooks are clean, and the package and README.md are what they give; the package stays light."""
import ast
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
    "It loads no library, so that it costs hardly more than the interpreter itself, in turns with that."
    code = "import fashion_proto, sys; print(*{'numpy', 'scipy', 'pandas', 'matplotlib', 'sklearn', 'numba', 'faiss'} & set(sys.modules))"
    assert not subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    pairs = [(seconds("pass"), seconds("import fashion_proto")) for _ in range(5)]
    assert min(package / nothing for nothing, package in pairs) < 2


def test_matplotlib_waits_for_a_drawing():
    code = "".join(f"import fashion_proto.{module}; assert 'matplotlib' not in sys.modules\n" for module in ("knn", "ann", "cluster", "gate"))
    subprocess.run([sys.executable, "-c", f"import sys\n{code}"], check=True)


def test_package_needs_no_tool_of_the_book():
    code = "".join(p.read_text() for p in (ROOT / "fashion_proto").rglob("*.py") if p.name != "_modidx.py")
    assert not re.search(r"^\s*(import|from) (nbdev|fastcore|pytest|IPython|playwright)", code, re.M)


PARTS = ("checks estimators storage files sources fast_csv fetch products sketches eight_bits scan "
         "flat bounds neighbours pieces shards graph engines patch_loops scatter findings report pages").split()
PACKAGE = [p for p in sorted((ROOT / "fashion_proto").rglob("*.py")) if p.name not in ("_modidx.py", "__init__.py")]


def directives(cell): return set(re.findall(r"(?m)^#\|\s*([\w-]+)", cell.source))


def code_lines(node, source):
    "How many lines of code a definition has, docstrings, comments and blank lines aside."
    documented = [n for n in ast.walk(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(n)]
    inside = {i for n in documented for i in range(n.body[0].lineno, n.body[0].end_lineno + 1)}
    lines = list(enumerate(source.splitlines(), 1))[node.lineno - 1:node.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") and i not in inside for i, line in lines)


def shown_code(nb):
    return [c for c in nb.cells if c.cell_type == "code" and not directives(c) & {"hide", "default_exp", "echo"}]


@pytest.mark.parametrize("path", CHAPTERS + CORE, ids=lambda p: p.stem)
def test_page_keeps_the_rules(path):
    nb = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 800_000
    code = shown_code(nb)
    assert len(code) <= 90
    in_a_row = 0
    for cell in (c for c in nb.cells if c in code or c.cell_type == "markdown"):
        in_a_row = in_a_row + 1 if cell.cell_type == "code" else 0
        assert in_a_row <= 3, cell.source
    for cell in code:
        assert not [o for o in cell.outputs if o.output_type == "error"]
        if any("image/png" in o.get("data", {}) for o in cell.outputs): assert "fig-alt" in directives(cell), cell.source
        lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
        assert not [line for line in lines if len(line) > 100]
        source = "\n".join(lines)
        tree = ast.parse(source)
        if "export" in directives(cell):
            for node in ast.walk(tree):
                most = {ast.FunctionDef: 30, ast.ClassDef: 100}.get(type(node))
                if most: assert code_lines(node, source) <= most, node.name
        elif "solution" in directives(cell):         # folded on the page and in JupyterLab
            assert len(lines) <= 16 and "hide-cell" in cell.metadata.tags and cell.metadata.jupyter.source_hidden
        elif "code-fold" not in directives(cell):
            documented = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(n)]
            docs = sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in documented)
            assert sum(bool(line.strip()) for line in lines) - docs <= 8, cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_exercises_have_solutions(path):
    cells = nbformat.read(path, as_version=4).cells
    first = next(i for i, cell in enumerate(cells) if "### Exercises" in cell.source)
    asked, solved = cells[first::2], cells[first + 1::2]
    assert 2 <= len(asked) == len(solved) <= 4
    assert all(f"{n}. " in cell.source for n, cell in enumerate(asked, 1)) and all("solution" in directives(cell) for cell in solved)


def imports_of(path):
    "The modules of the package that a module imports, as (part of the core or not, name)."
    own = path.parent.name == "core"
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level: continue
        module = (node.module or "").split(".")
        core = own and node.level == 1 or module[0] == "core"
        found.add((core, module[-1] if module[-1] else "package"))
    return found


def test_imports_go_one_way():
    lessons = [p.stem.split("_", 1)[1] for p in CHAPTERS]
    for path in PACKAGE:
        for core, name in imports_of(path):
            if name == "package": continue
            if path.parent.name == "core":
                assert core and name in PARTS[:PARTS.index(path.stem)], f"core.{path.stem} must not import {name}"
            else:
                assert core or name in lessons[:lessons.index(path.stem)], f"{path.stem} must not import {name}"


def test_modules_are_short_and_so_is_the_package():
    lines = {p.relative_to(ROOT): p.read_text(encoding="utf-8").splitlines() for p in PACKAGE}
    assert not {p: len(own) for p, own in lines.items() if len(own) > 400}
    marks = sum(line.startswith("# %% ") for own in lines.values() for line in own)
    assert sum(map(len, lines.values())) - 2 * marks <= 10480        # nbdev's marks aside; 450 of them are `explore` and its pages, 1700 the audit's readers, findings and gate, 850 `Embed` and the search of vectors, 750 shards and clusters


def test_no_name_is_defined_twice():
    where = {}
    for path in PACKAGE:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)): where.setdefault(node.name, []).append(path.stem)
    assert not {name: places for name, places in where.items() if len(places) > 1}


def test_no_merge_left_its_marks():
    for path in [ROOT / "nbs/index.ipynb", ROOT / "README.md", *CHAPTERS, *CORE]:
        assert not re.search(r"<<<<<<<|>>>>>>>", path.read_text(encoding="utf-8")), path.name


def test_messages_say_is_not_a():
    for path in CHAPTERS + CORE:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code": assert not re.search(r"Error\([^)]*\b(is|are) no\b", cell.source), cell.source


def test_style():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "-q", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_public_name_is_in_the_table_and_on_the_api_page():
    from fashion_proto._modidx import d
    index = (ROOT / "nbs/index.ipynb").read_text()
    api = (ROOT / "nbs/api.md").read_text()
    names = [k.rsplit(".", 1)[1] for syms in d["syms"].values() for k in syms if k.count(".") == 2]
    missing = [n for n in names if not n.startswith("_") and f"`{n}`" not in index]
    assert not missing
    assert all(f"automodule:: {m}" in api for m in d["syms"] if not m.startswith("fashion_proto.core."))
    assert len([n for n in names if not n.startswith("_")]) <= 65
