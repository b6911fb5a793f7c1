#!/usr/bin/env bash
# `make bench`: measures this program and the yardstick (PyTorch scripts, see docs/benchmarks/yardstick.md) on the same
# zoo, in one run. Run nothing else at the same time. It takes about an hour and a half on two cores, some minutes
# more for the first zoos, and 30 GB of disk.
#
# BENCH_PARTS selects parts, by default all:
#
#   images      decoding and resizing, against torchvision
#   iteration   an iteration, against its bare loop
#   recompute   the same with activations computed again in the backward pass
#   many        iterations with 16 and 32 ingredients
#   small       an iteration of a small model on one thread
#   score       forward passes, against PyTorch
#   greedy      a greedy soup, against a script
#   mean        the mean of model files, against a plain torch loop and mergekit, with a warm and a cold page cache
#   batches     model batches with 8 to 64 ingredients
#   cold        the start with a cold page cache
#   seeds       what bf16 and compact directions do to losses
#   yardstick   the scripts that `iteration` and `many` are compared with
#
# With `iteration` and `yardstick`, tables and plots go to docs/benchmarks.md and docs/benchmarks/details.md; with
# other parts to target/bench/benchmarks.md and target/bench/benchmarks/. BENCH_APPEND=1 keeps the measurements of
# earlier runs in target/bench/lines.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."

release="${RELEASE:-target/release}"
parts="${BENCH_PARTS:-images iteration recompute many small score greedy mean batches cold seeds yardstick}"
out=target/bench
lines="$out/lines.jsonl"
python="$(scripts/setup-python-check.sh)"

# Runs of each side of a comparison, in turns.
turns=3
# Samples of a forward pass.
score_batch=64

has() { [[ " $parts " == *" $1 "* ]]; }
# part_of ZOO NAME ARGUMENT...: a part of the program's own benchmark, with the zoo that it makes there.
part_of() { "$release/mehl-soup-worker" bench --out "$1" --part "$2" --lines "$lines" "${@:3}"; }
part() { part_of "$out" "$@"; }
# yardstick_of ZOO COMMAND ARGUMENT...: a script on a zoo.
yardstick_of() { "$python" workers/benches/yardstick "${@:2}" --zoo "$1" | tee -a "$lines" >&2; }
yardstick() { yardstick_of "$out" "$@"; }
# The MEHL-Soup+ script with b = 4, plain and with oneDNN.
scripts_of_four() {
	for linear in pytorch onednn; do
		yardstick mehl+ --k 8 --b 4 --batch 16 --iterations 4 --linear "$linear" "$@"
	done
}

for name in $parts; do
	case $name in
	images | iteration | recompute | many | small | score | greedy | mean | batches | cold | seeds | yardstick) ;;
	*)
		echo "BENCH_PARTS: \`$name\` is not a part; scripts/bench.sh lists them" >&2
		exit 1
		;;
	esac
done

mkdir -p "$out"
[[ "${BENCH_APPEND:-}" == 1 ]] || rm -f "$lines"

if has images; then
	"$release/mehl-soup-worker" bench --part images --out "$out" --python "$python"
fi
if has iteration; then
	for ((turn = 0; turn < turns; turn++)); do
		part iteration --model-batch 4 --iterations 2
		if has yardstick; then scripts_of_four --rounds 1; fi
	done
	part iteration --model-batch 8 --iterations 4
	part iteration --model-batch 8 --direction-dtype int4 --iterations 4
fi
if has recompute; then
	part iteration --model-batch 4 --dtype bf16 --direction-dtype int8 --recompute --iterations 4
fi
if has many; then
	# Of 32 and 16 ingredients, against scripts that hold all of them.
	many() { part_of "$out/many-$1" iteration --ingredients "$1" --model-batch 4 --iterations 2; }
	many 32
	# The smaller zoo is half of the larger one.
	mkdir -p "$out/many-16/zoo"
	for model in "$out"/many-32/zoo/k00? "$out"/many-32/zoo/k01[0-5]; do
		ln -sfn "$(realpath "$model")" "$out/many-16/zoo/"
	done
	many 16
fi
if has small; then
	part small --batch 32 --model-batch 4 --threads 1
fi
if has score; then
	for ((turn = 0; turn < turns; turn++)); do
		part score --batch "$score_batch"
		for linear in pytorch onednn; do
			yardstick score --batch "$score_batch" --linear "$linear" --rounds 1
		done
	done
fi
if has greedy; then
	for ((turn = 0; turn < turns; turn++)); do
		part greedy
		for linear in pytorch onednn; do
			yardstick greedy --k 8 --samples 64 --linear "$linear"
		done
	done
fi
if has mean; then
	mergekit="$(scripts/setup-mergekit.sh)"
	mean() { "$1" workers/benches/yardstick mean --zoo "$out" --k 8 --out "$out/mean" "${@:2}" | tee -a "$lines" >&2; }
	for ((turn = 0; turn < turns; turn++)); do
		part mean
		for cache in warm cold; do
			mean "$python" --cache "$cache"
			TQDM_DISABLE=1 mean "$mergekit" --by mergekit --cache "$cache"
		done
	done
	rm -rf "$out/mean"
fi
if has batches; then
	part batches
fi
if has cold; then
	part cold
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
	yardstick bare --dtype f32 --batch 16
	yardstick bare --dtype f32 --batch 16 --linear onednn
	yardstick bare --dtype bf16 --batch 16
	yardstick mehl+ --k 8 --b 8 --batch 16 --iterations 4
	has iteration || scripts_of_four
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
elif [[ -f $lines ]]; then
	rm -rf "$out/benchmarks.md" "$out/benchmarks"
	"$python" workers/benches/tables.py "$lines" --page "$out/benchmarks.md" --details "$out/benchmarks/details.md"
fi
