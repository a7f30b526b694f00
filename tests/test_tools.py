"""The tools that run the book and build the site: stopped, failing, interrupted, on a small machine."""
import os
import signal
import subprocess
import sys
import threading
import time

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

sys.path.insert(0, str(ROOT / "nbs/_tools"))
from compile_once import in_kernel
from run_notebooks import READERS, Seats, chapters, write_whole
from share_cores import measures_time

RUN = [sys.executable, str(ROOT / "nbs/_tools/run_notebooks.py")]


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def run(*args, **kwargs): return subprocess.run([*RUN, *map(str, args)], cwd=ROOT, capture_output=True, text=True, **kwargs)


def test_a_chapter_that_fails_names_its_cell_and_the_others_run(tmp_path):
    bad = notebook(tmp_path / "bad.ipynb", "1 + 1", "print('last words')\nassert 1 + 1 == 3, 'sum'")
    good = notebook(tmp_path / "good.ipynb", "6 * 7")
    done = run("--write", bad, good)
    assert done.returncode == 1 and "bad, cell 1:" in done.stderr and "assert 1 + 1 == 3" in done.stderr
    assert "AssertionError: sum" in done.stderr and "last words" in done.stderr and "\x1b" not in done.stderr
    assert "2 of 2" in done.stdout and "to go" in done.stdout
    assert nbformat.read(good, 4).cells[0].outputs and not nbformat.read(bad, 4).cells[0].outputs


def more(folder, n): return [notebook(folder / f"more{i}.ipynb", "6 * 7") for i in range(n)]


@pytest.mark.parametrize("others", [0, 3])             # four kernels and more are forked
def test_a_kernel_that_dies_is_named(tmp_path, others):
    dead = notebook(tmp_path / "dead.ipynb", "import os\nos._exit(1)")
    done = run("--write", dead, *more(tmp_path, others))
    assert done.returncode == 1 and "dead, cell 0:" in done.stderr and "os._exit" in done.stderr


def test_a_forked_kernel_shows_figures_and_wide_tables(tmp_path):
    drawn = notebook(tmp_path / "drawn.ipynb", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
                     "import pandas as pd\npd.DataFrame([range(10**8, 10**8 + 12)])", "1 + 1")
    done = run("--write", drawn, *more(tmp_path, 3))
    assert done.returncode == 0 and "Warning" not in done.stderr
    figure, table, number = nbformat.read(drawn, 4).cells
    assert "image/png" in figure.outputs[0].data and number.outputs[0].data["text/plain"] == "2"
    assert "..." not in table.outputs[0].data["text/plain"]


