#!/usr/bin/env bash
# Prints the Python of `make experiments`: matplotlib, numpy and safetensors. The text classifier alone needs torch, from scripts/setup-python-check.sh.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# 3.11 to 3.14 have wheels of all of them.
python_with experiments/requirements.txt 11 14 "matplotlib and numpy (some 30 MB to fetch, once)"
