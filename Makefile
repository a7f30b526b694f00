# One verb each. `make book` and `make test` are all that a reader needs; `make` lists the rest.
PY := .venv/bin/python
TOOLS := nbs/_tools
XDIST := -n 3 --dist loadfile --no-loadscope-reorder  # three files at a time: one often waits; XDIST= for one after the other
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export TQDM_DISABLE ?= 1
# Keep compiled modules: without them every kernel compiles its libraries again, some seconds each
unexport PYTHONDONTWRITEBYTECODE

help:      ## list these targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

book: data  ## run every chapter on the real data (again only what changed), and build the site from those runs into _docs/
	@$(PY) $(TOOLS)/run_notebooks.py --flags timing --out _proc/nbs
	@$(PY) $(TOOLS)/build_site.py _proc/nbs

test: data  ## check everything that CI checks (DURATIONS=20 lists the slowest)
	@sh $(TOOLS)/setup.sh browser & browser=$$!; \
	$(PY) $(TOOLS)/run_notebooks.py --flags timing --out _proc/nbs || echo "the tests say more"; \
	wait $$browser
	@$(PY) -m pytest -q $(XDIST) tests $(if $(DURATIONS),--durations=$(DURATIONS))

test-oldest: data  ## check with the oldest versions that settings.ini allows what needs no browser and no tool of the book
	@sh $(TOOLS)/oldest.sh

lab: data  ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab nbs --LabApp.default_url=/lab/tree/index.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

docs: data  ## build the site from the committed outputs, in half a minute
	@$(PY) $(TOOLS)/build_site.py nbs

bench: data  ## measure again what bench/ records, with the libraries it is compared with, and keep the results
	@$(PY) -m pip install -q --disable-pip-version-check -c .github/constraints.txt -e ".[bench,embed]"
	@$(PY) bench/run.py

prepare: data  ## after an edit: export, refresh the outputs (FLAGS=timing: measured times too), clean, write README.md
	@nbdev_export
	@$(PY) $(TOOLS)/run_notebooks.py --flags "$(FLAGS)" --write
	@nbdev_clean
	@$(PY) $(TOOLS)/build_readme.py
	@ruff check -q .

data: setup  ## get Fashion-MNIST: from the cache, a download, or Debian's package
	@sh $(TOOLS)/setup.sh data

setup:     ## make .venv with everything in it
	@sh $(TOOLS)/setup.sh venv

clean:     ## remove what was built (.venv and the data stay)
	@rm -rf _docs _proc .pytest_cache *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help book test test-oldest lab docs bench prepare data setup clean
