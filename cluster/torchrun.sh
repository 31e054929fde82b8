#!/bin/bash
# Trains on machines that torchrun joins, and goes on by itself after a process died. On every machine:
#   NODES=2 DEVICES=4 ENDPOINT=FIRST-MACHINE:29500 JOB=lenet \
#       cluster/torchrun.sh --config configs/classification/lenet.yaml [any option of fit]
# On one machine DEVICES is enough. The same with checks: python cli.py launch torchrun --help
set -euo pipefail
NODES=${NODES:-1}
DEVICES=${DEVICES:-1}
MAX_RESTARTS=${MAX_RESTARTS:-3}
ENDPOINT=${ENDPOINT:-localhost:0}
JOB=${JOB:-leyden}
# module load ..., conda activate ...: what a shell needs before python
# torchrun would try for minutes: say at once what is wrong with the place where the machines meet
host=${ENDPOINT%:*} port=${ENDPOINT##*:}
host=${host#[} host=${host%]}
if ! addresses=$(getent ahosts "$host"); then
    echo "error: the meeting point $ENDPOINT cannot be used: $(hostname) knows no host '$host'." >&2
    exit 2
fi
for own in 127.0.0.1 ::1 $(hostname -I); do
    if [ "$port" != 0 ] && grep -q "^$own " <<< "$addresses" && (: < "/dev/tcp/$own/$port") 2> /dev/null; then
        echo "error: the meeting point $ENDPOINT cannot be used: the port is in use here. Choose another." >&2
        exit 2
    fi
done
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PYTHONUNBUFFERED=1
# Without it gloo cannot connect again after a process was replaced.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# When a process fails, all are ended and started again by this same line, which goes on where the run was.
exec python -m leyden.agent --nnodes="$NODES" --nproc-per-node="$DEVICES" --max-restarts="$MAX_RESTARTS" \
    --rdzv-backend=c10d --rdzv-endpoint="$ENDPOINT" --rdzv-id="$JOB" \
    -m leyden.main fit "$@" \
    --resume auto --trainer.num_nodes "$NODES" --trainer.devices "$DEVICES"
