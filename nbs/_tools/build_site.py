"""Build the site from the outputs stored in a folder of notebooks; nothing is run and nothing is
fetched.

python nbs/_tools/build_site.py [nbs] [_docs]
"""

import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import main as sphinx

here = Path(__file__).resolve().parent
source = sys.argv[1] if len(sys.argv) > 1 else "nbs"
out = Path(sys.argv[2] if len(sys.argv) > 2 else "_docs").resolve()

with tempfile.TemporaryDirectory() as tmp:
    html = Path(tmp) / "html"  # myst-nb leaves a folder of its own beside it
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
    (html / ".nojekyll").touch()  # or GitHub Pages would drop the folders that start with _
    new = out.with_name(f"{out.name}.new")  # beside the old one, which stays until this is whole
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(html, new)
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
print(f"the book is ready: open {out / 'index.html'}")
