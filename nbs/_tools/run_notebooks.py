"""Run the chapters, two at a time, each in a Jupyter kernel of its own, and say how long is left.

    python nbs/_tools/run_notebooks.py [--flags timing] [--write | --out FOLDER] [NOTEBOOK ...]

A cell marked with a test flag of settings.ini (`tst_flags`) that --flags does not name is not
run: it keeps its outputs. A cell that measures time runs while no other does. With --out a chapter
is run again only if something that its outputs depend on has changed, so that a run that was
stopped goes on where it was.
"""

import argparse
import atexit
import base64
import functools
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from pathlib import Path

import compile_once
import joblib
import nbformat
import share_cores
from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbdev.config import get_config
from PIL import Image, ImageChops
from warm_kernels import Forks

cfg = get_config()
SECONDS = Path(__file__).with_name("seconds.json")  # of each chapter at the last `make prepare`
READERS = {"15_verdict.ipynb": "12", "index.ipynb": "z"}  # they read what chapters up to here wrote
LATER = {"06a_exact.ipynb": "08"}  # beside chapter 6 it would compile the same loops once more
MACHINE = (
    re.compile(  # joblib, where it cannot count cores (no /sys) or share memory (no /dev/shm);
        # Dask, where a worker takes long to end
        r"joblib/(externals/loky/backend/context|_multiprocessing_helpers)\.py"
        r"|\A(.*distributed\.nanny - WARNING - Worker process still alive.*\n?)+\Z"
    )
)


class Seats:
    """Room for `n` cells at a time. A cell that needs all of it waits for those that run; others
    may start until these have ended, so that no core is idle, and then wait behind it."""

    def __init__(self, n):
        self.n, self.change, self.closed = n, threading.Condition(), False
        self.running, self.waiting, self.alone = set(), [], False

    def may_start(self, me, whole):
        if self.alone or len(self.running) == self.n:
            return False
        if not self.waiting:
            return True
        first, before = self.waiting[0]
        return not self.running if first is me else not whole and bool(before & self.running)

    @contextmanager
    def take(self, n):
        me, whole = object(), n == self.n
        with self.change:
            if whole:
                self.waiting.append((me, set(self.running)))
            self.change.wait_for(lambda: self.closed or self.may_start(me, whole))
            self.waiting = [one for one in self.waiting if one[0] is not me]
            self.running.add(me)
            self.alone |= whole
        try:
            if self.closed:
                raise DeadKernelError("stopped")
            yield
        finally:
            with self.change:
                self.running.discard(me)
                self.alone &= not whole
                self.change.notify_all()

    def close(self):
        "Let no more cells start."
        with self.change:
            self.closed = True
            self.change.notify_all()


class Warm(LocalProvisioner):
    "Forks a kernel from a process that has the libraries, rather than start one without them."

    async def launch_kernel(self, cmd, **kwargs):
        self.process = self.forks.start(cmd, kwargs["env"], kwargs["cwd"])
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class Client(NotebookClient):
    "A notebook client that leaves out the cells with a flag in `skip`, and lets clocks run alone."

    skip, seats, at, forks = frozenset(), Seats(1), 0, None

    def create_kernel_manager(self):
        km = super().create_kernel_manager()
        if self.forks:
            km.provisioner = Warm(kernel_spec=km.kernel_spec, parent=km)
            km.provisioner.forks = self.forks
        return km

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if self.skip & set(re.findall(r"(?m)^#\|\s*([\w-]+)", cell.source)):
            return cell
        self.at = cell_index
        alone = share_cores.measures_time(cell.source)
        with self.seats.take(self.seats.n if alone else 1):
            return await super().async_execute_cell(cell, cell_index, **kwargs)


def client_for(path, folder, flags=(), seats=None, forks=None):
    "What runs the notebook at `path` in `folder`."
    seats = seats or Seats(1)
    nb = nbformat.read(path, as_version=4)
    first = compile_once.in_kernel(nb, cfg.lib_path)
    if seats.n > 1:
        first.append(share_cores.IN_KERNEL)
    client = Client(
        nb,
        timeout=900,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=[
            "--log-level=ERROR",
            *(f"--IPKernelApp.exec_lines={line}" for line in first),
        ],
        resources={"metadata": {"path": str(folder)}},
    )
    client.skip = frozenset(cfg.tst_flags.split()) - set(flags)
    client.seats, client.forks = seats, forks
    return client


