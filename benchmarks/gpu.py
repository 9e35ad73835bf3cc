"""ResNet-50 and ResNeXt-50 on one GPU, against PyTorch: `python -m benchmarks.gpu`.

Needs JAX and PyTorch, but not TensorFlow: keras_resnet runs on Keras' JAX backend, PyTorch runs the
transcription of torchvision's models in tests/golden. Measures training and inference, in bfloat16
and in tf32, with batches of 64 and 256: images per second, peak memory, and the throughput as a
fraction of the GPU's rate of a large bfloat16 matrix product. Images stay on the GPU. All three
contenders are prepared for the same work at once, which takes as long as the slowest compiler, and
are then measured in turns, one at a time.

Takes less than eight minutes: the most important work comes first, and what has not begun
`--seconds` after the start is skipped. A second run continues from there and is faster, since
compiled functions are cached. Writes a file into `results/gpus` and the GPU's section of
`RESULTS.md`. `--rehearse` does the same on a CPU, with tiny sizes, and writes nothing. Without a
GPU, prints a message and exits with code 0.
"""

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import benchmarks.machine
from benchmarks.contenders import LEARNING_RATE, MOMENTUM, NETS, installed, torch_net
from benchmarks.machine import slug
from benchmarks.report import write_report
from benchmarks.worker import Conversation, answers

LIBRARIES = ("keras_resnet", "PyTorch channels_last", "PyTorch compiled channels_last")
# The most important first.
WORK = [
    {"net": net, "work": work, "batch": batch, "precision": precision, "size": 224}
    for precision in ("bfloat16", "tf32")
    for batch in (256, 64)
    for work in ("train", "infer")
    for net in ("ResNet-50", "ResNeXt-50")
]
REHEARSAL = [
    {"net": "ResNet-18", "work": work, "batch": 2, "precision": precision, "size": 32}
    for work, precision in (("train", "bfloat16"), ("infer", "tf32"))
]
CACHE = Path.home() / ".cache" / "keras_resnet" / "jax"
SECONDS = 420  # after which no new work is started
ROUNDS, TURN = 3, 0.7  # turns of each library, and the minimum seconds of a turn
KEY = ("net", "work", "batch", "precision", "size", "library")
# As JAX recommends for GPUs: https://docs.jax.dev/en/latest/gpu_performance_tips.html.
XLA_FLAGS = "--xla_gpu_triton_gemm_any=true --xla_gpu_enable_latency_hiding_scheduler=true"


class OnJax:
    """keras_resnet on Keras' JAX backend: one jitted function per step, its state donated."""

    def __init__(self, net, work, batch, precision, device):
        import jax
        import keras
        import numpy as np

        import keras_resnet

        keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
        builder = getattr(keras_resnet, net.builder)
        model = builder(weights=None, input_shape=(net.size, net.size, 3))
        images, labels = _batch(np, net, batch)
        self.arguments = jax.device_put((images, labels))
        self.state = [[each.value for each in model.trainable_variables]]
        self.state += [[each.value for each in model.non_trainable_variables]]
        if work == "train":
            optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
            optimizer.build(model.trainable_variables)
            self.state += [[each.value for each in optimizer.variables]]
            function = jax.jit(_training_step(jax, keras, model, optimizer), donate_argnums=0)
        else:
            function = jax.jit(_inference(model), donate_argnums=0)
        self.function = function.lower(self.state, *self.arguments).compile()
        self.wait = jax.block_until_ready

    def step(self):
        answer, self.state = self.function(self.state, *self.arguments)
        return answer

    def peak_mebibytes(self):
        """The memory of the compiled function; outputs reuse the buffers of the donated state."""
        needs = self.function.memory_analysis()
        return (needs.argument_size_in_bytes + needs.temp_size_in_bytes) / 2**20


def _training_step(jax, keras, model, optimizer):
    """A function of the state and a batch that returns the loss and the next state."""
    loss = keras.losses.SparseCategoricalCrossentropy()

    def loss_of(trainable, others, images, labels):
        answers, others = model.stateless_call(trainable, others, images, training=True)
        return loss(labels, answers), others

    def step(state, images, labels):
        trainable, others, of_optimizer = state
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (value, others), gradients = gradient(trainable, others, images, labels)
        trainable, of_optimizer = optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return value, [trainable, others, of_optimizer]

    return step


