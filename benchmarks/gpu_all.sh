#!/bin/sh
# Everything that is asked of a GPU, in the order in which it is worth most, where time on one is short: the new layouts'
# tests, all tests, cells with norms and inputs, the table of LSTM and GRU. torch with CUDA and the package are installed.
#
#     sh benchmarks/gpu_all.sh [FOLDER]     # what is printed also goes there
set -u
out=${1:-gpu-results}
mkdir -p "$out"
export CUBLAS_WORKSPACE_CONFIG=:4096:8 PYTHON="${PYTHON:-python3}"
keep() {
  name=$1
  shift
  "$@" 2>&1 | tee "$out/$name.txt"
}
keep new "$PYTHON" -m pytest -n auto tests/gpu/test_device.py -k "norms or layernorm or aware" --durations=5
keep tests make test-gpu PYTHON="$PYTHON"
keep cells "$PYTHON" benchmarks/gpu_cells.py
keep cells-float32 "$PYTHON" benchmarks/gpu_cells.py --dtype float32 --hidden 64 256
keep gpu "$PYTHON" benchmarks/gpu.py --cell lstm gru --rounds 3
