# make run, make test, make lint, make bench: each installs what it needs into .venv first. PYTHON=python3.12 chooses
# the Python; it must be 3.11 or later. Nothing is fetched again until a requirements file changes.

PYTHON ?= python3
BIN := .venv/bin
# Empty where there is no such Python, or it is too old, or it cannot make environments.
VERSION := $(shell $(PYTHON) -c 'import sys, venv, ensurepip; sys.version_info >= (3, 11) and print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
INSTALLED := .venv/installed-$(VERSION)

.PHONY: run test lint audit format bench bench-data bench-analysts lock clean faults test-pgbouncer

run: $(INSTALLED)
	@exec $(BIN)/python -m dev.run

# Both cores, a file at a time; what breaks things on purpose then has the machine for itself.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/faults
	$(BIN)/python -m pytest tests/faults

# What breaks on purpose, at length: 510 kills. `make test` has the short form.
faults: $(INSTALLED)
	RECEIVER_FAULTS=long $(BIN)/python -m pytest tests/faults

# The tests that use a database once more, through a PgBouncer (the system's) in transaction mode.
test-pgbouncer: $(INSTALLED)
	@PATH="$$PATH:/usr/sbin" command -v pgbouncer > /dev/null || { echo "make: PgBouncer is not installed (on Debian: apt install pgbouncer)" >&2; exit 1; }
	TEST_THROUGH_PGBOUNCER=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/integration
	TEST_THROUGH_PGBOUNCER=1 $(BIN)/python -m pytest tests/faults

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@$(MAKE) --no-print-directory audit

# Known vulnerabilities of what production runs, asked of the public list once a day. Without a connection it says so and
# passes: what cannot be asked is no finding.
AUDIT := uv tool run --quiet pip-audit@2.10.1 --vulnerability-service osv --timeout 5 --progress-spinner off --disable-pip \
	--require-hashes --requirement requirements.txt
audit: $(INSTALLED)
	@test -n "$$(find .venv/audited -mtime -1 -newer requirements.txt 2>/dev/null)" || \
		if $(BIN)/$(AUDIT) > .venv/audit.txt 2>&1; then touch .venv/audited; echo "no known vulnerabilities"; \
		elif grep -q "known vulnerabilit" .venv/audit.txt; then cat .venv/audit.txt; exit 1; \
		else echo "make: dependencies were not audited, there is no connection to the list of vulnerabilities"; fi

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# All but `flat`, in about twenty minutes; make bench NAMES="single flat" measures parts.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(NAMES)

# make bench-data ROWS=1000000 (default) makes messages to look at; make bench-analysts ROWS="1000000 5000000" measures
bench-data: $(INSTALLED)
	$(BIN)/python -m benchmarks.data $(if $(ROWS),--rows $(ROWS))

bench-analysts: $(INSTALLED)
	$(BIN)/python -m benchmarks.analysts $(ROWS)

$(INSTALLED): requirements.txt requirements-test.txt
	@test -n "$(VERSION)" || { echo "make: $(PYTHON) must be Python 3.11 or later with venv (on Debian: apt install python3-venv); choose another with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard .venv/lib/python$(VERSION)),,--clear) .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-test.txt
	@touch $@

# The newest versions that setup.cfg allows, with the hashes of every file, for Python 3.11 and later.
LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-config \
	--custom-compile-command "make lock"
lock: $(INSTALLED)
	$(BIN)/$(LOCK) setup.cfg --output-file requirements.txt
	$(BIN)/$(LOCK) setup.cfg --extra test --constraint requirements.txt --output-file requirements-test.txt

# As fresh as a clone: the embedded database goes too.
clean:
	rm -rf "$$(readlink -f .data/postgres)" .data .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
