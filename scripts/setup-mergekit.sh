#!/usr/bin/env bash
# Prints the path of a Python with mergekit, for the comparison of means in `make bench`. Installs it if needed.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

python_with workers/benches/mergekit-requirements.txt 11 14 "mergekit (some 3 GB to fetch, once)"
