# Works from a bare clone; needs make and Python 3.11 or later.

PYTHON ?= python3
BIN := .venv/bin

# The tests' Linux kernel: the distribution's, unless you have a better one.
VMFSM_TEST_KERNEL ?= $(CURDIR)/.cache/linux/vmlinuz

# How many tests run at the same time. They wait about as much as they compute, so one more than two processors.
WORKERS ?= 3

CHECKS := ruff format mypy imports pytest

# How many times as many examples `make fuzz` tries as `make test`.
EXAMPLES ?= 100

.PHONY: help
help:
	@echo "make demo      run docs/examples/demo.py: a machine from launch to shutdown"
	@echo "make test      everything that is checked: $(CHECKS) (each is a target, too)"
	@echo "make lint      the same without pytest"
	@echo "make faults    every fault at every point where a call waits (about 15 minutes)"
	@echo "make bench     the benchmarks"
	@echo "make walks     random walks with faults, for STEPS=... ($(STEPS)) or MINUTES=..., from SEED=..."
	@echo "make fuzz      random input for what reads from QEMU, EXAMPLES=... times as much as in make test ($(EXAMPLES))"
	@echo "make soak      thousands of machines, a gibibyte of console, an idle hour: does anything grow?"
	@echo "make guest     rebuild the tiny guests (vmfsm/testing, vmfsm/boot) from their sources"
	@echo "make vendor    fetch the report's charting library again (npm), as vmfsm/report/page/vendor says"
	@echo "make clean     remove what the others have made"
	@echo "WORKERS=...    how many tests run at the same time ($(WORKERS))"
	@echo "PYTHON=...     the interpreter to use instead of python3"

.PHONY: demo bench soak
demo: .venv/ready
	@.ci/system-packages demo
	@$(BIN)/python docs/examples/demo.py

bench: .venv/ready-dev
	@.ci/system-packages bench
	@$(BIN)/python -m tests.bench

soak: .venv/ready-dev
	@.ci/system-packages demo
	@$(BIN)/python -m tests.soak

STEPS ?= 100000
.PHONY: walks
walks: .venv/ready-dev
	@.ci/system-packages test
	@$(BIN)/python -m tests.walks $(if $(MINUTES),--minutes $(MINUTES),--steps $(STEPS)) $(if $(SEED),--seed $(SEED))

.PHONY: test lint $(CHECKS)
test: .venv/ready-dev $(VMFSM_TEST_KERNEL)
	@.ci/system-packages test
	@$(call run-all,$(CHECKS))

lint: .venv/ready-dev
	@$(call run-all,$(filter-out pytest,$(CHECKS)))

# All of them run, whichever fails; the verdict comes last.
run-all = failed=; \
	for check in $(1); do \
		printf '\n== %s\n' $$check; \
		$(MAKE) --no-print-directory $$check || failed="$$failed $$check"; \
	done; \
	printf '\n== '; \
	if [ "$$failed" ]; then echo "failed:$$failed"; exit 1; else echo "all passed: $(1)"; fi

ruff: .venv/ready-dev
	@$(BIN)/python -m ruff check
format: .venv/ready-dev
	@$(BIN)/python -m ruff format --check
mypy: .venv/ready-dev
	@$(BIN)/python -m mypy
imports: .venv/ready-dev
	@$(BIN)/lint-imports --no-logo
pytest: .venv/ready-dev
	@$(BIN)/python -m compileall -q vmfsm plugins  # once, rather than in each of a thousand processes
	@$(if $(wildcard $(VMFSM_TEST_KERNEL)),VMFSM_TEST_KERNEL=$(VMFSM_TEST_KERNEL)) $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: faults
faults: .venv/ready-dev
	@.ci/system-packages test
	@VMFSM_TEST_MATRIX=whole $(BIN)/python -m pytest -n $(WORKERS) tests/faults/matrix

.PHONY: fuzz
fuzz: .venv/ready-dev
	@.ci/system-packages test
	@VMFSM_FUZZ_FACTOR=$(EXAMPLES) $(BIN)/python -m pytest -n $(WORKERS) --timeout=0 tests/fuzz

.PHONY: guest
guest: vmfsm/testing/guest.bin vmfsm/boot/x86.bin
vmfsm/testing/guest.bin: vmfsm/testing/guest.S
	as --32 -mx86-used-note=no -o $@.o $<
	ld -m elf_i386 -z noexecstack -Ttext 0x7c00 --oformat binary -o $@ $@.o
	@rm $@.o
	@chmod -x $@
vmfsm/boot/x86.bin: vmfsm/boot/x86.S
	as --64 -mx86-used-note=no -o $@.o $<
	ld -m elf_x86_64 -z noexecstack -Ttext 0 --oformat binary -o $@ $@.o
	@rm $@.o
	@chmod -x $@

# What the report's page is built with, verbatim from the npm registry; its scripts are not run.
VENDOR := vmfsm/report/page/vendor
.PHONY: vendor
vendor:
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && \
	cp $(VENDOR)/package.json $(VENDOR)/package-lock.json "$$directory" && \
	npm --prefix "$$directory" ci --ignore-scripts --no-audit --no-fund && \
	cp "$$directory/node_modules/d3/dist/d3.min.js" "$$directory/node_modules/d3/LICENSE" $(VENDOR) && \
	cd $(VENDOR) && sha512sum d3.min.js LICENSE >SHA512SUMS && git diff --stat -- .

# Each stamp is made last, so that whatever was interrupted is done again.
.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "'$(PYTHON)' is no Python 3.11 or later. Another one: make PYTHON=/path/to/python3.11"; exit 1; }
	@.ci/system-packages venv $(PYTHON)
	@echo "making .venv, with vmfsm and the libraries it needs (once; this takes a while)"
	@$(PYTHON) -m venv --clear --upgrade-deps .venv
	@touch $@

.venv/ready: .venv/created pyproject.toml
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/ready-dev: .venv/ready
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

# A virtual environment whose interpreter has gone is none.
ifneq ($(shell $(BIN)/python -c 'print("runs")' 2>/dev/null),runs)
.PHONY: .venv/created
endif

$(CURDIR)/.cache/linux/vmlinuz:
	@.ci/system-packages kernel .cache/linux

.PHONY: clean
clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -prune -exec rm -rf {} +
