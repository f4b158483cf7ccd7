# Everything a person types. The work is in scripts/; `make help` lists the targets.

SHELL := /bin/sh
PYTHON := $(shell test -x /usr/bin/python3 && echo /usr/bin/python3 || command -v python3)
VENV := .venv/bin
VM ?= my-vm
IMAGE ?= debian-12
AS_ROOT := $(shell test "$$(id -u)" = 0 || echo sudo)
APT := apt-get install -y --no-install-recommends

.PHONY: help python up down purge test check format bench soak docs lock venv clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

python:
	@test -n "$(PYTHON)" || { echo "python3 is missing: installing it"; $(AS_ROOT) sh -c '$(APT) python3 || { apt-get update && $(APT) python3; }'; }

up: python ## From nothing to a virtual machine that you can log in to (VM=my-vm IMAGE=debian-12)
	@$(or $(PYTHON),/usr/bin/python3) scripts/setup.py up --vm $(VM) --image $(IMAGE)

down: python ## Stop what `make up` started; nothing is lost
	@$(or $(PYTHON),/usr/bin/python3) scripts/setup.py down

purge: python ## Remove it all, disks included, after asking (YES=1 does not ask)
	@$(or $(PYTHON),/usr/bin/python3) scripts/setup.py purge $(if $(YES),--yes)

test: python ## Set-up, checks and all tests
	@$(or $(PYTHON),/usr/bin/python3) scripts/setup.py test-setup
	@$(VENV)/python scripts/run_tests.py

check: venv ## Format, lint, types and import contracts
	@$(VENV)/python scripts/run_tests.py --only check

format: venv ## Format the code and mend what the linter can
	$(VENV)/ruff format src tests scripts
	$(VENV)/ruff check --fix src tests scripts

bench: venv ## Measure the promises against the bare tools; writes docs/reference/promises.md
	@$(VENV)/python tests/bench/bench.py --write

soak: python ## The long tests, file by file side by side (CORRAL_SEED=N walks the same ways again)
	@$(or $(PYTHON),/usr/bin/python3) scripts/setup.py test-setup
	@$(VENV)/python scripts/run_tests.py --soak

docs: venv ## Write the generated pages of docs/reference anew
	@$(VENV)/python scripts/generate_docs.py

lock: venv ## Resolve the dependencies anew into requirements/
	@$(VENV)/python scripts/lock.py

venv: python
	@$(or $(PYTHON),/usr/bin/python3) scripts/setup.py venv

clean: ## Remove caches
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
