"""For every kernel of the book: NumPy and scikit-learn take half the cores, for another chapter
runs beside, except in cells that measure time, which have the machine to themselves."""

import os
import re

from threadpoolctl import threadpool_limits

CLOCK = re.compile(r"\b(perf_counter|with_time|measure)\(")
DEFINES = re.compile(r"(?m)^(def|class) ")
IN_KERNEL = (  # this leaves no name behind
    f"__import__('runpy').run_path({__file__!r})['share'](get_ipython())"
)


def measures_time(source):
    "Whether the code of a cell looks at the clock, rather than define what will."
    return bool(CLOCK.search(source)) and not DEFINES.search(source)


def before_cell(info):
    cores = os.cpu_count() or 1
    threadpool_limits(cores if measures_time(info.raw_cell) else max(1, cores // 2))


def share(shell):
    shell.events.register("pre_run_cell", before_cell)