def run(client):
    "The notebook of `client` with fresh outputs; raises where a cell does."
    nb = client.execute()
    for cell in (cell for cell in nb.cells if cell.cell_type == "code"):
        cell.outputs = [o for o in cell.outputs if not MACHINE.search(o.get("text", ""))]
    for out in (
        o for cell in nb.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ):
        out.data["image/png"] = slim(out.data["image/png"])
    return nb


def data_folder():
    "Where the reader keeps the data, as a path that holds in every folder; empty if not said."
    folder = os.environ.get("FASHION_MNIST_DIR", "")
    return folder and os.path.abspath(os.path.expanduser(folder))


def set_environment():
    "What every kernel sees, whatever the machine."
    os.environ.update(TQDM_DISABLE="1", PYTHONHASHSEED="0", PYDEVD_DISABLE_FILE_VALIDATION="1")
    # threads that wait for work must not keep a core from the chapter beside them
    os.environ.update(OMP_WAIT_POLICY="passive", OPENBLAS_THREAD_TIMEOUT="4")
    if data_folder():
        os.environ["FASHION_MNIST_DIR"] = data_folder()
    if not os.access(Path.home(), os.W_OK):  # each kernel would say so
        place = tempfile.TemporaryDirectory()
        atexit.register(place.cleanup)
        os.environ.update(IPYTHONDIR=place.name, MPLCONFIGDIR=place.name)


