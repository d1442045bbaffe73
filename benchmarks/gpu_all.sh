#!/bin/sh
# Everything that is asked of a GPU, what is worth most first, for whoever has one for a quarter of an hour. torch with CUDA
# and the package are installed.
#
#     sh benchmarks/gpu_all.sh [FOLDER]       # all that documents are made from goes there, as it comes
#     REHEARSAL=1 sh benchmarks/gpu_all.sh    # the same steps on a machine without a GPU: tiny, emulated, no figures
#
# Each part has a limit of its own, and all of them BUDGET seconds (840). A part that has ended well is not run again: after
# an interruption the same command goes on with the next one. FOLDER/summary.txt says what became of each, and names each
# test that failed or was cut off.
set -u
cd "$(dirname "$0")/.." || exit 1
out=${1:-gpu-results}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHON="${PYTHON:-python3}"
began=$(date +%s) signal=TERM

part() { # NAME LIMIT COMMAND...
  name=$1 limit=$2
  shift 2
  [ -e "$out/$name.done" ] && return
  left=$((${BUDGET:-840} - $(date +%s) + began))
  [ -n "${REHEARSAL:-}" ] && limit=$left
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 10 ]; then
    echo "$name: no time left" | tee -a "$out/summary.txt"
    return
  fi
  at=$(date +%s)
  timeout -s "$signal" -k 10 "$limit" "$@" >"$out/$name.txt" 2>&1
  code=$?
  [ "$code" -eq 0 ] && : >"$out/$name.done"
  case $code in 0) said="done" ;; 124 | 137) said="cut off" ;; *) said="failed ($code)" ;; esac
  echo "$name: $said after $(($(date +%s) - at)) s: $(tail -n 1 "$out/$name.txt")" | tee -a "$out/summary.txt"
}

tests() { # NAME LIMIT FILES AND OPTIONS...: a line for each as it ends; failures in NAME.failures as they come
  name=$1 limit=$2
  shift 2
  # For tests alone, which want the same bits twice: it makes each product of cuBLAS 50 us slower on the host (0083).
  signal=INT # pytest then ends by itself, and tells of what failed
  part "$name" "$limit" env CUBLAS_WORKSPACE_CONFIG=:4096:8 "$PYTHON" -m pytest $workers -vv \
    -p no:cacheprovider --durations=5 --tb=short --failures="$out/$name.failures" "$@"
  signal=TERM
  [ -e "$out/$name.failures" ] && grep -E '^(FAILED|ERROR|CUT OFF) ' "$out/$name.failures" | tee -a "$out/summary.txt"
}

script() { # NAME LIMIT SCRIPT OPTIONS...
  name=$1 limit=$2
  shift 2
  part "$name" "$limit" "$PYTHON" $by "benchmarks/$@"
}

if [ -n "${REHEARSAL:-}" ]; then
  workers=--collect-only by=benchmarks/gpu_rehearsal.py small="--hidden 16" own="--steps 3 --batch 2 --hidden 16"
  command="$by cellwise" tuned=3,2,16,16 few="--repeats 3 --seconds 0.1"
  CELLWISE_CACHE=$(mktemp -d) && export CELLWISE_CACHE # layouts that it finds are for no device
else
  workers="-n auto" by= small= own=
  command="-m cellwise" tuned="256,64,512,512 512,64,256,256" few=
fi
part machine 60 "$PYTHON" -c "import torch, cellwise; print(cellwise.__version__, torch.__version__, torch.version.cuda)
print(torch.cuda.get_device_properties(0) if torch.cuda.is_available() else 'no GPU')"
tests tests 300 tests/gpu tests/nn/test_cuda.py
script gpu 120 gpu.py --cell lstm gru --rounds 3
script beside 60 gpu_beside_lstm.py --rounds 3
script beside-float32 60 gpu_beside_lstm.py --rounds 3 --dtype float32 --hidden 64 128
script cells 100 gpu_cells.py --rounds 3
script host 60 gpu_host.py --rounds 3 $small
script streams 45 gpu_host.py --streams --rounds 3 $small
script cells-float32 60 gpu_cells.py --rounds 3 --dtype float32 --hidden 64 256
script own 60 gpu_own_cell.py $own
script float32 60 gpu.py --cell lstm --rounds 3 --dtype float32 tf32
for shape in $tuned; do
  part "tune-$shape" 60 "$PYTHON" $command bench lstm --device cuda --tune --dtype bfloat16 \
    --shapes "$shape" --modes forward,train $few --out "$out/bench-$shape"
done
script table 120 gpu.py --cell lstm gru --dtype bfloat16 float16 float32 tf32 --table "$out/measured.csv"
