#!/usr/bin/env bash
# Prints the path of a Python for `make experiments` (matplotlib, numpy, safetensors). Installs them if needed. Only
# the text classifier needs torch, from scripts/setup-python-check.sh.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# Wheels of all packages exist for 3.11 to 3.14.
python_with experiments/requirements.txt 11 14 "matplotlib and numpy (some 30 MB to fetch, once)"
