#!/usr/bin/env bash
# Builds, checks every kernel against its reference and times everything on one GPU, in under ten minutes and without a
# network. It installs nothing: needed are Python, torch with CUDA, Triton, pybind11, setuptools, pytest, a C++ compiler,
# and what pyproject.toml names, transformers and liger-kernel for the peers.
#
#     benchmarks/gpu.sh [WHEELS]           # a folder of wheels of what is not installed there
#     benchmarks/gpu.sh --dry [WHEELS]     # the same parts with tiny shapes on a CPU, in under two minutes
#
# Where torch, numpy, transformers and the like are there already, the wheels are, fetched where there is a network and
# for the Python that the GPU's machine has:
#
#     pip download --dest WHEELS --constraint constraints.txt --no-deps --only-binary=:all: --python-version 3.12 \
#         --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 megatron-core liger-kernel backports.zstd \
#         pydantic pydantic_core annotated-types typing-inspection typing_extensions
#
# Parts come in the order of their worth. Each has its own process and limit, and none outlives the whole; one that
# fails or hangs is named, and the others go on. Results lie in benchmarks/results/gpu (dry: benchmarks/results/dry): a
# JSON file for each part that measures, and a log for each part, of what a part had when it was stopped too; machine.log
# names GPU, driver and versions. The variables PYTHON, RESULTS and LIMIT name another interpreter and folder, and other
# seconds for the whole. After "CUDA error", run that part again with CUDA_LAUNCH_BLOCKING=1: then the traceback is right.
set -uo pipefail
cd "$(dirname "$0")/.."

DRY=0
if [ "${1:-}" = --dry ]; then DRY=1; shift; fi
WHEELS=${1:-}
PYTHON=$(command -v "${PYTHON:-python3}") || { echo "there is no ${PYTHON:-python3}"; exit 2; }
LIMIT=${LIMIT:-$([ $DRY = 1 ] && echo 120 || echo 590)} # seconds, of the whole
RESULTS=${RESULTS:-benchmarks/results/$([ $DRY = 1 ] && echo dry || echo gpu)}
PACKAGES=build/gpu_packages
failed=()

rm -rf "$PACKAGES" # another run's may be another Python's
mkdir -p "$RESULTS" "$PACKAGES"
export PATH="$(dirname "$PYTHON"):$PATH" # launch.sh takes its python3
export PYTHONPATH="$PWD:$PWD/$PACKAGES${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 # logs are whole, with the place where a part was stopped
ulimit -c 0

# part NAME SECONDS COMMAND…: run with this limit or what is left of the whole, and show the end of what it printed.
part() {
    local name=$1 seconds=$2 left=$((LIMIT - SECONDS)) start=$SECONDS
    shift 2
    if [ "$left" -lt 5 ]; then
        echo "== $name: no time left"; failed+=("$name"); return 1
    fi
    timeout --signal="${STOP:-ABRT}" --kill-after=10 $((seconds < left ? seconds : left)) \
        "$@" > "$RESULTS/$name.log" 2>&1
    local code=$?
    echo "== $name: $([ $code = 0 ] && echo ok || echo "failed with $code"), $((SECONDS - start)) s"
    tail -n "$([ $code = 0 ] && echo 30 || echo 40)" "$RESULTS/$name.log"
    [ $code = 0 ] || failed+=("$name")
    return $code
}

# train NAME SECONDS ARGUMENT…: time training steps.
train() {
    local name=$1 seconds=$2
    shift 2
    part "$name" "$seconds" "$PYTHON" tools/benchmark_training.py --output "$RESULTS/$name.json" "$@"
}

# script NAME SECONDS: a benchmark of its own.
script() {
    part "$1" "$2" "$PYTHON" "benchmarks/$1.py" --output "$RESULTS/$1.json"
}

# check NAME SECONDS ARGUMENT…: tests; if interrupted they report what has failed so far. With pytest-xdist files are
# spread over processes: it is quicker, and a kernel that faults takes few other tests along.
check() {
    local name=$1 seconds=$2 STOP=INT spread=()
    shift 2
    "$PYTHON" -c 'import xdist' 2> /dev/null && spread=(-n $((($(nproc) + 1) / 2)) --dist loadfile)
    part "$name" "$seconds" "$PYTHON" -m pytest -v -p no:cacheprovider -o faulthandler_timeout=60 --durations=10 \
        "${spread[@]}" "$@"
}

if [ -n "$WHEELS" ]; then
    part wheels 30 "$PYTHON" -c '
import sys, zipfile
from pathlib import Path
wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
for wheel in wheels:
    zipfile.ZipFile(wheel).extractall(sys.argv[2])
print(f"{len(wheels)} wheels unpacked")' "$WHEELS" "$PACKAGES"
fi
part machine 60 "$PYTHON" -m torch.utils.collect_env > /dev/null & # reads torch from the disk while the compiler works
part build 100 "$PYTHON" setup.py -q build_ext --inplace
wait

if [ $DRY = 1 ]; then
    check checked "$LIMIT" tests/unit/kernels/test_rms_norm.py
    train slice "$LIMIT" --model tiny --seq-length 32 --steps 2 --warmup 1 device=cpu training.precision=fp32 \
        --peers megatron-core
    script attention "$LIMIT"
    train host_overhead "$LIMIT" --model llama2_7b --num-layers 2 --host-overhead device=cpu training.precision=fp32
else
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1) # MiB
    mapfile -t marked < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
    full=(--model llama2_7b --steps 8)
    small=(optimizer.main_grads_dtype=bf16 optimizer.exp_avg_dtype=bf16 optimizer.exp_avg_sq_dtype=bf16
        optimizer.store_param_remainders=true parallel.use_distributed_optimizer=true) # 10 bytes a parameter

    train slice 160 --model llama2_7b --steps 8 --num-layers 8 --peers megatron-core transformers liger
    check checked 150 -m gpu "${marked[@]}" tests/unit/kernels
    if [ "${memory:-0}" -lt 135000 ]; then # the MLP's activations are computed again
        full+=("${small[@]}" parallel.recompute_granularity=selective "parallel.recompute_modules=[mlp]")
    fi
    if [ "${memory:-0}" -ge 75000 ]; then
        train full 90 "${full[@]}" || train full_recomputed 90 \
            "${full[@]}" parallel.recompute_granularity=full parallel.recompute_modules=null
    fi
    script kernels 100
    script attention 45
    if [ "${memory:-0}" -ge 75000 ]; then # an update for four micro-batches, as most runs have
        train full_accumulated 60 "${full[@]}" --micro-batches 4 --steps 3
    fi
    script optimizer 30
    train host_overhead 50 --model llama2_7b --host-overhead --gpu h100
    train graphs 60 --model llama2_7b --num-layers 8 --seq-length 512 --micro-batches 4 --cuda-graphs
    train host_overhead_graphs 50 --model llama2_7b --host-overhead --gpu h100 --cuda-graphs
fi

echo "$SECONDS s in all; results in $RESULTS"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
