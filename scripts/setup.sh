#!/usr/bin/env bash
# Checks the prerequisites and installs libtorch where .cargo/config.toml expects it. Safe to repeat and to interrupt.
# Ends in a fraction of a second if nothing is to be done.
#
#   LIBTORCH=/path             use your own libtorch; nothing is installed
#   MEHL_SOUP_LIBTORCH=cpu     the CPU build, even if there is a GPU
#   MEHL_SOUP_LIBTORCH=whole   the CUDA build, even if there is no GPU
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

readonly TORCH=2.11.0 # the version that the `tch` of Cargo.toml binds to
readonly OLDEST_PYTHON=10 NEWEST_PYTHON=14 # 3.x that have a wheel of it
# The Linux wheel is built with CUDA. Its libtorch_cpu.so itself needs only these two of the many packages that the
# wheel asks for, so they are enough to compile, link and run on a CPU (`import torch` needs them all).
readonly CPU_SUBSET=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)

# Always in target/, because .cargo/config.toml names one place; where cargo builds (CARGO_TARGET_DIR) is another matter.
readonly VENV=target/venv LINK=target/libtorch

# Reports all missing prerequisites at once.
check_prerequisites() {
    local missing=() oldest_rust found
    [[ "$(uname -s)" == Linux ]] || die "$(uname -s) is not supported: expected Linux (x86-64 or aarch64)"

    oldest_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        missing+=("cargo: install rustup (Debian: apt install rustup; Fedora: dnf install rustup && rustup-init), then: rustup default stable")
    elif ! found=$(cargo --version 2>/dev/null); then
        missing+=("a Rust toolchain: cargo exists but does not run; try: rustup default stable")
    elif found=$(cut -d ' ' -f 2 <<<"$found") && ! version_at_least "$found" "$oldest_rust"; then
        missing+=("Rust $oldest_rust or newer: found $found; rustup update stable")
    fi
    local compiler
    for compiler in "${CC:-cc}" "${CXX:-c++}"; do
        # Only the first word: CXX may hold a wrapper or flags ("ccache g++").
        command -v "${compiler%% *}" >/dev/null ||
            missing+=("a C and C++ compiler (${compiler%% *} not found): Debian: apt install build-essential; Fedora: dnf install gcc-c++")
    done
    command -v make >/dev/null || missing+=("make: Debian: apt install make; Fedora: dnf install make")

    # Python is needed for the installation alone.
    if [[ $1 == with-python ]] && ! python=$(find_python $OLDEST_PYTHON $NEWEST_PYTHON); then
        missing+=("$(missing_python $OLDEST_PYTHON $NEWEST_PYTHON)")
    fi

    ((${#missing[@]} == 0)) && return
    local each
    for each in "${missing[@]}"; do say "missing: $each"; done
    die "prerequisites are missing"
}

has_nvidia_gpu() {
    # The device file first: nvidia-smi can take seconds.
    [[ -e /dev/nvidia0 ]] || grep -q '^GPU ' <<<"$(timeout 30 nvidia-smi -L 2>/dev/null)"
}

# Prints the mode for this machine: cpu or whole.
wanted_mode() {
    case ${MEHL_SOUP_LIBTORCH:-} in
        cpu | whole) printf '%s\n' "$MEHL_SOUP_LIBTORCH" ;;
        '') if has_nvidia_gpu; then echo whole; else echo cpu; fi ;;
        *) die "MEHL_SOUP_LIBTORCH is '$MEHL_SOUP_LIBTORCH': expected cpu or whole" ;;
    esac
}

stamp() { printf 'torch %s %s' "$TORCH" "$1"; }

# A whole installation also serves a machine that needs less, unless the small one was asked for by name.
is_installed() {
    venv_has $VENV "$(stamp "$1")" && return
    [[ -z ${MEHL_SOUP_LIBTORCH:-} ]] && venv_has $VENV "$(stamp whole)"
}

is_done() { is_installed "$1" && [[ -e $LINK/lib/libtorch_cpu.so ]]; }

# Prints the libraries that the loader cannot load, one per line; nothing if all is well.
missing_libraries() {
    local library
    for library in "$@"; do
        if [[ -f $library ]]; then
            ldd "$library" | awk -v of="${library##*/}" '/not found/ { print of " needs " $1 }' ||
                printf '%s cannot be loaded\n' "$library"
        else
            printf '%s is not there\n' "$library"
        fi
    done
}

install_libtorch() {
    local mode=$1 packages=("torch==$TORCH")
    if [[ $mode == cpu ]]; then
        say "installing libtorch $TORCH for CPU in $VENV (download 0.6 GB, 1.3 GB on disk)"
        packages=(--no-deps "${packages[@]}" "${CPU_SUBSET[@]}")
    else
        say "installing libtorch $TORCH with CUDA in $VENV (download about 3 GB)"
    fi
    [[ "$(uname -m)" == x86_64 ]] || say "note: only x86-64 has been tested; the wheel for $(uname -m) needs the same packages"
    rm -f $LINK
    make_venv $VENV "$python" "$(stamp "$mode")" "${packages[@]}"
}

# The link comes last, and goes first: it says that the libraries of this installation were seen to load.
link_libtorch() {
    local torch libraries lost
    torch=$(echo $VENV/lib/python3.*/site-packages/torch)
    libraries=("$torch/lib/libtorch_cpu.so")
    if venv_has $VENV "$(stamp whole)"; then libraries+=("$torch/lib/libtorch_cuda.so"); fi
    lost=$(missing_libraries "${libraries[@]}")
    if [[ -n $lost ]]; then
        rm -f $VENV/.stamp
        die "libtorch $TORCH is installed but cannot be loaded: $lost"
    fi
    # Replaced in one step: there is never half a link.
    ln -sfn "${torch#target/}" $LINK.new
    mv -T $LINK.new $LINK
}

# Someone's own libtorch is only looked at: a bad one would show as a linker error far from its cause.
check_own_libtorch() {
    [[ -n $LIBTORCH ]] || die "LIBTORCH is set but empty: unset it, or set it to a libtorch folder"
    [[ $LIBTORCH == /* ]] || die "LIBTORCH is '$LIBTORCH': expected an absolute path"
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] || die "LIBTORCH is '$LIBTORCH': it contains no lib/libtorch_cpu.so"
    say "using your own libtorch: $LIBTORCH"
}

if [[ -n ${LIBTORCH+set} ]]; then
    check_prerequisites without-python
    check_own_libtorch
    exit
fi

mode=$(wanted_mode)
if is_done "$mode"; then
    check_prerequisites without-python
else
    check_prerequisites with-python
    mkdir -p target
    # What cargo writes into a target folder that it makes itself: keeps gigabytes out of backups.
    [[ -e target/CACHEDIR.TAG ]] || printf 'Signature: 8a477f597d28d172789f06886806bc55\n' >target/CACHEDIR.TAG
    lock target/.setup.lock
    # Asked again: another set-up may have done it while this one waited.
    is_installed "$mode" || install_libtorch "$mode"
    is_done "$mode" || link_libtorch
fi
say "libtorch is ready ($(<$VENV/.stamp))"
