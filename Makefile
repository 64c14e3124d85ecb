# Two commands do everything: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-ray test-text speed fuzz chaos clean

help:
	@echo 'make demo    install, run DMGD, its ablations and references on digits, print both leaderboards'
	@echo 'make test    install, then ruff, mypy and the whole test suite'
	@echo 'make test-text  with the extra text: priors from text-to-image pipelines, against diffusers (half a minute)'
	@echo 'make test-ray  with the extra ray: bench run --engine ray on two Ray nodes of this machine (root; some minutes)'
	@echo 'make speed   the benchmarks of tests/speed, with their ratios'
	@echo 'make fuzz    damaged inputs of every kind for MINUTES (60), TIMES (10) those of the test suite in each round'
	@echo 'make chaos   a small run killed N (100) times where SEED (0) says, and compared with an undisturbed one'
	@echo 'make clean   remove .venv and caches (results in runs/ stay)'

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ddbench needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/bench run --method dmgd,dmgd-sm,dmgd-dm,dit,dit-cfg1,random,full --dataset digits \
		--ipc 1,10 --seeds 0-1 --repeats 1

# A process more than cores, of one thread each: a third of the time is waiting for processes that tests start.
test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --benchmark-disable --numprocesses $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 8 \
		--dist loadfile --no-loadscope-reorder

# Apart: Ray is 240 MB, and these take five minutes.
test-ray: install
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[ray]'
	CI=1 $(BIN)/pytest tests/engines/test_ray.py

# Apart: where transformers is there, diffusers imports it, and every run starts a second later.
test-text: install
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[text]'
	CI=1 $(BIN)/pytest tests/methods/test_text_pipelines.py

speed: install
	$(BIN)/pytest tests/speed --benchmark-only --benchmark-columns=median,iqr,rounds --benchmark-sort=name

MINUTES ?= 60
TIMES ?= 10

fuzz: install
	$(BIN)/python tests/fuzz/long.py --minutes $(MINUTES) --times $(TIMES)

# A folder of its own, so that what a failure leaves can be looked at.
chaos: N ?= 100
chaos: SEED ?= 0
chaos: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos/chaos.py --kills $(N) --seed $(SEED) --folder $$(mktemp -d)/chaos

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
