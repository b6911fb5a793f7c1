#!/usr/bin/env bash
# Prints the Python that has the whole of torch and transformers, at the versions that the fixtures were made with.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# 3.11 to 3.14 have wheels of all of them.
python_with workers/tests/fixtures/requirements.txt 11 14 "torch and transformers (some 3 GB to fetch, once)"
