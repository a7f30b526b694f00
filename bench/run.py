"""Measure, and keep what was measured with its date:  python bench/run.py [name ...]

Each module of this folder but this one has a function `measure` that returns a dict, and names
the LIBRARIES whose versions matter. It goes
to `results/<name>.json`.
"""

import datetime
import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

here = Path(__file__).parent

if __name__ == "__main__":
    (here / "results").mkdir(exist_ok=True)
    for name in sys.argv[1:] or sorted(
        p.stem for p in here.glob("*.py") if p.stem not in ("run", "common")
    ):
        module = importlib.import_module(name)
        found = module.measure()
        found |= {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, "
            f"Python {platform.python_version()}",
            "versions": {lib: version(lib) for lib in module.LIBRARIES.split()},
        }
        (here / "results" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(found))
