#!/usr/bin/env bash
# Prints the Python that has what the chart's tests need: Helm's engine, schemas of Kubernetes, checkov.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# 3.11 to 3.13 have wheels of all of them.
python_with tests/chart/requirements.txt 11 13 "what the chart's tests need (0.3 GB to fetch, once)"
