# `make book` and `make test` need Python >= 3.11 and nothing else; `make` alone lists the commands.
# With another interpreter: make PYTHON=python3.12 book

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXECUTED := _build/.executed-with
NOTEBOOKS := $(sort $(wildcard book/*.ipynb))
PACKAGE := $(shell find acmix_edu -type f -not -name '*.pyc' 2>/dev/null)
COLAB_PINS := 'numpy==2.1.*' 'ipywidgets==7.7.1' 'anywidget==0.9.21'
OLDEST_PINS := 'torch==2.11.*' 'numpy==1.26.*' 'matplotlib==3.8.*' 'scikit-learn==1.3.*' \
  'ipywidgets==7.7.*' 'anywidget==0.9.0' 'safetensors==0.4.*'

NEWEST := pytest pytest-timeout pytest-xdist pyyaml onnx onnxscript onnxruntime
PACKAGE_TESTS := tests -n 2 -q \
  --ignore tests/browser --ignore tests/test_site.py --ignore tests/test_light_pages.py

.PHONY: help book serve test lint unit notebooks browser bench gpu runs bugs lab colab oldest newest strip clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(EXECUTED) ## execute every chapter and build the book into _build/html
	@echo "== executing the chapters and building the book (a few minutes the first time)"
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	@echo "== the book is built: open _build/html/index.html, or run 'make serve'"

serve: ## serve _build/html on 127.0.0.1
	@test -f _build/html/index.html || { echo "There is no book in _build/html yet: run 'make book' first."; exit 1; }
	@echo "== http://127.0.0.1:$(PORT)/   (Ctrl-C stops it)"
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

test: ## run all checks of the book and the package: all of the five steps below
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory notebooks
	@$(MAKE) --no-print-directory book
	@$(MAKE) --no-print-directory browser
	@echo "== everything passed"

lint: $(READY) ## ruff, on the package, the tests and the notebooks; mypy, on the package
	@echo "== ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check acmix_edu tests benchmarks book/_ext
	@echo "== mypy"
	$(BIN)/mypy

unit: $(READY) ## the unit tests
	@echo "== unit tests"
	$(BIN)/python -m pytest tests --ignore tests/browser -n 2 -q

notebooks: $(READY) ## execute every notebook with nbval; each assert in a cell is a test
	@echo "== notebooks: $(NOTEBOOKS)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval-lax --nbval-current-env book -n 2 --dist loadfile -q

browser: $(READY) ## the browser tests, against the built book
	@echo "== browser tests"
	$(BIN)/python tests/browser/chromium.py
	$(BIN)/python -m pytest tests/browser -n 2 -q

bench: $(READY) ## the benchmarks: one file, one question
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

gpu: $(READY) ## on a machine with an NVIDIA GPU: its tests, the notebooks, the figures for benchmarks/results
	@$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "PyTorch finds no CUDA device here.")'
	$(BIN)/python -m pytest tests/test_gpu.py -q -n auto
	$(BIN)/python benchmarks/attention_gpu.py
	$(BIN)/python benchmarks/module_gpu.py
	$(MAKE) --no-print-directory notebooks

runs: $(READY) ## train every arm on every task again, for chapters 09 and 10 (ten hours); finished runs are kept
	$(BIN)/python -m acmix_edu.training.runs
	$(BIN)/python -m acmix_edu.training.denoise

bugs: $(READY) ## plant bugs, one at a time: which do the tests catch, which the notebooks? (an hour or two)
	$(BIN)/python tests/planted_bugs.py

lab: $(READY) ## open the chapters in JupyterLab
	$(BIN)/jupyter lab book

strip: $(READY) ## remove outputs and execution counts from the notebooks before a commit
	$(BIN)/nbstripout $(NOTEBOOKS)

colab: .venv-colab/.ready ## execute every notebook with the versions that Colab pins
	@echo "== notebooks, with $(COLAB_PINS)"
	OMP_NUM_THREADS=1 .venv-colab/bin/python -m pytest --nbval-lax --nbval-current-env book -n 2 --dist loadfile -q

oldest newest: export PYTEST_ADDOPTS := -o filterwarnings=default  # for the pytest in a test, too

oldest: .venv-oldest/.ready ## the package's unit tests with the oldest versions that it allows
	@echo "== unit tests, with $(OLDEST_PINS)"
	.venv-oldest/bin/python -m pytest $(PACKAGE_TESTS)

newest: .venv-newest/.ready ## the package's unit tests with the newest versions that pip finds
	@echo "== unit tests, with the newest versions"
	.venv-newest/bin/python -m pip install --disable-pip-version-check --upgrade -e '.[book]' $(NEWEST)
	.venv-newest/bin/python -m pytest $(PACKAGE_TESTS)

clean: ## remove everything that was built, and the environments
	rm -rf _build build dist *.egg-info .venv .venv-colab .venv-oldest .venv-newest .pytest_cache .ruff_cache .mypy_cache

# What other versions warn of is not for us to mend: in `oldest` and `newest` warnings are no errors.
# A stamp file records that an environment is complete, or which code the chapters ran with.
define new_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "This needs Python 3.11 or newer, and '$(PYTHON)' is not that: install one, then run"; \
	    echo "make again, naming it if need be, for example: make PYTHON=python3.12 book"; exit 1; }
	$(PYTHON) -m venv $(1)
endef

$(READY): requirements.txt pyproject.toml
	@echo "== installing the pinned requirements into $(VENV) (several minutes the first time)"
	$(call new_environment,$(VENV))
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $@

.venv-colab/.ready: requirements.txt pyproject.toml
	@echo "== installing Colab's versions into .venv-colab"
	$(call new_environment,.venv-colab)
	.venv-colab/bin/python -m pip install --disable-pip-version-check -e '.[book]' $(COLAB_PINS) \
	  $$(grep -E '^(torch|nbval|pytest|pytest-timeout|pytest-xdist|ipykernel)==' requirements.txt)
	@touch $@

.venv-oldest/.ready: requirements.txt pyproject.toml
	@echo "== installing the oldest versions into .venv-oldest"
	$(call new_environment,.venv-oldest)
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -e '.[book]' $(OLDEST_PINS) \
	  $$(grep -E '^(pytest|pytest-timeout|pytest-xdist|onnx|onnxscript|onnxruntime)==' requirements.txt) pyyaml
	@touch $@

.venv-newest/.ready:
	$(call new_environment,.venv-newest)
	@touch $@

# The execution cache knows the notebooks only: other code under them empties it.
$(EXECUTED): $(READY) $(PACKAGE)
	@rm -rf _build/.jupyter_cache
	@mkdir -p _build
	@touch $@
