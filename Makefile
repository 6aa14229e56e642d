# Everything runs in .venv, which these targets make and keep up to date. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# make run DATA=mosi.pkl CORPUS=mosi: the user's own corpus instead of the sample.
DATA ?=
CORPUS ?=
WORKERS ?= 2
TRIALS ?= 4

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch goes first and by its exact version, so that a build for this machine (a CPU build, say) that pip was told of is
# taken, and nothing later replaces it. make install TORCH_INDEX=URL names an index of such builds.
TORCH_INDEX ?=
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/installed-media: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[media]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: install
install: $(VENV)/installed ## make .venv with lnln in it

.PHONY: install-media
install-media: $(VENV)/installed-media ## the same, for raw clips too (PyAV, librosa, OpenCV)

.PHONY: run
run: install ## the whole path on the sample corpus, or on DATA=file.pkl CORPUS=name
	$(BIN)/lnln demo $(if $(DATA),--data $(DATA)) $(if $(CORPUS),--corpus $(CORPUS)) --workers $(WORKERS) --trials $(TRIALS)

.PHONY: check
check: $(VENV)/installed-dev ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread each: the tests start many processes, and threads that wait for a core slow all of them down.
.PHONY: test
test: test-fast ## the fast part, and the whole path end to end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/end_to_end

# Two files at a time, as in the fast part: starting and ending clusters is mostly waiting.
.PHONY: test-slow
test-slow: $(VENV)/installed-dev ## real clusters, servers and kills
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --ignore tests/end_to_end --durations=30 -n 2 --dist loadfile

# Debian's packages, 60 MB; nothing else of this project needs them, or root. Without recommended ones: no services.
RADOSGW := radosgw ceph-mon ceph-osd
.PHONY: radosgw
radosgw: ## Ceph's S3 server, for the slow tests against a real one (Debian; root or sudo)
	@for program in $(RADOSGW); do command -v $$program >/dev/null || missing=$$program; done; \
	if [ -n "$$missing" ]; then \
		$(if $(filter 0,$(shell id -u)),,sudo -n) sh -c "apt-get update -q && DEBIAN_FRONTEND=noninteractive \
			apt-get install -q -y --no-install-recommends $(RADOSGW)"; \
	fi

.PHONY: iproute2
iproute2: ## `ip`, for the slow test with two machines (Debian; root or sudo)
	@command -v ip >/dev/null || $(if $(filter 0,$(shell id -u)),,sudo -n) sh -c "apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends iproute2"

# Debian's package, 81 MB and its libraries; the driver, Playwright, comes with the dev extra.
.PHONY: chromium
chromium: ## a browser, for the slow tests of the pages (Debian; root or sudo)
	@command -v chromium >/dev/null || $(if $(filter 0,$(shell id -u)),,sudo -n) sh -c "apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium"

# Two files at a time, each in one process, so that what a file's tests share is made once.
.PHONY: test-fast
test-fast: $(VENV)/installed-dev ## the fast part, on two cores: no cluster, no server
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# make results DATA=mosi.pkl JOBS=2 ONLY=main: killed at any time, it continues. STORE may be thrown away afterwards.
# STALE=code: what other code than the present has made is trained and scored again too.
STORE ?= results-store
JOBS ?= 1
ONLY ?=
STALE ?=
.PHONY: results
results: install ## train and score what docs/results.md shows, on DATA=mosi.pkl (hours)
	$(BIN)/python -m benchmarks.results run $(if $(DATA),--data $(DATA)) --store $(STORE) --jobs $(JOBS) $(if $(ONLY),--only $(ONLY)) \
		$(if $(STALE),$(if $(filter code,$(STALE)),--retrain-older-code,$(error STALE takes code, got $(STALE))))

.PHONY: results-table
results-table: install ## docs/results.md from the stored scores, without data
	$(BIN)/python -m benchmarks.results table

# make bench ONLY=data SHARED=1: sections with commas between; SHARED notes that other work runs on the machine meanwhile.
SHARED ?=
.PHONY: bench
bench: $(VENV)/installed-media ## measure what docs/performance.md shows, beside baselines (minutes)
	$(BIN)/python -m benchmarks.performance run $(if $(ONLY),--only $(ONLY)) $(if $(SHARED),--shared)

.PHONY: bench-table
bench-table: install ## docs/performance.md from the stored seconds, without measuring
	$(BIN)/python -m benchmarks.performance table

# A cluster of processes on this machine. STACK: the folder of its logs and data; `source .stack/stack.env` leads to it.
STACK ?= .stack
.PHONY: stack
stack: $(VENV)/installed-dev ## the whole cluster on this machine: object store, Prefect, Dask, Ray
	$(BIN)/python -m infra.stack up --folder $(STACK)

.PHONY: stack-status
stack-status: $(VENV)/installed-dev ## what of the stack works
	@$(BIN)/python -m infra.stack status --folder $(STACK)

.PHONY: stack-down
stack-down: $(VENV)/installed-dev ## end the stack; what it stores is kept
	$(BIN)/python -m infra.stack down --folder $(STACK)

.PHONY: clean
clean: ## remove the environment and caches; the store stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
