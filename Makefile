# Everything a fresh machine with Python and make needs: `make train`, `make test`.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/digits
BIN := $(VENV)/bin

.PHONY: train test test-slow lint docs notebooks clean

train: $(VENV)/.installed
	$(BIN)/soar-tf train --method soar --dataset digits --workdir $(WORKDIR) --verbose 2 \
		--attack fgsm --attack pgd20 --attack autoattack

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive soar_tf cli benchmarks tools
	$(BIN)/python tools/audit.py

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/.installed
	$(BIN)/python docs/site/notebooks.py

# Installed again whenever pyproject.toml changes.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "soar-tf needs Python 3.11 to 3.13, found " + sys.version.split()[0] + "; set PYTHON=python3.x")'
	@echo "Installing soar-tf and TensorFlow into $(VENV) (about a minute)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
