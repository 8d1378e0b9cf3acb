# virtmgr: 'make help' lists every target.
SHELL := /bin/bash
VENV := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help
help: ## List every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing: Debian packages, Python packages (needs root)
	@scripts/setup

.PHONY: up
up: ## Bring virtmgr up on this machine, with a VM and two containers running (needs root)
	@scripts/setup up
	@scripts/up

.PHONY: down
down: ## Stop everything that 'make up' started; data stays
	@scripts/down

.PHONY: clean-host
clean-host: ## Stop, and remove every trace: domains, containers, bridges, mounts, files
	@scripts/clean-host

.PHONY: test
test: ## Set up, then run all checks and tests, as CI does (needs root)
	@scripts/setup test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-units
	@$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target test-multihost test-system test-vms test-console bench-quick

# $(call tested,NAME,COMMAND): runs pytest. What fails is tried once more by itself, and both are
# shown: what passes then has a race of its own, which is to be found, but breaks nothing else.
define tested
	@echo "==> tests of $(1)"; \
	run="$(2) -o cache_dir=.cache/pytest/$(firstword $(1))"; $$run $(PYTEST_ARGS) || { \
		echo "==> once more, what failed of the tests of $(1)"; \
		$$run --last-failed --last-failed-no-failures none; }
endef

.PHONY: test-units
test-units: ## Only the tests that need no throw-away host, libvirtd or browser
	$(call tested,parts,$(VENV)/python -m pytest --ignore tests/system --ignore tests/drivers/libvirt --ignore tests/multihost --ignore tests/console -n 2 --dist loadfile)

.PHONY: test-long
test-long: ## What takes too long for each change: Ansible on bare hosts, enrolment by ssh, control planes killed (needs root)
	@scripts/setup test
	@scripts/fill-build-cache
	@$(VENV)/python -m tests.lab trees
	@$(VENV)/python -m pytest -m long tests/ansible tests/console tests/multihost tests/scaleout $(PYTEST_ARGS)

.PHONY: test-vms
test-vms: ## Only the tests of VMs, which share one libvirtd (needs root)
	$(call tested,VMs,$(VENV)/python -m pytest tests/drivers/libvirt)

.PHONY: build-cache
build-cache:
	@scripts/fill-build-cache

.PHONY: test-system
test-system: build-cache ## Only the tests of the whole product, on a throw-away host (needs root)
	$(call tested,product as a whole,scripts/in-lab $(VENV)/python -m pytest tests/system)

.PHONY: test-multihost
test-multihost: build-cache ## Only the tests on several hosts, which they make of namespaces (needs root)
	@$(VENV)/python -m tests.lab trees
	$(call tested,several hosts of Debian 12 and 13,$(VENV)/python -m pytest tests/multihost)

.PHONY: test-console
test-console: ## Only the tests of the web console, in a real browser; pictures in .cache/screenshots
	$(call tested,console in a browser,unshare --net scripts/with-loopback $(VENV)/python -m pytest tests/console)

.PHONY: screenshots
screenshots: ## Make the pictures of the web console in docs/images
	@scripts/setup test
	@$(VENV)/python -m tests.console.screenshots

HOSTS ?= 3
.PHONY: lab
lab: ## Bring up hosts made of namespaces on this machine: make lab HOSTS=3 LAB_ARGS="--flavour bare"
	@scripts/setup test
	@$(VENV)/python -m tests.lab up $(HOSTS) $(LAB_ARGS)

.PHONY: lab-down
lab-down: ## Take the hosts of 'make lab' away, with every trace
	@$(VENV)/python -m tests.lab down

.PHONY: bench
bench: ## Measure the product on a throw-away host, against the floor: make bench BENCH_ARGS=--full
	@scripts/setup test
	@scripts/fill-build-cache
	@scripts/in-lab $(VENV)/python -m bench.one_machine $(BENCH_ARGS)

.PHONY: bench-console
bench-console: ## Measure the web console's pages with 10,000 workloads and 500 hosts
	@scripts/setup test
	@$(VENV)/python -m bench.console $(BENCH_ARGS)

.PHONY: bench-fleet
bench-fleet: ## Measure the control plane with a simulated fleet: make bench-fleet BENCH_ARGS="--hosts 5000 --workloads 50000"
	@scripts/setup test
	@$(VENV)/python -m bench.fleet $(BENCH_ARGS)

.PHONY: bench-quick
bench-quick: ## Measure in less than three minutes what must not get slower: a small simulated fleet, and placing
	@$(VENV)/python -m bench.quick

.PHONY: lint
lint: ## Formatting, lint, types, layers, lock file
	@echo "==> ruff";  $(VENV)/ruff format --check --quiet . && $(VENV)/ruff check --quiet .
	@echo "==> mypy";  $(VENV)/mypy
	@echo "==> import-linter"; $(VENV)/lint-imports --no-cache > .lint-imports.log || { cat .lint-imports.log; exit 1; }; rm -f .lint-imports.log
	@echo "==> lock file"; scripts/lock --check

.PHONY: format
format: ## Format the code
	@$(VENV)/ruff format --quiet . && $(VENV)/ruff check --fix --quiet .

.PHONY: lock
lock: ## Make requirements.lock anew from setup.cfg
	@scripts/lock

.PHONY: wheel
wheel: ## Build the self-contained wheel into dist/
	@$(VENV)/python -m build --wheel --outdir dist .

.PHONY: migration
migration: ## Write a migration for what changed in store/tables.py: make migration NAME=what_changed
	@test -n "$(NAME)" || { echo "give it a name: make migration NAME=what_changed" >&2; exit 2; }
	@d=$$(mktemp -d) && trap 'rm -rf $$d' EXIT && \
	  export VIRTMGR_DATABASE_URL=sqlite:///$$d/db && $(VENV)/alembic upgrade head && \
	  $(VENV)/alembic revision --autogenerate -m "$(NAME)"
