# One word for everything that a contributor does; .ci/run uses the same.
.PHONY: build native test lint types docs bench coverage ci

build:          ## the engine, for every instruction set
	pip install -e . --no-build-isolation

native:         ## the engine, for this CPU alone
	FASTGD_BUILD=native pip install -e . --no-build-isolation

test:           ## all tests, on all cores
	pytest -n auto

lint:
	ruff check .
	ruff format --check .
	cython-lint fastgd/_engine/*.pyx fastgd/_engine/*.pxd fastgd/_engine/rules/*.pxd

types:          ## mypy, and the stubs of the compiled modules against what they describe
	mypy
	python tests/typing/check.py
	printf "[mypy]\n" > build/stubtest.ini
	python -m mypy.stubtest --mypy-config-file build/stubtest.ini --ignore-missing-stub \
	    fastgd._engine._runtime fastgd._engine._gate fastgd._engine._gather fastgd._engine._rows \
	    fastgd._engine._tensors fastgd._engine._binding fastgd._engine._plan

docs:           ## the README's table of optimizers
	python docs/tables.py

bench:          ## steps of the peers' optimizers and of the family
	python -m bench.steps.report
	python -m bench.steps.family

coverage:
	pytest -n auto --cov=fastgd --cov-report=term:skip-covered

ci:
	.ci/run