def _inference(model):
    """A function of the state and a batch that returns the answers and the state."""

    def step(state, images, labels):
        answers, _ = model.stateless_call(*state, images, training=False)
        return answers, state

    return step


class OnTorch:
    """torchvision's model in PyTorch, channels last, with autocast to bfloat16 or in tf32."""

    compiled = False

    def __init__(self, net, work, batch, precision, device):
        import numpy as np
        import torch

        torch.compiler.reset()  # otherwise the previous model stays in memory
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # tf32, and for convolutions:
        torch.backends.cudnn.allow_tf32 = True
        self.torch, self.device, self.half = torch, device, precision == "bfloat16"
        self.module = torch_net(net.builder).to(device, memory_format=torch.channels_last)
        for layer in self.module.modules():
            if isinstance(layer, torch.nn.ReLU):
                layer.inplace = True  # as in torchvision
        self.module.train(work == "train")
        # On a CPU, inductor would spend minutes in a C++ compiler.
        how = {"backend": "inductor" if device == "cuda" else "eager"}
        self.forward = torch.compile(self.module, **how) if self.compiled else self.module
        self.optimizer = torch.optim.SGD(self.module.parameters(), LEARNING_RATE, MOMENTUM)
        self.loss = torch.nn.CrossEntropyLoss()
        images, labels = (torch.from_numpy(each).to(device) for each in _batch(np, net, batch))
        self.images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        self.labels = labels.long()
        self.step = self._train if work == "train" else self._infer
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _train(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.loss(self.forward(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def _infer(self):
        with self.torch.inference_mode(), self._autocast():
            return self.forward(self.images).softmax(-1)

    def _autocast(self):
        return self.torch.autocast(self.device, self.torch.bfloat16, enabled=self.half)

    def wait(self, _):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def peak_mebibytes(self):
        found = self.torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return found / 2**20


class OnTorchCompiled(OnTorch):
    """The same, with `torch.compile`."""

    compiled = True


def _batch(np, net, batch):
    """Random images and labels."""
    random = np.random.default_rng(0)
    images = random.normal(size=(batch, net.size, net.size, 3)).astype("float32")
    return images, random.integers(0, net.classes, batch).astype("int32")


def software(library: str) -> str:
    """Name a library and its version."""
    if library != LIBRARIES[0]:
        import torch

        return f"PyTorch {torch.__version__}"
    import jax
    import keras

    return f"Keras {keras.__version__} on JAX {jax.__version__}"


def matrix_rate(device: str, size: int) -> float:
    """Measure the multiply-adds per second of a bfloat16 matrix product, the best of ten runs."""
    import torch

    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(10):
            matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / 10)
    return size**3 / min(seconds[1:])


def serve(library: str, device: str) -> None:
    """Run as one library's process: prepare a piece of work, measure a turn of it, and so on."""
    answer = answers()
    answer(software=software(library))
    kinds = dict(zip(LIBRARIES, (OnJax, OnTorch, OnTorchCompiled), strict=True))
    prepared = None
    for line in sys.stdin:
        options = json.loads(line)
        work = options.pop("work")
        try:
            if work == "rate":
                answer(rate=matrix_rate(device, **options))
            elif work == "turn":
                answer(**_turn(prepared, **options))
            else:
                prepared = None
                gc.collect()  # free its memory before the next takes any
                start = time.perf_counter()
                net = dataclasses.replace(NETS[options["net"]], size=options["size"])
                chosen = (options[name] for name in ("batch", "precision"))
                prepared = kinds[library](net, options["of"], *chosen, device)
                prepared.wait(prepared.step())
                answer(first=time.perf_counter() - start, peak_mebibytes=prepared.peak_mebibytes())
        except Exception as error:  # such as too little memory: the next work may fit
            prepared = None
            answer(error=f"{type(error).__name__}: {str(error).splitlines()[0][:80]}")


def _turn(prepared, seconds):
    """Measure the seconds per step, over as many steps as take at least `seconds`."""
    prepared.wait(prepared.step())
    count, taken = 1, 0.0
    while taken < seconds:
        start = time.perf_counter()
        for _ in range(count):
            answer = prepared.step()
        prepared.wait(answer)
        taken = time.perf_counter() - start
        found, count = taken / count, max(2 * count, int(count * seconds / max(taken, 1e-6)) + 1)
    return {"seconds": found}


def compare(processes: dict[str, Conversation], work: dict, turn: float) -> list[dict]:
    """Prepare all libraries for a piece of work at once, then measure them in turns."""
    options = {name: work[name] for name in ("net", "batch", "precision", "size")}
    for process in processes.values():
        process.ask("prepare", of=work["work"], **options)
    found = {library: process.answer() for library, process in processes.items()}
    for each in found.values():
        if "error" not in each:
            each["seconds"] = []
    for _ in range(ROUNDS):
        for library, process in processes.items():
            if "error" not in found[library]:
                answer = process.do("turn", seconds=turn)
                if "error" in answer:
                    found[library] = answer
                else:
                    found[library]["seconds"].append(answer["seconds"])
    return [{**work, "library": library, **found[library]} for library in processes]


def gpu() -> str | None:
    """The name of the GPU; None if JAX or PyTorch does not see it."""
    found = _asked(
        "import jax, torch; found = torch.cuda.is_available() and jax.default_backend() == 'gpu';"
        "print(torch.cuda.get_device_name() if found else '')"
    )
    return found or None


def _flags() -> str:
    """`XLA_FLAGS` if this XLA knows them all, otherwise none: unknown flags abort the process."""
    code = "import jax; print(jax.jit(lambda x: x + 1)(1))"
    return XLA_FLAGS if _asked(code, XLA_FLAGS=XLA_FLAGS) == "2" else ""


def _asked(code, **environment):
    """What code prints in a process of its own, since looking for a GPU reserves its memory."""
    command, environment = [sys.executable, "-c", code], {**os.environ, **environment}
    asked = subprocess.run(command, capture_output=True, text=True, env=environment)
    return asked.stdout.strip()


def _kept(file, measured):
    """New measurements, and those of an earlier run that were not repeated."""
    former = json.loads(file.read_text())["measured"] if file.exists() else []
    found = {tuple(each[name] for name in KEY): each for each in [*former, *measured]}
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="start no new work after")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return

    start = time.perf_counter()
    missing = [name for name in ("jax", "torch", "keras") if not installed(name)]
    name = "CPU" if options.rehearse else None if missing else gpu()
    if missing or not name:
        reason = f"{', '.join(missing)} not installed" if missing else "JAX and PyTorch see none"
        print(f"No GPU to measure: {reason}.")
        return
    os.environ |= {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu" if options.rehearse else "cuda",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "" if options.rehearse else _flags()),
        # Three processes share the GPU.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CACHE)),
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    device = "cpu" if options.rehearse else "cuda"
    file = benchmarks.machine.RESULTS / "gpus" / f"{slug(name)}.json"
    done = {tuple(each[key] for key in KEY) for each in _kept(file, [])}
    plan = REHEARSAL if options.rehearse else WORK
    plan = sorted(plan, key=lambda each: _is_done(each, done))
    card, measured = {"device": name}, []
    processes = {
        library: Conversation([sys.executable, "-m", "benchmarks.gpu", "--serve", library, device])
        for library in LIBRARIES
    }
    try:
        versions = dict.fromkeys(each.startup["software"] for each in processes.values())
        card["software"] = f"{', '.join(versions)}."
        card["rate"] = processes[LIBRARIES[1]].do("rate", size=64 if options.rehearse else 8192)[
            "rate"
        ]
        for work in plan:
            if time.perf_counter() - start > options.seconds:
                print(f"Skipped for lack of time: {work}", flush=True)
                continue
            found = compare(processes, work, 0.01 if options.rehearse else TURN)
            measured += found
            for each in found:
                print(_line(each), flush=True)
            if not options.rehearse:
                file.parent.mkdir(exist_ok=True)
                content = {**card, "measured": _kept(file, measured)}
                file.write_text(json.dumps(content, indent=1) + "\n")
    finally:
        for process in processes.values():
            process.__exit__()
    if not options.rehearse:
        write_report()


def _is_done(work, done):
    """Whether a piece of work has been measured with all libraries."""
    return all(tuple({**work, "library": each}[key] for key in KEY) in done for each in LIBRARIES)


def _line(each):
    """A measurement as a line of text."""
    name = f"{each['net']}, {each['work']} {each['batch']}, {each['precision']}, {each['library']}"
    if "error" in each:
        return f"{name}: {each['error']}"
    rate = each["batch"] / min(each["seconds"])
    return f"{name}: {rate:,.0f} images/s, {each['peak_mebibytes']:,.0f} MiB"


if __name__ == "__main__":
    main()
