# Needs Python 3.11 or newer and make, nothing else. The environment lies in .venv and is reused
# as long as pyproject.toml and the Python version stay the same.
#   make demo        map a drawn city with the shipped model, score it against the truth
#   make test        lint, types, import rules and every test that is not slow
#   make quick       these tests alone
#   make test-all    the same with the slow tests
#   make docs        the manual as web pages in site/; a broken link is an error
#   make layers      the tables of docs/layers.md and docs/compare.md anew, from the schema
#   make ablation    what each part of the method contributes; resumable, needs the image collections
#   make venv PYTHON=python3.12    only prepare the environment, with a Python of your choice

VENV := .venv
BIN := $(VENV)/bin
VERSION_OF = $(1) -c 'import sys; sys.version_info < (3, 11) or print("%d.%d" % sys.version_info[:2])' 2>/dev/null
FIRST_FIT = for p in python3 python python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done

# A Python named by the user decides; else the one of an existing .venv; else the first that fits.
ifneq ($(PYTHON),)
WANTED := $(shell $(call VERSION_OF,$(PYTHON)))
else
WANTED := $(shell $(call VERSION_OF,$(BIN)/python))
ifeq ($(WANTED),)
PYTHON := $(shell $(FIRST_FIT))
WANTED := $(if $(PYTHON),$(shell $(call VERSION_OF,$(PYTHON))))
endif
endif
STAMP := $(VENV)/.installed-$(WANTED)-$(shell cksum < pyproject.toml | tr ' ' '-')

# Every process would else translate this package anew where the environment forbids to keep that.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: venv demo test quick test-all style types lint docs layers ablation clean

venv: $(STAMP)

$(STAMP):
	@test -n "$(WANTED)" || { echo "error: no Python 3.11 or newer found$(if $(PYTHON), as '$(PYTHON)'); install one or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test "$$($(call VERSION_OF,$(BIN)/python))" = "$(WANTED)" || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); echo "error: $(PYTHON) cannot create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) with Python $(WANTED) (a few minutes, about 7 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@rm -f $(VENV)/.installed-* && touch $@

demo: $(STAMP)
	@$(BIN)/wpcrack demo --out demo

style: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo

types: $(STAMP)
	@$(BIN)/mypy

lint: style types

# Two files at once, as tests wait for Ray for half of their time; slow ones start clusters alone.
TWO_AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder
# Types take a minute of one core: they are checked while the tests run.
test: style
	@$(MAKE) --no-print-directory --jobs=2 types quick

quick: $(STAMP)
	@$(BIN)/python -m pytest -m "not slow" $(TWO_AT_ONCE)

test-all: lint
	@$(BIN)/python -m pytest

docs: $(STAMP)
	@$(BIN)/mkdocs build --strict --quiet && echo "open site/index.html"

WRITE_LAYERS := from pathlib import Path; from geo.layers import schema; \
	tables = {"layers": schema.LAYERS, "compare": schema.CHANGE_LAYERS}; \
	pages = {Path(f"docs/{name}.md"): schema.readme_table(tables[name]).strip() for name in tables}; \
	parts = {page: page.read_text().split("schema.readme_table() -->", 1) for page in pages}; \
	[page.write_text(f"{head}schema.readme_table() -->\n\n{pages[page]}\n\n" \
	+ rest[rest.index("<!-- end"):]) for page, (head, rest) in parts.items()]
layers: $(STAMP)
	@$(BIN)/python -c '$(WRITE_LAYERS)'

DATA := ../shared/data
ablation: $(STAMP)
	@$(BIN)/python -m benchmarks.ablation --data $(DATA)

clean:
	rm -rf $(VENV) site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
