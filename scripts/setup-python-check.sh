#!/usr/bin/env bash
# Prints the path of a Python with torch and transformers, in the versions of the fixtures. Installs them if needed.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# Wheels of all packages exist for 3.11 to 3.14.
python_with workers/tests/fixtures/requirements.txt 11 14 "torch and transformers (some 3 GB to fetch, once)"
