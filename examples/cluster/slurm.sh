#!/bin/bash
# ResNet-50 on 4 nodes with 8 GPUs each. Submit once: `sbatch examples/cluster/slurm.sh`.
#
# Each node runs one task that uses all of its GPUs. A minute before the time limit, and on
# preemption if Slurm is configured to signal it, all tasks get SIGTERM, save their state and exit.
# The job is then requeued and resumes. The folders must be the same on all nodes.

#SBATCH --job-name=resnet50
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

data=/data/imagenet
output=runs/resnet50
retries=10 # after failures

# Put keras-resnet on the path here, for example with `source .venv/bin/activate`.

# srun does not inherit --cpus-per-task from sbatch. Do not kill tasks when another one fails: they
# notice, and report which worker they lost.
code=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-64}" --kill-on-bad-exit=0 \
    keras-resnet train --strategy multiworker --data "$data" --output "$output" \
    --model ResNet50 --recipe modern --batch-size 8192 --precision float16 --save-every 500 ||
    code=$?

# Code 0 with checkpoints left is a run that was asked to stop; 2 is a mistake that would fail again.
again=no
if [ "$code" -eq 0 ]; then
    if [ -d "$output/checkpoints" ]; then again=yes; fi
elif [ "$code" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$retries" ]; then
    again=yes
fi
# Do not requeue a cancelled job.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if [ "$again" = yes ] && [ "$state" = RUNNING ]; then
    echo "Exit code $code: requeuing the job to resume from the latest checkpoint."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
