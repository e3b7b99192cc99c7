# Two commands: `make demo` asks the sample image three questions, `make test` checks everything.
# Both set up what they need and are quick when it is there.

VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test setup setup-dev lint types bench clean

demo: setup
	$(BIN)/geoalign ask samples/canal.tif "parking lot" "trees" "water" --out $(DEMO) --overwrite

test: lint types
	$(BIN)/python -m pytest

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/mypy

bench: setup-dev
	$(BIN)/python benchmarks/tile_peers.py
	$(BIN)/python benchmarks/embed.py
	$(BIN)/python benchmarks/requery.py

setup:
	@sh .ci/setup core

setup-dev:
	@sh .ci/setup dev

clean:
	rm -rf $(VENV) $(DEMO) samples/*.geoalign
