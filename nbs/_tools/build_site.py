"""Build the site from the outputs stored in a folder of notebooks, if anything has changed; no
chapter is run and nothing is fetched.

python nbs/_tools/build_site.py [nbs] [_docs]
"""

import hashlib
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

here = Path(__file__).resolve().parent
source = sys.argv[1] if len(sys.argv) > 1 else "nbs"
out = Path(sys.argv[2] if len(sys.argv) > 2 else "_docs").resolve()

made_from = hashlib.sha256()
root = here.parents[1]
for folder in (Path(source), here, root / "fashion_proto", root / "bench/results"):
    for path in sorted(
        p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ):
        made_from.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
note = out / ".made-from"
if note.exists() and note.read_text() == made_from.hexdigest():
    print(f"the book is ready, and nothing changed: open {out / 'index.html'}")
    sys.exit()

from play import write_pages  # noqa: E402  (these two take seconds, in vain where nothing changed)
from sphinx.cmd.build import main as sphinx  # noqa: E402

with tempfile.TemporaryDirectory() as tmp, ProcessPoolExecutor(1) as beside:
    html = Path(tmp) / "html"  # myst-nb leaves a folder of its own beside it
    play = beside.submit(write_pages, Path(tmp) / "play")  # while Sphinx makes the other pages
    if sphinx(
        [
            "-b",
            "html",
            "-W",
            "--keep-going",
            "-q",
            "-c",
            str(here),
            "-d",
            f"{tmp}/doctrees",
            source,
            str(html),
        ]
    ):
        sys.exit(1)
    play.result()
    shutil.move(Path(tmp) / "play", html)
    (html / ".nojekyll").touch()  # or GitHub Pages would drop the folders that start with _
    (html / note.name).write_text(made_from.hexdigest())
    new = out.with_name(f"{out.name}.new")  # beside the old one, which stays until this is whole
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(html, new)
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
print(f"the book is ready: open {out / 'index.html'}")
