"""Kernels that start in a tenth of a second: each is forked from one process that has imported the
libraries, which takes some seconds. Our package is not among them: each chapter imports it."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from importlib import import_module

LIBRARIES = """ipykernel.kernelapp matplotlib.pyplot numba.typed scipy.optimize scipy.stats
    sklearn.cluster sklearn.linear_model sklearn.model_selection sklearn.neighbors
    sklearn.pipeline""".split()


class Forks:
    "The process from which kernels are forked; they end when it ends, and it ends with us."

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.turn = threading.Lock()

    def start(self, command, env, folder):
        "Fork the kernel that `command` would start."
        with self.turn:
            print(json.dumps([command, env, str(folder)]), file=self.server.stdin, flush=True)
            pid = self.server.stdout.readline()
        if not pid:
            raise RuntimeError("the process from which kernels are forked has ended")
        return Fork(int(pid))


class Fork:
    "A forked process, with what jupyter_client asks of a `subprocess.Popen`."

    stdin = stdout = stderr = None

    def __init__(self, pid):
        self.pid = pid

    def send_signal(self, number):
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def poll(self):
        "None while it runs."
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0

    def wait(self):
        "jupyter_client asks this only of a process that has ended."
        return self.poll()


def be_kernel(command, env, folder):
    "Be, in a forked process, the kernel that `command` would start."
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.chdir(folder)
    os.environ.update(env)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = command[command.index("ipykernel_launcher") :]
    launch = import_module("ipykernel.kernelapp").IPKernelApp.launch_instance
    launch([*sys.argv[1:], f"--IPKernelApp.parent_handle={os.getppid()}"])
    atexit._run_exitfuncs()
    os._exit(0)


def main():
    "Import the libraries, then fork a kernel for each line that comes."
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner, which ends its kernels
    # matplotlib asks for this when it is imported; a kernel would have set it before
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in LIBRARIES:
        import_module(name)
    # pandas looked for a notebook when it was imported, and would cut what it prints to a terminal
    import_module("pandas").set_option("display.max_columns", 20)
    for line in sys.stdin:
        with warnings.catch_warnings():  # Python 3.12 fears for the thread of pyarrow's allocator
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            return be_kernel(*json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
