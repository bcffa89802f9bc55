# `make demo` and `make test` set everything up in .venv; nothing else is needed but Python 3.10+ (and npm's registry
# for pyright).
PYTHON ?= python3
PY := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-comfyui test lint train clean
demo: .venv/demo
	$(PY) benchmarks/demo.py

demo-comfyui: .venv/host
	$(PY) benchmarks/demo_comfyui.py

test: .venv/host lint
	$(PY) -m pytest tests --ignore tests/host
	$(PY) tests/host/hosts.py test

lint: .venv/test
	$(PY) -m ruff check .
	$(PY) -m pyright

train: .venv/demo
	$(PY) benchmarks/train_tiny_flux.py

clean:
	rm -rf .venv out

.venv/pip: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo: .venv/pip
	$(PY) -m pip install --quiet -c constraints.txt -e ".[demo]"
	touch $@

.venv/test: .venv/pip
	$(PY) -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

# What a ComfyUI needs to run, where one is found: its own requirements, less what our stubs stand in for.
.venv/host: .venv/test tests/host/hosts.py
	$(PY) tests/host/hosts.py requirements > .venv/host-requirements.txt
	$(PY) -m pip install --quiet -c constraints.txt -r .venv/host-requirements.txt
	touch $@
