PYTHON ?= python3
PORT ?= 8000
TORCH ?= $(if $(filter Linux,$(shell uname)),cpu,default)
LANGUAGE := en
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help site build test check lint proofs onnx live benchmarks clean packages

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "make %-8s %s\n", $$1, $$2}'

site: .venv/.site ## Build the site and serve it on http://127.0.0.1:8000 (PORT=8001 for another port)
	@$(BIN)/python -m sitekit.serve --check $(PORT)
	@$(MAKE) --no-print-directory build
	@$(BIN)/python -m sitekit.serve $(PORT)

build: .venv/.site ## Build the site into site/
	@$(BIN)/python -m mkdocs build --strict

live: .venv/.site ## Serve one language while you write, rebuilt at each change (LANGUAGE=zh for Chinese)
	@$(BIN)/python -m sitekit.live $(LANGUAGE) $(PORT)

# Two workers, two cores: threads of torch that wait for a core only burn it
test: export OMP_NUM_THREADS := 1
# glibc gives what a tensor frees back to the system, and asks for it again: half of the time of large maps
test: export MALLOC_MMAP_THRESHOLD_ := 268435456
test: export MALLOC_TRIM_THRESHOLD_ := 1073741824
test: lint ## Run everything that CI runs
	@$(PYTEST) -n 2 --dist worksteal

check: .venv/.test ## Check one mechanism in seconds: make check NAME=senet, or any other name it has
	@$(if $(NAME),,echo "Which one? make check NAME=senet"; exit 2)
	@OMP_NUM_THREADS=1 $(BIN)/python -m sitekit.check "$(NAME)"

lint: .venv/.test ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

proofs: .venv/.test ## Run the proofs and write what they measured to docs/proofs.json
	@$(PYTEST) -q --record tests/foundations tests/weight_assignment tests/attention_domain

onnx: .venv/.deploy ## Export all modules to ONNX, run them, write docs/onnx.json, half an hour
	@$(BIN)/python -m deploy

benchmarks: .venv/.test ## Time the snippets beside public implementations, a few minutes
	@$(BIN)/python -m benchmarks

clean: ## Remove the site and all caches, keep .venv
	@rm -rf site .sitecache .cache .mypy_cache .ruff_cache .pytest_cache

.venv/.python:
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, this is $$($(PYTHON) -V 2>&1): make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "The Python module venv is missing: install it (Debian, Ubuntu: apt install python3-venv)."; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

# Each stamp holds what was installed for it: files that are newer but the same ask nothing of the network
.venv/.%: .venv/.python pyproject.toml constraints.txt
	@$(WANTED) | cmp -s - $@ || $(MAKE) --no-print-directory packages EXTRAS=$(if $(filter test,$*),site$(comma)test,$*)
	@$(WANTED) > $@

WANTED := { sed '/^\[tool/,$$d' pyproject.toml; cat constraints.txt; }
comma := ,

packages:
ifeq ($(TORCH),cpu)
	@echo "torch: the CPU build, 0.2 GB to fetch; TORCH=default takes the package index's own, 2.7 GB with GPU packages."
	@$(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu --timeout 15 --retries 1 torch || \
		echo "The CPU build is out of reach, so the package index's own follows."
else ifneq ($(TORCH),default)
	$(error TORCH=$(TORCH) is unknown: cpu, or default for the package index's own build)
endif
	@echo "The packages for $(EXTRAS):"
	@$(PIP) -e ".[$(EXTRAS)]" || { echo "The packages are not complete: is there a network? The same command goes on."; exit 1; }
