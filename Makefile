# make demo    the whole system, 20,000 events, the funnel and the accounts: needs Python 3.11 or later and nothing else
# make test    every test; those that need Kafka, PostgreSQL or Redis are skipped where it cannot be had
# make dev     the whole system until Ctrl-C, for a page of yours
# make up      the whole system on Kafka, PostgreSQL and Redis in containers; then make smoke, make down
# make chaos   kills, freezes, cuts and fills a whole installation: ROUNDS=10 SEED=1; make chaos-sabotage shows it can fail
# make bench   what the edge and the worker cost, beside their peers; make bench-quick holds the ratios to bench/bounds.json
# make lint    ruff, mypy --strict, import-linter
PYTHON ?= python3
BIN := .venv/bin
COMPOSE ?= docker compose
ROUNDS ?= 10
SEED ?= 1
export COMPOSE

.PHONY: demo dev test test-containers chaos chaos-sabotage lint format lock peers-lock bench bench-quick up down smoke clean

demo: .venv/run
	$(BIN)/zenstep demo

dev: .venv/run
	$(BIN)/zenstep dev

# Three processes share the tests, each with servers of its own: they wait for processes much of the time, and one that
# is done takes what another has not come to.
test: .venv/dev
	$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

# The tests with servers from containers only; needs a Docker-compatible engine.
test-containers: .venv/dev
	ZENSTEP_TEST_SERVERS=containers ZENSTEP_TEST_REQUIRE=kafka,postgres,redis $(BIN)/pytest $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A failing round prints its seed and keeps its logs; a long run's result is kept with ARGS='--out bench/results/x.json'.
chaos: .venv/dev
	$(BIN)/python -m chaos --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

chaos-sabotage: .venv/dev
	$(BIN)/pytest chaos $(ARGS)

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins what pyproject.toml's ranges allow today, with hashes and without any index's address.
lock: .venv/dev
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade pyproject.toml --group build -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -c requirements.lock pyproject.toml --group build --group dev -o requirements-dev.lock

# Wants an otherwise idle machine with two cores. Each part also runs alone; see docs/performance.md.
bench: .venv/dev .venv-peers/ready
	$(BIN)/python -m bench.edge --out bench/results/edge.json
	$(BIN)/python -m bench.edge_memory --out bench/results/memory.json
	$(BIN)/python -m bench.worker --out bench/results/worker.json
	$(BIN)/python -m bench.growth --out bench/results/growth.json
	$(BIN)/python -m bench.freshness --out bench/results/freshness.json
	$(BIN)/python -m bench.worker_lag --out bench/results/lag.json
	$(BIN)/python -m bench.embedded --out bench/results/embedded.json
	$(BIN)/python -m bench.report

# Ratios alone, which a busy machine hardly moves.
bench-quick: .venv/dev .venv-peers/ready
	$(BIN)/python -m bench.quick $(ARGS)

# The programs that the benchmarks compare with, which share nothing with ours.
peers-lock: .venv/dev
	cd bench/peers && ../../$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --no-strip-extras --upgrade requirements.in -o requirements.lock

.venv-peers/ready: bench/peers/requirements.lock
	test -e .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/peers/requirements.lock
	touch $@

# The package itself is installed from this folder without asking an index, by the build backend of the lock file.
.venv/run: requirements.lock pyproject.toml
	test -e .venv/bin/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/dev: requirements-dev.lock .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

# The whole system of compose.yaml; `make down ARGS=-v` forgets its data too.
up:
	$(COMPOSE) up -d --build

down:
	$(COMPOSE) down $(ARGS)

# Beacons through the system that `make up` started, and exact sums out of it.
smoke: .venv/run
	$(BIN)/python deploy/smoke.py

clean:
	rm -rf .venv .venv-peers .zenstep .mypy_cache .pytest_cache .ruff_cache .hypothesis
