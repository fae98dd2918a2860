# Every target sets up what it needs first; nothing else has to be done by hand.
PY := .venvs/newest/bin/python

# A suite starts a hundred processes: without bytecode on disk each compiles the whole package, and pytest all tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check test mutation bench bench-inbound bench-known bench-waiting demo run wheel docs

setup:
	@scripts/setup.sh

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venvs/newest/bin/lint-imports

# The whole suite on the newest supported Python, and on the oldest all but what starts many processes to show what no
# Python version changes (`once`). `PYTEST_ADDOPTS` adds options. Half of it waits.
test: check
	@set -e; newest=$$(readlink .venvs/newest); for version in $$(readlink .venvs/oldest .venvs/newest | uniq); do \
		echo "pytest on Python $$version"; [ $$version = $$newest ] && which= || which='not once'; \
		.venvs/$$version/bin/python -m pytest -n 4 --dist loadfile -m "$$which"; done

# Speed as ratios, on loopback: the engine alone, and the proxy beside a bare mitmdump. Minutes; wants two idle cores.
bench: setup
	$(PY) bench/engine.py
	$(PY) bench/proxy.py
	$(PY) bench/inbound.py

# The inbound listener alone, beside a bare mitmdump in front of the same app.
bench-inbound: setup
	$(PY) bench/inbound.py

# What a request costs and how much memory is used when a million people are known: half an hour. `KNOWN="100000 redis"`.
bench-known: setup
	$(PY) bench/known.py $(KNOWN)

# The latency probe and a shop that awaits Customer.io or does not: who waits is found, who does not is never accused.
bench-waiting: setup
	$(PY) bench/waiting.py 20

# Changes the rules in thousands of small ways: takes minutes. `MUTATION=cio_proxy/rules/x.py` takes one file.
mutation: setup
	@$(PY) scripts/mutation.py $(MUTATION)

demo:
	@scripts/setup.sh demo
	@$(PY) scripts/demo.py

run:
	@scripts/setup.sh run
	@.venvs/newest/bin/cio-proxy run

wheel: setup
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

# The generated parts of README and configuration, what every rule tells, and the picture of the demo.
docs: setup
	@RENEW=1 $(PY) -m pytest -q tests/rules/test_told.py
	@FORCE_COLOR=1 $(PY) scripts/demo.py | $(PY) scripts/docs.py
