#!/usr/bin/env bash
# Runs cargo-deny: bans, licences and sources must pass; advisories must pass if their database can be fetched.
# Uses the cargo-deny on the path, or builds a pinned version once in the user's cache folder.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

readonly VERSION=0.20.2

# Prints the program, building it first if needed.
cargo_deny() {
    if command -v cargo-deny; then return; fi
    local tools root
    tools=${XDG_CACHE_HOME:-$HOME/.cache}/mehl-soup/tools
    root=$tools/cargo-deny-$VERSION
    if [[ ! -x $root/bin/cargo-deny ]]; then
        mkdir -p "$tools"
        lock "$root.lock"
    fi
    if [[ ! -x $root/bin/cargo-deny ]]; then
        say "building cargo-deny $VERSION into $root (minutes, once)"
        # A build folder of its own, so that nothing of it ends in target/; an interrupted build goes on from there.
        cargo install --locked --quiet --version "$VERSION" --root "$root" --target-dir "$root-build" cargo-deny >&2 ||
            die "cargo-deny $VERSION could not be built (its own message is above)"
        rm -rf "$root-build"
    fi
    printf '%s\n' "$root/bin/cargo-deny"
}

deny=$(cargo_deny)
"$deny" --workspace --locked check --hide-inclusion-graph bans licenses sources
# Fetched separately, to distinguish a failed fetch from a finding.
if timeout 300 "$deny" --locked fetch db index; then
    "$deny" --workspace --locked --offline check advisories
else
    say "warning: the advisory database could not be fetched, so advisories were NOT checked"
fi
