#!/usr/bin/env bash
# Fails if the root package depends on tch or torch-sys, on any target, with any feature. The worker is checked as
# well: it must depend on them, so a renamed crate cannot make this check pass by mistake.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# links_libtorch PACKAGE: prints the libtorch crates among the dependencies of PACKAGE.
links_libtorch() {
    local graph
    graph=$(cargo tree --locked -p "$1" -e normal,build --target all --all-features --prefix none --format '{p}')
    sort -u <<<"$graph" | grep -E '^(tch|torch-sys) ' || true
}

found=$(links_libtorch mehl-soup)
if [[ -n $found ]]; then
    printf 'mehl-soup must not depend on libtorch, but it does:\n%s\n' "$found" >&2
    exit 1
fi
if [[ -z "$(links_libtorch mehl-soup-worker)" ]]; then
    echo "mehl-soup-worker depends on no libtorch crate: this check no longer finds the crates" >&2
    exit 1
fi
