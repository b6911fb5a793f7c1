# Shared by the set-up scripts, which source it first of all. It defines functions and does nothing else.
# shellcheck shell=bash

# Messages go to stderr: the stdout of a script is its result.
say() { printf 'setup: %s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# version_at_least FOUND WANTED: dotted numbers, compared as versions.
version_at_least() { [[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

# find_python OLDEST NEWEST: prints the first Python of that range (minor versions of 3, both included) that can make
# a virtual environment, and fails without a word where there is none. Newer ones than NEWEST have no torch wheel.
find_python() {
    local oldest=$1 newest=$2 minor candidates=(python3) candidate
    for ((minor = newest; minor >= oldest; minor--)); do candidates+=("python3.$minor"); done
    for candidate in "${candidates[@]}"; do
        # Debian ships `venv` without `ensurepip` unless python3-venv is installed, hence both imports.
        if "$candidate" -c "
import sys, venv, ensurepip
sys.exit(not (3, $oldest) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# missing_python OLDEST NEWEST: prints what to say where find_python failed.
missing_python() {
    local found="python3 is not on the path"
    if command -v python3 >/dev/null; then found="found $(python3 --version 2>&1 | tail -n 1 || true)"; fi
    printf '%s' "Python 3.$1 to 3.$2 with its venv module ($found):" \
        " Debian: apt install python3 python3-venv; Fedora: dnf install python3"
    printf '\n'
}

# lock FILE: holds FILE until this process and every child it started have ended. Children count on purpose: a pip that
# outlives a killed set-up is still writing, and the next set-up must not begin before it stops.
lock() {
    exec 9>"$1"
    flock --nonblock 9 && return
    say "waiting for another setup in this folder"
    flock --timeout 1800 9 || die "the other setup did not end within 30 minutes ($1)"
}

# make_venv FOLDER PYTHON STAMP PIP_ARGUMENT...: a new virtual environment with what `pip install PIP_ARGUMENT...`
# installs. Such folders cannot be moved, so there is no temporary name: the stamp file, written last, says that the
# folder is whole, and its text says what is in it. Call under `lock`.
make_venv() {
    local folder=$1 python=$2 stamp=$3
    shift 3
    rm -rf "$folder"
    "$python" -m venv "$folder" || die "$python could not create a virtual environment in $folder"
    # pip's cache stays on: it is what makes a second set-up fast. The user's own pip settings win.
    PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-60} PIP_RETRIES=${PIP_RETRIES:-5} \
        "$folder/bin/python" -m pip --disable-pip-version-check install --progress-bar off "$@" >&2 ||
        die "pip could not install into $folder (its own message is above); run it again to start over"
    printf '%s\n' "$stamp" >"$folder/.stamp.new"
    mv -T "$folder/.stamp.new" "$folder/.stamp"
}

# venv_has FOLDER STAMP: is the folder whole, and does it hold what STAMP says?
venv_has() { [[ -f $1/.stamp && "$(<"$1/.stamp")" == "$2" ]]; }

# python_with REQUIREMENTS OLDEST NEWEST WHAT: prints the Python of a virtual environment in the user's cache folder that has what the file of requirements
# names, and makes it on first use. WHAT says to people what is fetched. It is not in target/, as `make clean` should not cost the download.
python_with() {
    local requirements=$1 oldest=$2 newest=$3 what=$4 hash cache venv stamp python
    [[ -f $requirements ]] || die "$requirements: not found"
    hash=$(sha256sum <"$requirements" | cut -c 1-16)
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/mehl-soup
    venv=$cache/python-$hash
    stamp="requirements $hash"
    if ! venv_works "$venv" "$stamp"; then
        python=$(find_python "$oldest" "$newest") || die "missing: $(missing_python "$oldest" "$newest")"
        mkdir -p "$cache"
        lock "$venv.lock"
        if ! venv_works "$venv" "$stamp"; then
            say "installing $what in $venv"
            make_venv "$venv" "$python" "$stamp" --requirement "$requirements"
        fi
    fi
    printf '%s\n' "$venv/bin/python"
}

# A Python that was upgraded or removed since leaves its virtual environments broken: so it is run, not only looked at.
venv_works() { venv_has "$1" "$2" && "$1/bin/python" -c '' 2>/dev/null; }
