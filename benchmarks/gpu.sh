#!/usr/bin/env bash
# Builds, checks every kernel against its reference and times everything on one GPU, in under ten minutes and without a
# network. It installs nothing: needed are Python, torch with CUDA, Triton, pybind11, setuptools and a C++ compiler.
#
#     benchmarks/gpu.sh [WHEELS]           # a folder of wheels to use besides, such as megatron-core's and pydantic's
#     benchmarks/gpu.sh --dry [WHEELS]     # the same parts with tiny shapes on a CPU, in under two minutes
#
# Each part has its own limit, and none outlives the whole; one that fails is named, and the others go on. Results lie
# in benchmarks/results/gpu (dry: benchmarks/results/dry), a JSON file and a log for each part. The variables
# PYTHON, RESULTS and LIMIT name another interpreter and folder, and other seconds for the whole.
set -uo pipefail
cd "$(dirname "$0")/.."

DRY=0
if [ "${1:-}" = --dry ]; then DRY=1; shift; fi
WHEELS=${1:-}
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-$([ $DRY = 1 ] && echo 120 || echo 590)} # seconds, of the whole
RESULTS=${RESULTS:-benchmarks/results/$([ $DRY = 1 ] && echo dry || echo gpu)}
PACKAGES=build/gpu_packages
failed=()

mkdir -p "$RESULTS" "$PACKAGES"
export PYTHONPATH="$PWD:$PWD/$PACKAGES${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}

# part NAME SECONDS COMMAND…: run with this limit or what is left of the whole, and show the end of what it printed.
part() {
    local name=$1 seconds=$2 left=$((LIMIT - SECONDS)) start=$SECONDS
    shift 2
    if [ "$left" -lt 5 ]; then
        echo "== $name: no time left"; failed+=("$name"); return
    fi
    timeout --kill-after=5 $((seconds < left ? seconds : left)) "$@" > "$RESULTS/$name.log" 2>&1
    local code=$?
    echo "== $name: $([ $code = 0 ] && echo ok || echo "failed with $code"), $((SECONDS - start)) s"
    tail -n "$([ $code = 0 ] && echo 30 || echo 15)" "$RESULTS/$name.log"
    [ $code = 0 ] || failed+=("$name")
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

# check NAME SECONDS ARGUMENT…: tests.
check() {
    local name=$1 seconds=$2
    shift 2
    part "$name" "$seconds" "$PYTHON" -m pytest -q -p no:cacheprovider "$@"
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
part build 100 "$PYTHON" setup.py -q build_ext --inplace

if [ $DRY = 1 ]; then
    check kernels_checked "$LIMIT" tests/unit/kernels/test_rms_norm.py
    script attention "$LIMIT"
    train slice "$LIMIT" --model tiny --seq-length 32 --steps 2 --warmup 1 device=cpu training.precision=fp32 \
        --peers megatron-core
    train host_overhead "$LIMIT" --model llama2_7b --num-layers 8 --host-overhead device=cpu training.precision=fp32
else
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    mapfile -t on_gpu < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
    check gpu_checked 120 -m gpu "${on_gpu[@]}"
    check kernels_checked 100 tests/unit/kernels
    script attention 60
    script kernels 60
    script optimizer 40
    train slice 100 --model llama2_7b --num-layers 8 --steps 8 --peers megatron-core transformers liger
    memory=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_properties(0).total_memory >> 30)')
    if [ "${memory:-0}" -ge 135 ]; then
        train full 120 --model llama2_7b --steps 8
    elif [ "${memory:-0}" -ge 75 ]; then # 10 bytes a parameter, and the MLP's activations computed again
        train full 120 --model llama2_7b --steps 8 optimizer.main_grads_dtype=bf16 optimizer.exp_avg_dtype=bf16 \
            optimizer.exp_avg_sq_dtype=bf16 optimizer.store_param_remainders=true \
            parallel.use_distributed_optimizer=true parallel.recompute_granularity=selective \
            "parallel.recompute_modules=[mlp]"
    fi
    train host_overhead 40 --model llama2_7b --host-overhead --gpu h100
    train graphs 60 --model llama2_7b --num-layers 8 --seq-length 512 --micro-batches 4 --cuda-graphs
    train host_overhead_graphs 40 --model llama2_7b --host-overhead --gpu h100 --cuda-graphs
fi

echo "$SECONDS s in all; results in $RESULTS"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
