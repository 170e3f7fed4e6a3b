# make help lists what there is. Each target makes .venv and installs what it needs first, once.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# OpenMP threads that wait spin for a moment only: nothing lost alone, and much faster beside other programs
export GOMP_SPINCOUNT ?= 1000

OLDEST := .venv-oldest

.PHONY: help install demo test test-long test-oldest faults lint bench notebooks evidence evidence-quick evidence-paper clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1|\2/p' Makefile | awk -F '|' '{ printf "%-14s %s\n", $$1, $$2 }'

install: $(VENV)/.installed  ## .venv with what the scripts need

$(VENV)/.python:
	@test -x $(RUN) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found, Python 3.11 or newer is needed; run: make PYTHON=python3.12" >&2; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python requirements.txt constraints.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

demo: install  ## compare the methods on real digits with noisy labels (two minutes after the install)
	$(RUN) old_cifar_noisy.py --dataset digits --net smallcnn --ny_ratio 0.4 --ny_kind symmetric --augment none \
		--epochs 20 --batch_size 128 --lr 0.1 --seeds 3 --path demo --overwrite

# a file of tests a process; the faults apart, which start processes of their own
test: $(VENV)/.installed-dev  ## the tests, under 10 minutes
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not long" -n 2 --dist loadfile --ignore tests/faults
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not long" tests/faults

test-long: $(VENV)/.installed-dev  ## the tests that take longer each: notebooks, documented commands, sweeps
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m long -n 2

# what requirements.txt allows at least; tests need newer pytest and hypothesis than that, and get them
$(OLDEST)/.installed: requirements.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	sed 's/>=/==/' requirements.txt > $(OLDEST)/exact.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(OLDEST)/exact.txt pytest hypothesis
	touch $@

test-oldest: $(OLDEST)/.installed  ## the core's tests on the oldest versions that requirements.txt allows (a large download)
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest tests/supervision tests/training tests/models tests/data tests/paths

faults: $(VENV)/.installed-dev  ## kills, full disks, flipped bits, malformed input, in numbers (15 minutes)
	FAULTS_KILLS=50 FAULTS_FLIPS=1000 FAULTS_FULL_DISKS=30 FAULTS_MALFORMED=200 FAULTS_STARTS=5 FAULTS_SCRIPTS=5 \
		$(RUN) -m pytest tests/faults -s

lint: $(VENV)/.installed-dev  ## ruff
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: install  ## speed and memory as ratios; BENCH_FLAGS="--device cuda --only steps"
	$(RUN) -m benchmarks $(BENCH_FLAGS)

notebooks: $(VENV)/.installed-dev  ## execute them with their published settings; NOTEBOOK_FLAGS="--run_dir RUN ..."
	$(RUN) notebooks/execute.py $(NOTEBOOK_FLAGS)

# the grids of RESULTS.md; the paper's is apart
EVIDENCE := digits_noise condition memory later_methods digits_paths snapshots start own_method

evidence: install  ## run what RESULTS.md's grids lack (hours), then write its tables and figures
	set -e; for grid in $(EVIDENCE); do $(RUN) sweep.py run experiments/$$grid.toml; done
	$(RUN) -m experiments.tables
	$(RUN) -m experiments.figures

evidence-quick: install  ## every claim's grid in miniature, to its tables (a minute or two)
	OMP_NUM_THREADS=1 $(RUN) -m experiments.quick

# 90 trainings of 200 epochs of 1.9 s (ResNet-18, batches of 250, one H200; of 128, as here, somewhat more)
evidence-paper: install  ## the paper's table on CIFAR-100, 3 seeds, noise 0 to .8: 10 to 15 hours of an H200 (estimated)
	$(RUN) sweep.py run experiments/paper_cifar100.toml
	$(RUN) sweep.py table results/noisy_cifar100_notempsquare/run_paper_cifar100_*

clean:  ## remove .venv and caches
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache .hypothesis
