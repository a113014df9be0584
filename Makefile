# `make demo` runs the main job, `make test` the checks and tests; both set up what they need first.
PYTHON ?= python3
BIN := .venv/bin
COG_PART := -p "import cog, pathlib; part = lambda name: cog.out(pathlib.Path(f'deploy/parts/{name}.md').read_text())"
COGGED := docs/cli.md docs/settings.md deploy/on-prem/README.md deploy/aws/README.md deploy/gcp/README.md

.PHONY: help setup demo test lint fast unit conformance conformance-determined e2e nightly lock docs pipelines dist images push clean

help:
	@echo "make demo   set up, then run the main job: commit, train, archive, serve, predict"
	@echo "make test   set up, then lint, types, import contracts and all tests"
	@echo "make fast   the unit tests alone: under a minute, without an engine or torch"
	@echo "make conformance  the recorded Pachyderm and KServe calls on real engines (needs the testbed)"
	@echo "make conformance-determined  the recorded Determined calls on a real master (DET_MASTER, DET_USER, DET_PASS)"
	@echo "make e2e    the main job on the testbed's Pachyderm and KServe, for each model store"
	@echo "make images the containers' images; make push REGISTRY=HOST/PATH; make dist: the wheel"
	@echo "make setup  the virtual environment alone (PDK_TORCH_INDEX=… for CPU-only torch)"
	@echo "make lock   write requirements/*.txt (UPGRADE=1: newest versions); make docs: the generated parts of docs/"

.venv/.ready: requirements/base.txt requirements/torch.txt requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) requirements/install.py
	@touch $@

setup: .venv/.ready

demo: setup
	@$(BIN)/pdk demo

test: setup lint unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check src tests containers experiments bench sample-data requirements pipelines
	$(BIN)/mypy
	for folder in experiments/*/; do MYPYPATH=$$folder $(BIN)/mypy $$folder || exit 1; done
	$(BIN)/lint-imports
	$(BIN)/cog --check $(COG_PART) $(COGGED)
	$(BIN)/python pipelines/generate.py --check

fast: setup
	$(BIN)/python -m pytest tests/unit -m "not long" -p no:cacheprovider

unit: setup
	$(BIN)/python -m pytest $(PYTEST)

# the recorded calls once more on the real engine of the testbed (RECORD=1 writes down what it answers now), egress to real stores
TESTBED ?= ../shared/testbed/testbed
conformance: setup
	$(TESTBED) up
	$(TESTBED) exec $(BIN)/python -m pytest tests/recorded --engine testbed -p no:cacheprovider $(if $(RECORD),--snapshot-update)
	$(TESTBED) exec $(BIN)/python -m pytest tests/clients/pachyderm/test_jobs.py -k object_stores -p no:cacheprovider
	$(TESTBED) exec $(BIN)/python -m pytest tests/clients/determined/test_storage.py -k real_stores -p no:cacheprovider
	$(TESTBED) exec $(BIN)/python -m pytest tests/clients/kserve/test_real_pods.py -p no:cacheprovider

# the same for Determined, on the master that DET_MASTER, DET_USER and DET_PASS name (it needs an agent with two slots)
conformance-determined: setup
	@test -n "$(DET_MASTER)" || { echo "set DET_MASTER, DET_USER and DET_PASS to a real master"; exit 2; }
	$(BIN)/python -m pytest tests/recorded -k determined -p no:cacheprovider $(if $(RECORD),--snapshot-update)
	$(BIN)/python -m pytest tests/flow/test_real_master.py -p no:cacheprovider

# the main job and its troubles on the testbed's Pachyderm and KServe, with this project's images
e2e: setup
	$(TESTBED) exec true 2>/dev/null || $(TESTBED) up
	$(PYTHON) containers/images.py build train deploy serve --registry pdk.local --builder "$(TESTBED) image-build"
	$(TESTBED) exec $(BIN)/python -m pytest tests/e2e -p no:cacheprovider

# what `pip install` takes: `pdk up` and `pdk demo` from it need no checkout
dist: setup
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

# the containers' images: REGISTRY=HOST/PATH, TAG=, PLATFORM=linux/amd64, BUILDER=docker|podman|buildah, BUILD_ARG=KEY=VALUE, IMAGES="train serve"
IMAGE_WORDS = $(IMAGES) $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(TAG),--tag $(TAG)) $(if $(PLATFORM),--platform $(PLATFORM)) \
  $(if $(BUILDER),--builder "$(BUILDER)") $(if $(BUILD_ARG),--build-arg $(BUILD_ARG))
images:
	$(PYTHON) containers/images.py build $(IMAGE_WORDS)
push:
	$(PYTHON) containers/images.py push $(IMAGE_WORDS)

# the kill test with ten times as many kills, and random graphs of up to 30 pipelines
nightly: setup
	PDK_KILLS=200 $(BIN)/python -m pytest tests/flow/test_store_kill.py
	PDK_GRAPHS=20 $(BIN)/python -m pytest tests/flow/test_graphs.py

lock: setup
	UPGRADE=$(UPGRADE) $(BIN)/python requirements/lock.py

docs: setup
	$(BIN)/cog -r $(COG_PART) $(COGGED)

# the specs of the examples from pipelines/pipelines.jsonnet
pipelines: setup
	$(BIN)/python pipelines/generate.py

clean:
	rm -rf .venv .pdk .mypy_cache .ruff_cache .pytest_cache
