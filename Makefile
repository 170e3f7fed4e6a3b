# make demo: compare the methods on real handwritten digits with noisy labels (about two minutes after the install)
# make test: all tests; make lint: ruff. Each makes .venv and installs what is needed first, once.
# make bench: speed and memory as ratios, beside the stored ones; BENCH_FLAGS="--device cuda --store"
# make test-oldest: the core's tests on the oldest versions that requirements.txt allows (.venv-oldest, a large download)
# make faults: kills, full disks, flipped bits, malformed input, in numbers that make test has no time for (15 minutes)
# make notebooks: all four executed with their published settings; NOTEBOOK_FLAGS="--run_dir RUN ..." for recorded runs

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# OpenMP threads that wait spin for a moment only: nothing lost alone, and much faster beside other programs
export GOMP_SPINCOUNT ?= 1000

OLDEST := .venv-oldest

.PHONY: install demo test test-oldest faults lint bench notebooks clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt constraints.txt
	@test -x $(RUN) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found, Python 3.11 or newer is needed; run: make PYTHON=python3.12" >&2; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

demo: install
	$(RUN) old_cifar_noisy.py --dataset digits --net smallcnn --ny_ratio 0.4 --ny_kind symmetric --augment none \
		--epochs 20 --batch_size 128 --lr 0.1 --seeds 3 --path demo --overwrite

# a file of tests a process; the faults apart, which start processes of their own
test: install
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --ignore tests/faults
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests/faults

# what requirements.txt allows at least; tests need newer pytest and hypothesis than that, and get them
$(OLDEST)/.installed: requirements.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	sed 's/>=/==/' requirements.txt > $(OLDEST)/exact.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(OLDEST)/exact.txt pytest hypothesis
	touch $@

test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest tests/supervision tests/training tests/models tests/data tests/paths

faults: install
	FAULTS_KILLS=50 FAULTS_FLIPS=1000 FAULTS_FULL_DISKS=30 FAULTS_MALFORMED=200 FAULTS_STARTS=5 FAULTS_SCRIPTS=5 \
		$(RUN) -m pytest tests/faults -s

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: install
	$(RUN) -m benchmarks $(BENCH_FLAGS)

notebooks: install
	$(RUN) notebooks/execute.py $(NOTEBOOK_FLAGS)

clean:
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache .hypothesis