def slim(png):
    """The same picture in half the bytes: without the alpha channel, and without colours where
    there are none."""
    image, small = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    red, green, blue = image.split()
    grey = not any(ImageChops.difference(red, band).getbbox() for band in (green, blue))
    (red if grey else image).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def chapters():
    """The notebooks in the order in which they run: the lessons, each that reads what others wrote
    as soon as they have, and the core, the longest first, to fill what is left of the time."""
    lessons = cfg.nbs_path.glob("[!_]*.ipynb")
    core, known = cfg.nbs_path.glob("core/[!_]*.ipynb"), seconds_known()
    return [
        *sorted(lessons, key=lambda path: (READERS | LATER).get(path.name, path.name)),
        *sorted(core, key=lambda path: (-known.get(name_of(path), 10), path.name)),
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
    for kept in (cfg.nbs_path / "results").glob("*"):  # what a newer version has brought
        if not (folder / "results" / kept.name).exists():
            shutil.copy(kept, folder / "results")


@functools.cache
def common():
    "What all outputs depend on: the package, what the bench measured, the libraries, the data."
    parts = [
        *sorted(cfg.lib_path.rglob("*.py")),
        *sorted((cfg.config_path / "bench/results").glob("*")),
        Path(__file__),
        cfg.config_path / ".github/constraints.txt",
    ]
    return b"".join(p.read_bytes() for p in parts) + data_folder().encode()


def fingerprint(path, results):
    "What the outputs of a notebook depend on, its own text and what other chapters wrote included."
    read = sorted(p for p in results.glob("*") if p.name < READERS.get(path.name, ""))
    text = b"".join(p.read_bytes() for p in [path, *read])
    return hashlib.sha256(text + common()).hexdigest()


def write_whole(target, text):
    "Write a file that is there as a whole or not at all."
    new = target.with_name(f".{target.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def what_failed(path, client, error):
    "The cell that failed, and the last lines of what it said."
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    source = client.nb.cells[client.at].source.splitlines()
    said = [*source[-8:], "-" * 20, *text[-12:]]
    return "\n    ".join([f"FAILED {name_of(path)}, cell {client.at}:", *said])


def name_of(path):
    "The name of a chapter, with its folder if it is in one."
    return path.stem if path.resolve().parent == cfg.nbs_path else f"{path.parent.name}/{path.stem}"


def seconds_known():
    "How long each chapter took when it was last prepared."
    return json.loads(SECONDS.read_text()) if SECONDS.exists() else {}


def span(seconds):
    "Seconds, or minutes where there are many."
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


class Progress:
    "Says which chapter is done, and how long the others take if the machine goes on as it did."

    def __init__(self, paths):
        known = seconds_known()
        self.weights = {p: known.get(name_of(p), 10) for p in paths}
        self.all, self.seconds = len(paths), {}
        self.start, self.worked = time.time(), 0

    def say(self, path, text, ran=True):
        weight = self.weights.pop(path)
        self.worked += weight if ran else 0
        left = sum(self.weights.values())
        pace = (time.time() - self.start + 40) / (self.worked + 100)  # 0.4 before anything is known
        more = f"; about {span(left * pace)} to go" if left else ""
        n = self.all - len(self.weights)
        print(f"{n:2} of {self.all}  {name_of(path):22} {text}{more}", flush=True)


class Book:
    "Chapters that are run, and where they go."

    def __init__(self, paths, flags=(), out=None, write=False, jobs=1):
        self.paths, self.flags, self.out, self.write = paths, flags, out, write
        self.seats, self.progress = Seats(jobs), Progress(paths)
        self.running, self.failed, self.forks = set(), [], None

    def target(self, path):
        return self.out / path.resolve().relative_to(cfg.nbs_path) if self.out else path

    def is_done(self, path):
        target = self.target(path)
        stamp = target.with_suffix(".ran")
        known = self.out and target.exists() and stamp.exists() and stamp.read_text()
        return known and known == fingerprint(path, self.out / "results")

    def keep(self, path, nb):
        "Put the run away: the page first, then the stamp that says that it is there."
        target = self.target(path)
        if self.write or self.out:
            write_whole(target, nbformat.writes(nb) + "\n")
        if self.out:
            write_whole(target.with_suffix(".ran"), fingerprint(path, self.out / "results"))

    def run(self, path):
        "Run one chapter, unless it has run or the book was stopped."
        if self.seats.closed:
            return
        if self.is_done(path):
            return self.progress.say(path, "has run, and nothing changed", ran=False)
        start = time.time()
        client = client_for(path, self.target(path).parent, self.flags, self.seats, self.forks)
        self.running.add(client)
        try:
            self.keep(path, run(client))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
            if not self.seats.closed:
                self.failed.append(name_of(path))
                self.progress.say(path, f"failed after {time.time() - start:.1f} s")
                print(what_failed(path, client, e), file=sys.stderr, flush=True)
            return
        finally:
            self.running.discard(client)
        self.progress.seconds[name_of(path)] = round(time.time() - start, 1)
        self.progress.say(path, f"{time.time() - start:5.1f} s")

    def stop(self):
        "End the kernels that run; what has run stays."
        self.seats.close()
        for client in list(self.running):
            kernel = getattr(getattr(client.km, "provisioner", None), "process", None)
            if kernel is not None:  # it has been started, and has not ended
                kernel.kill()

    def run_after(self, path, before):
        "Run one chapter after those before it, unless one of them failed."
        wait(before)
        if not self.failed:
            self.run(path)

    def run_all(self):
        "Run what can run at the same time; a chapter that reads others' results waits for them."
        runs = []
        if len(self.paths) > 3 and sys.platform == "linux":  # elsewhere forks may not use libraries
            self.forks = Forks()
        with ThreadPoolExecutor(self.seats.n + 2) as pool:  # two more begin, end or wait
            try:
                for path in self.paths:
                    waits = path.name in READERS
                    job = (self.run_after, path, runs[:]) if waits else (self.run, path)
                    runs.append(pool.submit(*job))
                for done in as_completed(runs):
                    done.result()
            except BaseException:
                self.stop()
                raise


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("paths", nargs="*", type=Path)
    p.add_argument("--flags", default="", help="test flags whose cells are run too")
    p.add_argument(
        "--jobs", type=int, default=min(2, joblib.cpu_count()), help="chapters at a time"
    )
    p.add_argument(
        "--write", action="store_true", help="keep the outputs in the notebooks themselves"
    )
    p.add_argument(
        "--out",
        type=Path,
        help="write the whole book, freshly run, into this folder; again only what changed",
    )
    a = p.parse_args()
    set_environment()
    if a.out:
        copy_book(a.out)
    book = Book(a.paths or chapters(), a.flags.split(), a.out, a.write, a.jobs)
    for ending in (signal.SIGINT, signal.SIGTERM):  # also where whoever started us ignores them
        signal.signal(ending, signal.default_int_handler)
    try:
        book.run_all()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on after the last chapter that is done")
    if a.write and not a.paths and not book.failed:
        write_whole(SECONDS, json.dumps(book.progress.seconds, indent=1) + "\n")
    sys.exit(f"failed: {', '.join(book.failed)}" if book.failed else 0)


if __name__ == "__main__":
    main()
