#!/usr/bin/env bash
# Prints the path of a Python with the packages of the chart's tests: Helm's engine, Kubernetes schemas, checkov.
# Installs them if needed.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# Wheels of all packages exist for 3.11 to 3.13.
python_with tests/chart/requirements.txt 11 13 "what the chart's tests need (0.3 GB to fetch, once)"
