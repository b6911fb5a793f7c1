#!/usr/bin/env bash
# Prints the path of a Python with Celery, for the comparison in `make bench-pool`. Installs it if needed.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

python_with tests/python/celery-requirements.txt 10 14 "Celery"
