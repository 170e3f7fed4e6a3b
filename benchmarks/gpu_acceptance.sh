#!/usr/bin/env bash
# Whether everything works on this machine's GPU, and how fast: about ten minutes.
#     bash benchmarks/gpu_acceptance.sh FOLDER [PYTHON]
# Tests of devices, teachers and students with and without --compile, a recording of paths, two deterministic runs that
# must be equal and a third that is stopped and resumed, the benchmark of steps. Images are made up. FOLDER gets a log a
# part, results.txt and the runs; a part that takes too long is ended and the next begins. Exit code 1 when one failed.
# On a CPU, to try this script: DEVICE=cpu QUICK=1.
set -uo pipefail
mkdir -p "$1"
OUT=$(realpath "$1") PYTHON=$(realpath -s "${2:-python3}") DEVICE=${DEVICE:-cuda} QUICK=${QUICK:-}
CODE=$(realpath "$(dirname "$0")/..") FAILED=0
export PYTHONPATH=$CODE
cd "$OUT"

note() {  # NAME EXIT_CODE SECONDS
    [ "$2" = 0 ] || FAILED=1
    printf '%-6s exit %3d %5d s  %s\n' "$([ "$2" = 0 ] && echo ok || echo FAILED)" "$2" "$3" "$1" | tee -a results.txt
}

part() {  # NAME LIMIT_IN_SECONDS WORDS...
    local name=$1 limit=$2 began=$SECONDS
    shift 2
    timeout --kill-after 30 "$limit" "$PYTHON" "$@" >"$name.log" 2>&1
    note "$name" $? $((SECONDS - began))
}

run() {  # NAME SCRIPT FLAGS...
    local name=$1 script=$2
    shift 2
    part "$name" 120 "$CODE/$script.py" --device "$DEVICE" --proj_name a --run_name "$name" ${QUICK:+--batch_size 20} "$@"
}

"$PYTHON" - "${QUICK:+200}" <<'EOF'
import sys
import numpy as np
rng, sizes = np.random.default_rng(0), {"train": int(sys.argv[1] or 50_000), "test": 100}
images = {f"{split}_images": rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for split, n in sizes.items()}
np.savez("images.npz", **images, **{f"{split}_labels": np.arange(n) % 10 for split, n in sizes.items()})
EOF
DATA="--dataset npz --data_dir images.npz"
NETS=$([ "$QUICK" ] && echo smallcnn || echo smallcnn resnet18)
COMPILE=$([ "$QUICK" ] && echo off || echo off on)
KINDS=$([ "$QUICK" ] && echo auto || echo "$DEVICE or gpu")

part tests 240 -m pytest -p no:cacheprovider --rootdir "$CODE" -k "$KINDS" \
    "$CODE"/tests/{test_devices.py,supervision/test_table.py}
for net in $NETS; do
    for compile in $COMPILE; do
        run "teacher_${net}_$compile" main_gen_teacher $DATA --net "$net" --compile "$compile" --epochs 3
        run "student_${net}_$compile" main_distill --teach_path "results/a/${net}teacher_${net}_$compile" --net "$net" \
            --compile "$compile" --epochs 2
    done
done
run paths main_gen_path $DATA --net smallcnn --epochs 2 --fine_every 9

EQUAL="$DATA --net $net --epochs 3 --deterministic"
run first main_gen_teacher $EQUAL
run second main_gen_teacher $EQUAL
"$PYTHON" "$CODE/main_gen_teacher.py" $EQUAL --device "$DEVICE" --proj_name a --run_name third ${QUICK:+--batch_size 20} \
    >third.log 2>&1 &
until [ -f "results/a/${net}third/metrics.csv" ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
kill -TERM $! 2>/dev/null
wait $!
run resumed main_gen_teacher $EQUAL --resume --run_name third
for file in epoch_2.pt epoch_2.npy; do
    for other in second third; do
        cmp -s results/a/${net}{first,$other}/$file
        note "$file of first and $other are equal" $? 0
    done
done
part steps 240 -m benchmarks --device "$DEVICE" --only steps ${QUICK:+--quick}
exit $FAILED