@pytest.mark.parametrize("few, hits", [(2, 1), (3, 0)])             # as in the module, and changed
def test_a_kernel_finds_what_the_package_has_compiled(tmp_path, monkeypatch, few, hits):
    for name in "IPYTHONDIR", "XDG_CACHE_HOME": monkeypatch.setenv(name, str(tmp_path))      # nothing cached before, HOME not needed
    imports = "import numpy as np\nfrom fashion_proto.core.checks import compiled"
    loop = "@compiled()\ndef ours(n):\n    total = FEW\n    for i in range(n): total += np.int64(i)\n    return total"
    (tmp_path / "a.py").write_text("\n\n".join(['"A module."', imports, "FEW = 2", loop, ""]))
    subprocess.run([sys.executable, "-c", "from a import ours; ours(4)"], cwd=tmp_path, check=True)
    ask = "import inspect\nprint(ours(4), sum(ours.stats.cache_hits.values()), inspect.getsource(ours.py_func) == source)"
    path = notebook(tmp_path / "a.ipynb", "#| default_exp a", f"#| export\n{imports}", f"#| export\nFEW = {few}",
                    f"#| export\n{loop}", f"source = {loop + chr(10)!r}\n{ask}")
    nb = nbformat.read(path, 4)
    lines = [f"--IPKernelApp.exec_lines={line}" for line in in_kernel(nb, tmp_path)]
    NotebookClient(nb, extra_arguments=lines, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert nb.cells[-1].outputs[0].text == f"{6 + few} {hits} True\n"


@pytest.mark.parametrize("ending, others", [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_ctrl_c_ends_the_kernels_and_keeps_what_has_run(tmp_path, ending, others):
    note = tmp_path / "pid"
    first = notebook(tmp_path / "a.ipynb", "6 * 7")
    slow = notebook(tmp_path / "b.ipynb", f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    before = slow.read_bytes()
    paths = [first, slow, *more(tmp_path, others)]
    runner = subprocess.Popen([*RUN, "--jobs", "2", "--write", *map(str, paths)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (note.exists() and note.read_text() and nbformat.read(first, 4).cells[0].outputs):
        assert time.monotonic() < deadline and runner.poll() is None
        time.sleep(0.2)
    runner.send_signal(ending)
    assert "the same command goes on" in runner.communicate(timeout=60)[1] and runner.returncode == 1
    while os.path.exists(f"/proc/{note.read_text()}") and time.monotonic() < deadline: time.sleep(0.1)
    with pytest.raises(ProcessLookupError): os.kill(int(note.read_text()), 0)
    assert slow.read_bytes() == before and set(tmp_path.iterdir()) == {note, *paths}


def test_a_cell_that_measures_time_is_alone():
    seats, inside, most, meeting = Seats(2), [], {}, threading.Barrier(2, timeout=120)

    def work(name, n):
        for turn in range(30):
            with seats.take(n):
                inside.append(name)
                if name != "clock" and turn == 0: meeting.wait()     # for the other one, which gets in while this one is
                most[name] = max(most.get(name, 0), len(inside))
                if name != "clock" and turn == 0: meeting.wait()     # until both have counted
                time.sleep(0.002)
                inside.remove(name)

    threads = [threading.Thread(target=work, args=task) for task in (("a", 1), ("b", 1), ("clock", 2))]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert most["clock"] == 1 and most["a"] == most["b"] == 2


def test_while_such_a_cell_waits_no_core_is_idle():
    "Others start as long as the cells run that ran when it came, and then wait behind it."
    seats, entered, go_on = Seats(2), [], {name: threading.Event() for name in ("first", "clock", "second", "third")}

    def work(name, n):
        with seats.take(n):
            entered.append(name)
            assert go_on[name].wait(60)

    def start(name, n):
        threads.append(threading.Thread(target=work, args=(name, n)))
        threads[-1].start()

    def until(true):
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    threads = []
    start("first", 1)
    until(lambda: entered == ["first"])
    start("clock", 2)
    until(lambda: seats.waiting)
    start("second", 1)
    until(lambda: entered == ["first", "second"])
    go_on["first"].set()
    until(lambda: len(seats.running) == 1)
    start("third", 1)
    time.sleep(0.1)
    assert entered == ["first", "second"]
    for event in go_on.values(): event.set()
    for thread in threads: thread.join()
    assert entered == ["first", "second", "clock", "third"]


@pytest.mark.parametrize("source, alone", [
    ("start = perf_counter()\nknn.fit(X, y)", True), ("for n in 1, 2:\n    _, s = with_time(knn.fit, X[:n], y[:n])", True),
    ("from time import perf_counter", False), ("def measure(f):\n    start = perf_counter()", False),
    ("#| timing\nf'{seconds:.1f} s'", False), ("measured['fit']", False)])
def test_a_cell_is_alone_only_while_it_looks_at_the_clock(source, alone):
    assert measures_time(source) == alone


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    page = tmp_path / "page.ipynb"
    write_whole(page, "first")

    def full(self, text, **kwargs):
        with open(self, "w") as file: file.write(text[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(page), "write_text", full)
    with pytest.raises(OSError, match="No space left"): write_whole(page, "second")
    assert page.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["page.ipynb"]


def test_what_reads_the_results_of_others_comes_after_them():
    lessons = [p for p in chapters() if p.parent.name != "core"]
    names = [p.name for p in lessons]
    writers = [p.name for p in lessons if f"results/{p.stem}.json" in p.read_text()]
    assert len(writers) > 9 and set(READERS) <= set(names) and names[-1] == "index.ipynb"
    for reader in READERS:
        assert all(names.index(p) < names.index(reader) for p in writers if p not in READERS)
        assert all(p < READERS[reader] for p in writers if p not in READERS)
