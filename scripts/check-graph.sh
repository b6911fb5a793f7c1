#!/usr/bin/env bash
# The control plane links no libtorch: fails if the root package depends on tch or torch-sys, on any target, with any
# feature. The worker is asked too, so that a renamed crate cannot make the check pass by finding nothing.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# links_libtorch PACKAGE: prints the crates of libtorch among what PACKAGE is built from.
links_libtorch() {
    local graph
    graph=$(cargo tree --locked -p "$1" -e normal,build --target all --all-features --prefix none --format '{p}')
    sort -u <<<"$graph" | grep -E '^(tch|torch-sys) ' || true
}

found=$(links_libtorch mehl-soup)
if [[ -n $found ]]; then
    printf 'mehl-soup must not depend on libtorch, and does:\n%s\n' "$found" >&2
    exit 1
fi
if [[ -z "$(links_libtorch mehl-soup-worker)" ]]; then
    echo "no crate of libtorch in mehl-soup-worker's graph: this check no longer sees what it looks for" >&2
    exit 1
fi
