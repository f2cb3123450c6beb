# One virtual environment, .venv, serves every target. Set PYTHON to choose the interpreter it is made with.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export OMP_NUM_THREADS ?= 2

.PHONY: help demo test test-quick test-lowest lint format docs clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

.venv/.%: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[$*]"
	touch $@

demo: demo/astronaut.png ## print the AU table of a real photo, and annotate it in demo/
	$(BIN)/hf-geaau predict demo/astronaut.png --output demo/table.csv --annotate demo --overwrite
	@echo "See demo/: the annotated photo, the mask heat maps and table.csv."

# NASA's portrait of Eileen Collins, public domain, from the PyPI package scikit-image.
demo/astronaut.png: .venv/.plots
	$(BIN)/python -m pip install -q --disable-pip-version-check "scikit-image>=0.25"
	mkdir -p demo
	$(BIN)/python -c "from skimage import data, io; io.imsave('demo/astronaut.png', data.astronaut())"

test: .venv/.test ## run all tests and doctests
	$(BIN)/python -m pytest

test-quick: .venv/.test ## run the fast unit tests and doctests, in under a minute
	$(BIN)/python -m pytest -m "not slow" tests/unit hf_geaau

test-lowest: ## run all tests with the oldest dependencies that pyproject.toml allows; needs uv
	uv venv -q --clear --python $(PYTHON) .venv-lowest
	uv pip install -q --python .venv-lowest/bin/python --resolution lowest-direct -e ".[test]"
	.venv-lowest/bin/python -m pytest

lint: .venv/.dev ## check style, names and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.docs ## build the documentation site into site/; broken links and references fail
	$(BIN)/mkdocs build --strict

clean: ## remove what the other targets made
	rm -rf .venv .venv-lowest demo build dist site
