#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS (60) from its corpus in fuzz/corpus. New corpus entries stay in target/fuzz.
# A failing input is printed with the command that repeats it. If fuzzers cannot be built, this is reported, and
# property tests on the same corpora run instead.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

readonly VERSION=0.13.2
readonly TARGETS=(spec weights shard_index coefficients)
readonly SECONDS_EACH=${FUZZ_SECONDS:-60}
readonly BUILD=${CARGO_TARGET_DIR:-target}/fuzz

# Makes cargo-fuzz callable: the one on the path, or else a pinned one in the user's cache folder, built once.
find_cargo_fuzz() {
    if command -v cargo-fuzz >/dev/null; then return; fi
    local tools root
    tools=${XDG_CACHE_HOME:-$HOME/.cache}/mehl-soup/tools
    root=$tools/cargo-fuzz-$VERSION
    if [[ ! -x $root/bin/cargo-fuzz ]]; then
        mkdir -p "$tools"
        lock "$root.lock"
        say "building cargo-fuzz $VERSION into $root (a minute, once)"
        cargo install --locked --quiet --version "$VERSION" --root "$root" --target-dir "$root-build" cargo-fuzz >&2 ||
            return 1
        rm -rf "$root-build"
    fi
    PATH=$root/bin:$PATH
}

# Without a sanitizer: the code is safe Rust, and so the stable toolchain will do. What is looked for are panics, overflows of the
# stack, and inputs that take too long or too much memory. Debug assertions make overflows of integers panics.
fuzz() {
    cargo fuzz "$@"
}

if ! find_cargo_fuzz || ! fuzz build --sanitizer none --debug-assertions --target-dir "$BUILD"; then
    say "warning: cargo-fuzz is not available and cannot be built, so NO fuzzer ran; running property tests on the same corpora instead"
    PROPTEST_CASES=${PROPTEST_CASES:-100000} exec cargo test --release -p mehl-soup --test library fuzz_corpus::
fi
failed=()
for target in "${TARGETS[@]}"; do
    found=$BUILD/corpus/$target artifacts=$BUILD/artifacts/$target/
    mkdir -p "$found" "$artifacts"
    say "$target: $SECONDS_EACH s"
    # The first folder takes what is new. 64 KiB hold any structure; 10 s and 2 GB for one input are a fault.
    fuzz run --sanitizer none --debug-assertions --target-dir "$BUILD" "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$artifacts" -verbosity=1 2>&1 | grep -vE '^#[0-9]+\s+(NEW|REDUCE|RELOAD)|# Uses:|ecommended dictionary' || failed+=("$target")
done
if ((${#failed[@]} > 0)); then
    die "failed: ${failed[*]}; inputs are in $BUILD/artifacts: fix the bug and add them to fuzz/corpus"
fi
