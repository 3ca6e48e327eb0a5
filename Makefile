# Every verb makes the environment first, if it is not there. CI runs `make check`, `make test` and `make bench`.
PYTHON ?= python3
BIN := .venv/bin
ROOMS := attacks bench metrics models reports results

.PHONY: bench test check format lint types lock perf faults campaign wheel clean

bench: .venv/ready  ## train, attack, measure and report: the smoke protocol, about three minutes on two cores
	$(BIN)/attnbench run smoke --jobs 2
	$(BIN)/attnbench report smoke

test: .venv/ready  ## the whole suite
	$(BIN)/pytest -n 2 -m "not campaign"

check: lint types lock  ## everything that can be said without running the benchmark

format: .venv/ready  ## put the layout right
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: .venv/ready  ## layout, style, and the law of the three floors
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports

types: .venv/ready  ## mypy, strict
	$(BIN)/mypy $(ROOMS)

lock: .venv/ready  ## did an evaluator or a variant change without a new version, is every folder in the package list?
	$(BIN)/python -m attnbench.bench.cli.lock

perf: .venv/ready  ## time layers against fused softmax and attacks against torchattacks; exit 5 where a goal is missed
	$(BIN)/attnbench perf variants --check
	$(BIN)/attnbench perf attacks --check

faults: .venv/ready  ## kill, starve and mistreat a run
	$(BIN)/pytest -m faults

campaign: .venv/ready  ## minutes to an hour: the claims that need five folds
	$(BIN)/pytest -m campaign

wheel: .venv/ready  ## build the package
	$(BIN)/python -m build --wheel --outdir dist .

clean:  ## remove the environment and what tools left; runs stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	# An oracle of the tests; what it declares to need does not build, and the attacks do without.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "adv-lib>=0.2.8"
	touch $@
