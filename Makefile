# One command each; every target sets up what it needs. `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lab check format bench venv chromium clean

demo: venv                 ## train a LoRA on drawn pictures and show what it learned
	$(BIN)/dpnb demo --out dpnb-demo

test: venv chromium        ## run every test, the browser's too, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

lab: venv                  ## open JupyterLab on the notebooks
	$(BIN)/dpnb lab

check: venv                ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv               ## let ruff put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv                ## measure; figures side by side
	for file in tests/bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

venv: $(STAMP)             ## make .venv alone

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dpnb needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[train,dev]'
	@# On every core, which pip does on one; what does not compile is a template of some package, and stays as it is.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib dpnb trainer || :
	@touch $@

# The browser tests are skipped, and say so, where no Chromium is and apt cannot bring one.
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q chromium; \
	  else echo "no Chromium here: the browser tests will be skipped (apt-get install chromium brings it)"; fi; }

clean:                     ## remove what the other targets made
	rm -rf $(VENV) dpnb-demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
