"""What several tests share: the data, the built site, a browser."""
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if workers > 1:                                      # each has its share of the cores, before NumPy counts them
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // workers)))

import matplotlib  # noqa: E402
import pytest  # noqa: E402

from fashion_proto.data import load_fashion_mnist  # noqa: E402

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parent.parent
LONG = "ann knn play cluster use audit gate site explore sure data patches tools".split()      # by their time, the longest first


def pytest_collection_modifyitems(items):
    "The files that take long come first, so that no worker is left alone with one at the end."
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if item.path.stem == f"test_{name}"), len(LONG)))


@pytest.fixture(scope="session")
def fashion():
    "`(train, test)`, the real ones."
    return load_fashion_mnist()


@pytest.fixture
def serve():
    "A function that serves with a handler class on this machine and gives the address; all stop at the end of the test."
    servers = []

    def start(handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The folder of the site, built from the committed outputs; by one worker for all."
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ: shared = shared.parent
    out, failed = shared / "site/html", shared / "site/failed"
    try: out.parent.mkdir()
    except FileExistsError:                      # another worker builds it: the folder comes in one step, when it is whole
        while not out.exists():
            assert not failed.exists(), "another worker could not build the site"
            time.sleep(0.5)
        return out
    if subprocess.run([sys.executable, "nbs/_tools/build_site.py", "nbs", str(out)], cwd=ROOT).returncode:
        failed.touch()
        pytest.fail("the site could not be built")
    return out


@pytest.fixture(scope="session")
def pages(site):
    "The address of the site, served on this machine."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    "Headless Chromium; where there is none the test is skipped, but not in CI."
    names = [os.environ.get("CHROMIUM", ""), "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
    path = next((p for n in names if n and (p := shutil.which(n))), None)
    if path is None:
        if os.environ.get("CI") == "true": pytest.fail("CI needs Chromium: apt-get install chromium")
        pytest.skip("no Chromium here: apt-get install chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright      # not there with the oldest versions
    flags = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
             "--disable-component-update --disable-sync").split()
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()
