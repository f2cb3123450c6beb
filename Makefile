# One virtual environment, .venv, serves every target. Set PYTHON to choose the interpreter it is made with.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export OMP_NUM_THREADS ?= 2

.PHONY: help demo test test-quick fuzz lint docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.venv/.%: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[$*]"
	touch $@

demo: demo/astronaut.png ## the AU table of a real photo, and the annotated picture in demo/
	$(BIN)/hf-geaau predict demo/astronaut.png --output demo/table.csv --annotate demo --overwrite
	@echo "See demo/: the annotated photo, the mask heat maps and table.csv."

# NASA's portrait of Eileen Collins, public domain, from the PyPI package scikit-image.
demo/astronaut.png: .venv/.plots
	$(BIN)/python -m pip install -q --disable-pip-version-check "scikit-image>=0.25"
	mkdir -p demo
	$(BIN)/python -c "from skimage import data, io; io.imsave('demo/astronaut.png', data.astronaut())"

test: .venv/.dev ## all tests and doctests, on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-quick: .venv/.test ## unit tests that take less than two seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 tests/unit

lint: .venv/.dev ## style, names, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.docs ## the site, in site/
	$(BIN)/mkdocs build --strict

fuzz: .venv/.dev ## more of the fuzz and fault tests: 20,000 damaged photos and EXIF blocks, 900 videos, 60 kills
	HF_GEAAU_FUZZ_ROUNDS=15 HF_GEAAU_FUZZ_LOG=fuzz.log $(BIN)/python -m pytest tests/fuzz \
		$(wildcard tests/integration/test_faults.py tests/unit/test_hostile_checkpoints.py)

format: .venv/.dev ## sort imports and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the targets made
	rm -rf .venv demo build dist site
