#!/usr/bin/env bash
# Prints the Python that has what the chart's tests need: Helm's engine, schemas of Kubernetes, checkov. Makes it on first
# use, in the user's cache folder, so that `make clean` does not cost a second download.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

readonly REQUIREMENTS=tests/chart/requirements.txt
readonly OLDEST_PYTHON=11 NEWEST_PYTHON=13 # 3.x that have wheels of all of them

[[ -f $REQUIREMENTS ]] || die "$REQUIREMENTS: not found"
hash=$(sha256sum <"$REQUIREMENTS" | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mehl-soup
venv=$cache/chart-$hash
stamp="requirements $hash"

# A Python that was upgraded or removed since leaves its virtual environments broken: so it is run, not only looked at.
is_done() { venv_has "$venv" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null; }

if ! is_done; then
    python=$(find_python $OLDEST_PYTHON $NEWEST_PYTHON) ||
        die "missing: $(missing_python $OLDEST_PYTHON $NEWEST_PYTHON)"
    mkdir -p "$cache"
    lock "$venv.lock"
    if ! is_done; then
        say "installing what the chart's tests need in $venv (0.3 GB to fetch, once)"
        make_venv "$venv" "$python" "$stamp" --requirement "$REQUIREMENTS"
    fi
fi
printf '%s\n' "$venv/bin/python"
