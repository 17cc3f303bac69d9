# `make run` starts the whole shop on this machine; `make test` runs everything that must hold.
# Both begin by installing what is missing. Another Python than python3: make run PYTHON=python3.12

PYTHON ?= python3
UV := uv==0.13.9
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# Named, so that neither an environment nor a `.env` is needed to work with the source alone.
manage := DEBUG=1 .venv/bin/python manage.py

export PYTHON
SCALE ?= full
.PHONY: help run test lint format messages bench lock clean

help:
	@echo "make run        start the shop with demo data (Ctrl-C stops it)"
	@echo "make test       run every check and every test"
	@echo "                STEPS=\"ruff mypy\" runs these steps only; ARGS=\"-k queue\" goes to pytest"
	@echo "make lint       run only the checks that read the source"
	@echo "make format     put the source into its standard form"
	@echo "make messages   collect the translatable texts and compile their translations"
	@echo "make bench      measure queues, payments, the outbox (25 minutes; SCALE=small: small queues, one)"
	@echo "make lock       write the lock files anew; UPGRADE=--upgrade takes newer releases"
	@echo "make clean      remove what the above have installed and cached; var/ stays"

run:
	@tools/bootstrap.sh run
	@exec .venv/bin/python -m tools.demo

test:
	@tools/bootstrap.sh test
	@exec .venv/bin/python -m tools.check $(STEPS) $(if $(ARGS),-- $(ARGS))

lint:
	@tools/bootstrap.sh test
	@exec .venv/bin/python -m tools.check ruff format mypy imports templates

format:
	@tools/bootstrap.sh test
	.venv/bin/ruff check --fix --exit-zero
	.venv/bin/ruff format

messages:
	@tools/bootstrap.sh test
	$(manage) makemessages --all --no-obsolete --add-location file --ignore .venv --ignore var
	$(manage) compilemessages --ignore .venv --ignore var

bench:
	@tools/bootstrap.sh test
	@DURABLE=1 SECRET_KEY=only-for-measuring-and-long-enough-to-be-taken-for-a-real-one-by-the-checks DEBUG=0 \
		.venv/bin/python -m tools.services -- .venv/bin/python -m bench --scale $(SCALE)

# uv has an environment of its own: it is no dependency, and would be in the lock that it writes.
lock:
	@tools/bootstrap.sh run
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install -qq --disable-pip-version-check $(UV)
	.venv-lock/bin/uv pip compile $(LOCK) $(UPGRADE) requirements.in -o requirements.txt >/dev/null
	.venv-lock/bin/uv pip compile $(LOCK) $(UPGRADE) requirements-dev.in -o requirements-dev.txt >/dev/null

clean:
	rm -rf .venv .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
