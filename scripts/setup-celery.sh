#!/usr/bin/env bash
# Prints the Python that has Celery, which `make bench-pool` compares the pool with.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

python_with tests/python/celery-requirements.txt 10 14 "Celery"
