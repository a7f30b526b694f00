"""Run the chapters, each in a Jupyter kernel of its own, with a line of progress for each.

    python nbs/_tools/run_notebooks.py [--flags timing] [--write | --out FOLDER] [NOTEBOOK ...]

A cell marked with a test flag of settings.ini (`tst_flags`) that --flags does not name is not
run: it keeps its outputs.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbdev.config import get_config
from PIL import Image, ImageChops

cfg = get_config()


class Client(NotebookClient):
    "A notebook client that leaves out the cells with a flag in `skip`."

    skip = frozenset()

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if self.skip & set(re.findall(r"(?m)^#\|\s*([\w-]+)", cell.source)):
            return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)


def run(path, flags=()):
    "The notebook at `path` with fresh outputs; raises where a cell does."
    os.environ.update(TQDM_DISABLE="1", PYTHONHASHSEED="0", PYDEVD_DISABLE_FILE_VALIDATION="1")
    if folder := os.environ.get("FASHION_MNIST_DIR"):  # the kernel works in another folder
        os.environ["FASHION_MNIST_DIR"] = os.path.abspath(os.path.expanduser(folder))
    nb = nbformat.read(path, as_version=4)
    client = Client(
        nb,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(Path(path).parent)}},
    )
    client.skip = frozenset(cfg.tst_flags.split()) - set(flags)
    client.execute()
    for out in (
        o for cell in nb.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ):
        out.data["image/png"] = slim(out.data["image/png"])
    return nb


def slim(png):
    """The same picture in half the bytes: without the alpha channel, and without colours where
    there are none."""
    image, small = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    red, green, blue = image.split()
    grey = not any(ImageChops.difference(red, band).getbbox() for band in (green, blue))
    (red if grey else image).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def chapters():
    """The notebooks in the order in which they build on each other: the core first, then the
    lessons."""
    return [
        *sorted(cfg.nbs_path.glob("core/[!_]*.ipynb")),
        *sorted(cfg.nbs_path.glob("[!_]*.ipynb")),
    ]


def copy_book(folder):
    """Copy what the notebooks read and show, but not those in `folder` that were run, nor what
    these wrote down."""
    ran = ["*.ipynb", "results"] if (folder / "results").exists() else []
    shutil.copytree(
        cfg.nbs_path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("_*", ".*", *ran)
    )
    shutil.copytree(
        cfg.config_path / "bench/results", folder.parent / "bench/results", dirs_exist_ok=True
    )


def fingerprint(path, results):
    """What the outputs of a notebook depend on: itself, the package, what was measured before,
    the libraries, the data."""
    parts = [
        path,
        *sorted(cfg.lib_path.rglob("*.py")),
        *sorted((cfg.config_path / "bench/results").glob("*")),
        Path(__file__),
        *sorted(p for p in results.glob("*") if p.name < path.name),
        cfg.config_path / ".github/constraints.txt",
    ]
    return hashlib.sha256(
        b"".join(p.read_bytes() for p in parts) + os.environ.get("FASHION_MNIST_DIR", "").encode()
    ).hexdigest()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("paths", nargs="*", type=Path)
    p.add_argument("--flags", default="", help="test flags whose cells are run too")
    p.add_argument(
        "--write", action="store_true", help="keep the outputs in the notebooks themselves"
    )
    p.add_argument(
        "--out",
        type=Path,
        help="write the whole book, freshly run, into this folder; again only what changed",
    )
    a = p.parse_args()
    if a.out:
        copy_book(a.out)
    failed = 0
    for path in a.paths or chapters():
        start, target = (
            time.time(),
            a.out / path.resolve().relative_to(cfg.nbs_path) if a.out else path,
        )
        stamp = target.with_suffix(".ran")
        if a.out and stamp.exists() and stamp.read_text() == fingerprint(path, a.out / "results"):
            print(f"has {path.name:24} run, and nothing changed", flush=True)
            continue
        if a.out:
            shutil.copy(path, target)
        try:
            nb = run(target, a.flags.split())
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
            print(f"FAILED {path.name}\n{e}", file=sys.stderr, flush=True)
            failed += 1
            continue
        print(f"ran {path.name:24} {time.time() - start:5.1f} s", flush=True)
        if a.write or a.out:
            nbformat.write(nb, target)
        if a.out:
            stamp.write_text(fingerprint(path, a.out / "results"))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
