"""The same models on one GPU: `python -m benchmarks.gpu`.

Runs keras_resnet on the first Keras backend that sees a GPU, against PyTorch and, if installed,
torchvision: in float32, where all of them multiply in tf32, and in bfloat16. Images come from NumPy
arrays on all sides. Without a GPU, prints a message and exits with code 0.
"""

import argparse
import os
import subprocess
import sys

from benchmarks.contenders import NETS, installed
from benchmarks.measure import measure, peers_of
from benchmarks.report import print_ratios

# By Keras backend: code that checks whether it sees a GPU.
BACKENDS = {
    "tensorflow": "import tensorflow; found = tensorflow.config.list_physical_devices('GPU')",
    "jax": "import jax; found = [each for each in jax.devices() if each.platform == 'gpu']",
    "torch": "import torch; found = torch.cuda.is_available()",
}
WORK = {
    "ResNet-18": [("train", 128), ("infer", 128)],
    "ResNet-50": [("train", 128), ("infer", 128)],
    "ResNeXt-50": [("train", 128), ("infer", 128)],
    "CIFAR ResNet-20": [("train", 1024), ("infer", 1024)],
}


def sees_gpu(backend: str) -> bool:
    """Check in a separate process, because checking reserves GPU memory."""
    if not installed(backend):
        return False
    question = f"{BACKENDS[backend]}; raise SystemExit(0 if found else 1)"
    asked = subprocess.run([sys.executable, "-c", question], capture_output=True)
    return asked.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=list(BACKENDS), help="default: the first with a GPU")
    parser.add_argument(
        "--net", action="append", choices=list(WORK), help="measure this model only"
    )
    options = parser.parse_args()

    backends = [options.backend] if options.backend else list(BACKENDS)
    backend = next(filter(sees_gpu, backends), None)
    if backend is None:
        print(f"No GPU found with {', '.join(backends)}: nothing to measure.")
        return
    os.environ |= {
        "KERAS_BACKEND": backend,
        "BENCHMARKS_DEVICE": "cuda",
        # Several processes share the GPU, so none may reserve all of its memory.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    print(f"keras_resnet on the {backend} backend")
    for net in options.net or WORK:
        peers = [peer for peer in peers_of(net) if peer[0].startswith(("PyTorch", "torchvision"))]
        print_ratios({"nets": {net: measure(net, NETS[net].size, WORK[net], peers)}})


if __name__ == "__main__":
    main()
