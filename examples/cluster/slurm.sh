#!/bin/bash
# ResNet-50 on 4 nodes of 8 GPUs: `sbatch examples/cluster/slurm.sh`, and once is enough.
#
# One task a node has all GPUs of the node. A minute before the time is over, and on preemption
# where Slurm is configured to say so, all tasks are sent SIGTERM, save their state and end; the job
# then comes again and goes on. The folders must be the same on all nodes.

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

# Here: what makes keras-resnet known, such as `source .venv/bin/activate`.

# srun does not take the number of cores over from sbatch. No task is killed because another one has
# failed: they notice, and say what they have lost.
code=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-64}" --kill-on-bad-exit=0 \
    keras-resnet train --strategy multiworker --data "$data" --output "$output" \
    --model ResNet50 --recipe modern --batch-size 8192 --precision float16 --save-every 500 ||
    code=$?

# Code 0 with checkpoints is a run that was asked to end; 2 is a mistake, which would come again.
again=no
if [ "$code" -eq 0 ]; then
    if [ -d "$output/checkpoints" ]; then again=yes; fi
elif [ "$code" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$retries" ]; then
    again=yes
fi
# Not where somebody has cancelled the job.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if [ "$again" = yes ] && [ "$state" = RUNNING ]; then
    echo "Code $code: the job comes again and goes on from the newest checkpoint."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
