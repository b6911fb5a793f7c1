#!/usr/bin/env bash
# `make bench`: measures this program and the yardstick (PyTorch scripts, see docs/benchmarks.md) in turn on the same
# zoo, and writes tables and plots to docs/benchmarks.md. BENCH_PARTS selects parts: images, iteration, many, batches,
# cold, seeds, yardstick. Takes an hour on two cores, some minutes more for the first zoos, and 30 GB of disk. Run
# nothing else at the same time.
set -euo pipefail
cd "$(dirname "$0")/.."

release="${RELEASE:-target/release}"
parts="${BENCH_PARTS:-images iteration many batches cold seeds yardstick}"
out=target/bench
lines="$out/lines.jsonl"
python="$(scripts/setup-python-check.sh)"
mkdir -p "$out"
rm -f "$lines"

has() { [[ " $parts " == *" $1 "* ]]; }

if has images; then
	"$release/mehl-soup-worker" bench --part images --out "$out" --python "$python"
fi
if has iteration; then
	for b in 4 8; do
		"$release/mehl-soup-worker" bench --part iteration --out "$out" --model-batch "$b" --iterations 4 --lines "$lines"
	done
	"$release/mehl-soup-worker" bench --part iteration --out "$out" --model-batch 8 --direction-dtype int4 --iterations 4 --lines "$lines"
fi
if has many; then
	# Of 32 and 16 ingredients, against scripts that hold all of them.
	many() { "$release/mehl-soup-worker" bench --part iteration --out "$out/many-$1" --ingredients "$1" --model-batch 4 --iterations 2 --lines "$lines"; }
	many 32
	# The smaller zoo is half of the larger one.
	mkdir -p "$out/many-16/zoo"
	for model in "$out"/many-32/zoo/k00? "$out"/many-32/zoo/k01[0-5]; do
		ln -sfn "$(realpath "$model")" "$out/many-16/zoo/"
	done
	many 16
fi
if has batches; then
	"$release/mehl-soup-worker" bench --part batches --out "$out" --lines "$lines"
fi
if has cold; then
	"$release/mehl-soup-worker" bench --part cold --out "$out" --lines "$lines"
fi
if has seeds; then
	demos=()
	for seed in 201 202 203 204 205; do
		"$release/mehl-soup" demo --make-zoo "$out/demo-$seed" --seed "$seed" >&2
		demos+=("$out/demo-$seed")
	done
	"$python" workers/benches/seeds.py --program "$release/mehl-soup" --lines "$lines" "${demos[@]}"
fi
if has yardstick; then
	yardstick_of() { "$python" workers/benches/yardstick "${@:2}" --zoo "$1" | tee -a "$lines" >&2; }
	yardstick() { yardstick_of "$out" "$@"; }
	yardstick bare --dtype f32 --batch 16
	yardstick bare --dtype bf16 --batch 16
	yardstick mehl+ --k 8 --b 4 --batch 16 --iterations 4
	yardstick mehl+ --k 8 --b 8 --batch 16 --iterations 4
	yardstick mehl+ --k 8 --b 4 --batch 16 --iterations 4 --linear onednn
	yardstick learned+ --k 8 --batch 16 --iterations 3
	if has many; then
		for k in 16 32; do
			yardstick_of "$out/many-$k" learned+ --k "$k" --batch 16 --iterations 3
		done
	fi
	"$python" workers/benches/yardstick copy | tee -a "$lines" >&2
fi
if has iteration && has yardstick; then
	"$python" workers/benches/tables.py "$lines"
fi
