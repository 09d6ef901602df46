# A thin index of commands; the work is in playbooks/ and rehearsal/.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
READY := $(VENV)/ready
AUDIT := .cache/audit
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Ansible takes no ansible.cfg from a folder that everybody may write to, which all of /mnt/c in WSL is.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

PYTHON := python3

INVENTORY := inventories/local

# In this order: `default` makes the instance that the others use, `aws` bakes an image of it and removes it.
SCENARIOS := default rollout services security aws

# What an interrupted run left behind would be taken for instances that are there.
FRESH := molecule destroy --scenario-name default
MOLECULE := $(FRESH); molecule test

# Molecule may be writing at the same time.
WHOLE_LINES := grep --line-buffered ""

# Says what a long step does and how long it took.
step = set -eu; echo "==> $(1)"; since=$$SECONDS; $(2); echo "==> took $$((SECONDS - since)) s: $(1)"

OLD_PYTHON = import sys; sys.exit(f"Python 3.11 or newer is needed, and {sys.executable} is {sys.version.split()[0]}: \
make PYTHON=python3.13 names another one" if sys.version_info < (3, 11) else 0)

.PHONY: aws debian help rehearse up down destroy test release lint unit engine molecule live refusals security services faults own audit clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(READY): requirements.txt
	@$(PYTHON) -c '$(OLD_PYTHON)'
	@$(call step,Python environment from the locked requirements,$(PYTHON) -m venv $(VENV); $(VENV)/bin/pip install --quiet --require-hashes --requirement requirements.txt)
	touch $@

$(AUDIT)/%/ready: audit/%.txt
	@$(call step,environment of the audit: $*,python3 -m venv $(AUDIT)/$*; $(AUDIT)/$*/bin/pip install --quiet --require-hashes --requirement $<)
	touch $@

aws: $(READY) ## Run site.yml -i inventories/aws with your AWS credentials; needs no Docker
	@$(VENV)/bin/ansible-playbook site.yml -i inventories/aws

# What works against AWS from any system: aws.
debian:
	@test -f /etc/debian_version && test "$$(id -u)" = 0 || { echo 'The rehearsal and the tests need Debian 12 or 13,' \
	  'and root: they install Docker and boot instances. Against AWS any system does: make aws, docs/aws.md'; exit 1; }

rehearse: debian $(READY) ## Run site.yml -i inventories/aws against a local EC2
	@$(call step,engine; instance image and local EC2,ansible-playbook playbooks/rehearsal.yml -i inventories/local)
	environment=$$(python -m rehearsal env)
	eval "$$environment"
	$(call step,site.yml -i inventories/aws against the local EC2,ansible-playbook site.yml -i inventories/aws)

up: $(READY) ## Run the stack on this machine's own engine: http://localhost:7151
	@ansible-playbook site.yml -i inventories/local

down: $(READY) ## Remove that stack again
	@ansible-playbook playbooks/down.yml -i inventories/local

destroy: $(READY) ## Remove the local EC2 and all that runs in it
	@python -m rehearsal down

test: debian $(READY) ## Lint, unit tests, then the whole way in containers
	@start=$$(date +%s)
	$(MAKE) --jobs=2 --output-sync=target lint unit engine
	$(MAKE) --jobs=2 molecule live
	python -m preflight.receipts passed "$$start"
	echo "==> all passed: lint, unit tests, molecule, live tests ($$SECONDS s)"

release: $(READY) ## Write receipt.json, which says that this commit passed `make test`; docs/testing.md
	@python -m preflight.receipts release

lint: $(READY) ## Check style, types and rules
	@$(call step,lint,ruff check .; ruff format --check .; mypy; mypy app; yamllint --strict .; ansible-lint)

unit: $(READY) ## Fast tests, without Docker
	@$(call step,unit tests,pytest)

engine: debian $(READY) ## Install the engine and make the image of a local instance
	@$(call step,engine; instance image,$(FRESH); molecule create --scenario-name default; $(FRESH))

molecule: debian $(READY) ## site.yml end to end against a local EC2 of its own
	@export PYTEST_ADDOPTS="-m 'not long'"
	$(call step,molecule test,$(MOLECULE) $(SCENARIOS:%=-s %))

live: debian $(READY) ## The roll-out, the rehearsal, databases, inventories/local and provisioning without machines, with real clients; after `make engine`
	@$(call step,live tests,pytest -m 'docker and not long' tests/engine tests/rehearsal tests/accessories tests/provisioning tests/test_app_forms.py tests/test_bootstrap.py tests/test_build_context.py tests/test_local_inventory.py | $(WHOLE_LINES))

refusals: debian $(READY) ## AWS refuses each call of provisioning and removal once, an hour or two
	@$(call step,every call refused once,pytest -s -m docker tests/provisioning)

own: debian $(READY) ## Deploy thirteen public Flask apps from PyPI on this machine's engine, a quarter of an hour
	@$(call step,other people's apps,pytest -m docker tests/own_apps)

security: debian $(READY) ## All that attackers try, a quarter of an hour more than make test has for it
	@$(call step,molecule test of the security,$(MOLECULE) -s default -s security)

services: debian $(READY) ## Several services in all three servers with a database, some minutes more than make test has for it
	@$(call step,molecule test of several services,$(MOLECULE) -s default -s services)

faults: debian $(READY) ## Faults under load, two to three hours; see docs/testing.md
	@$(call step,molecule test of the faults,$(MOLECULE) --scenario-name faults)

audit: $(READY) $(AUDIT)/tools/ready $(AUDIT)/checkov/ready ## Ask other people's tools what they find; INVENTORY=inventories/aws for what runs there
	@rm -rf .cache/packages
	$(call step,engine; images and what is in them,ansible-playbook playbooks/configure.yml playbooks/packages.yml -i $(INVENTORY))
	$(call step,audit,python -m audit)

clean: ## Remove the Python environment and the images that were built
	@rm -rf $(VENV)
	docker images --quiet --filter "reference=flask-fleet/*" | sort -u | xargs --no-run-if-empty docker rmi --force
