# `make demo` and `make test` set everything up in .venv; they need Python 3.10 or newer and the package registries.
PYTHON ?= python3
PY := .venv/bin/python
# Python compiles what is imported, and keeps that; pip would compile all, which takes a minute.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(PY) -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: demo demo-comfyui bench bench-samplers bench-calibration bench-regimes bench-auto bench-scaling bench-speed gpu real soak compatibility workflows test lint imported train host front-ends clean
demo: .venv/demo
	$(PY) -m benchmarks.demo

demo-comfyui: .venv/demo host
	$(PY) -m benchmarks.demo_comfyui

test:
	$(MAKE) --jobs 2 host
	$(MAKE) --jobs 2 lint imported
	OMP_NUM_THREADS=1 $(PY) -m pytest tests --ignore tests/host -n 3
	$(PY) tests/host/hosts.py test

# Python compiles a library at its first import: once here, not in each of the processes that test.
imported: .venv/test
	@TRANSFORMERS_VERBOSITY=error $(PY) -W ignore -c "import torch._dynamo, torchmetrics.image, matplotlib.pyplot, \
		scipy.stats; from diffusers import FluxPipeline, QwenImagePipeline"

lint: .venv/test
	$(PY) -m ruff check .
	$(PY) -m pyright
	$(PY) -m comfy_cli --skip-prompt --no-enable-telemetry node validate

# The papers' tables in small: about 80 minutes; goes on where it was interrupted. BENCH=--full for all rows.
bench: .venv/bench host
	$(PY) -m benchmarks.paper_table $(BENCH)
	$(PY) -m benchmarks.pages.tables
	$(PY) -m benchmarks.trajectory

# What forecasts go by, and samplers that run the network several times a step: results/coordinates.md, samplers.md.
bench-samplers: .venv/bench host
	$(PY) -m benchmarks.coordinates
	$(PY) -m benchmarks.samplers

# Schedules calibrated from one full run, against the papers' and those that are chosen as the run goes:
# results/calibration_cost.md, calibration.md, calibration_transfer.md, error_control.md, forecasters.md; and β by least
# squares: adaptation.md.
bench-calibration: .venv/bench host
	$(PY) -m benchmarks.calibration.calibration_cost
	$(PY) -m benchmarks.calibration.calibration
	$(PY) -m benchmarks.calibration.calibration_transfer
	$(PY) -m benchmarks.calibration.error_control
	$(PY) -m benchmarks.calibration.compare_forecasters
	$(PY) -m benchmarks.calibration.adaptation

# Every rule of choosing full steps, ours and others', in 14 noise regimes: results/regimes.csv, regimes.md, regimes.png;
# 40 minutes on 2 cores; goes on where it was interrupted. REGIMES=--full for every budget.
bench-regimes: .venv/bench
	$(PY) -m benchmarks.regimes $(REGIMES)
	$(PY) -m benchmarks.pages.regimes_page

# Whether FeMo Auto keeps to the change that was asked for, in these regimes: results/auto.md; 14 minutes on 2 cores.
bench-auto: .venv/bench
	$(PY) -m benchmarks.auto

# What forecasting costs, and what others' caches do: results/speed_cpu.md, cost_growth_cpu.md and latency_cpu.csv; 35
# minutes with nothing else running. DEVICE=cuda on a GPU, with FLUX.1-dev at its real size.
DEVICE ?= cpu
bench-speed: .venv/bench host
	$(PY) -m benchmarks.speed.cost_growth --device $(DEVICE)
	$(PY) -m benchmarks.speed.speed --device $(DEVICE)

# What can be known on one NVIDIA GPU only, in 6 minutes and without a network: results/gpu_<gpu>.md. In .venv where it
# is, else in $(PYTHON), which needs PyTorch for CUDA and what pyproject.toml's `demo` names; with diffusers and cache-dit
# they are measured beside. GPU="--stages flux" for a part of it, GPU=--dry to try it on a CPU.
gpu:
	$(or $(wildcard $(PY)),$(PYTHON)) -m benchmarks.gpu.on_gpu $(GPU)

# All methods on real weights, in a running ComfyUI that has this pack: make real COMFYUI=http://127.0.0.1:8188; goes on
# where it was interrupted. REAL=--smoke for one prompt first. WORKFLOW, PROMPTS, OUT, REAL: docs/real_weights.md.
real: .venv/demo
	@test -n "$(COMFYUI)" || { echo "make real: say where ComfyUI runs, COMFYUI=http://127.0.0.1:8188"; exit 2; }
	$(PY) -m benchmarks.real.real_weights --comfyui "$(COMFYUI)" $(if $(WORKFLOW),--workflow "$(WORKFLOW)") \
		$(if $(PROMPTS),--prompts "$(PROMPTS)") $(if $(OUT),--out "$(OUT)") $(REAL)

# FLUX.1-dev on several GPUs, measured where they are and on paper: results/scaling.md.
bench-scaling: .venv/bench
	$(PY) -m benchmarks.speed.scaling

# Hundreds of random workflows; `make test` draws a few.
soak: .venv/test host
	FEMO_SOAK=300 $(PY) tests/host/hosts.py test -k random_workflow

# docs/compatibility.md, from what the tests measure of every model.
compatibility: export FEMO_COMPATIBILITY := 1
compatibility: test
	$(PY) tests/host/compatibility.py

# The workflows for the browser and their pictures, from those for the API; in a real Chromium. NAMES="x y" for some.
workflows: .venv/test host
	PYTHONPATH=. $(PY) tests/host/make_workflows.py $(NAMES)

train: .venv/demo
	$(PY) -m benchmarks.training.train_tiny_flux
	$(PY) -m benchmarks.training.train_tiny_dit
	$(PY) -m benchmarks.training.train_tiny_scenes

clean:
	rm -rf .venv out

# The newest pip takes half the time of the one that Python brings.
.venv/pip:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	touch $@

.venv/demo: .venv/pip constraints.txt pyproject.toml
	$(PIP) -e ".[demo]"
	touch $@

.venv/bench: .venv/pip constraints.txt pyproject.toml
	$(PIP) -e ".[bench]"
	touch $@

.venv/test: .venv/pip constraints.txt pyproject.toml
	$(PIP) -e ".[test]"
	touch $@

front-ends: .venv/pip
	@$(PY) tests/host/hosts.py front-ends

# What a ComfyUI needs to run, where one is found: its own requirements, less what our stubs stand in for.
host: .venv/test front-ends
	@$(PY) tests/host/hosts.py requirements > .venv/host.new
	@cmp -s .venv/host.new .venv/host.txt || { $(PIP) -r .venv/host.new && mv .venv/host.new .venv/host.txt; }
