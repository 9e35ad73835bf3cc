"""The models to measure, and every library a user could run them with, behind one interface.

A contender is a class constructed from a `Net` and a precision. It has `train(images, labels)` and
`infer(images)` for channels-last NumPy arrays, `train_from_files(folder, batch)`, `build()`,
`save(folder)` and `load(folder)`, or only `infer`. Contenders that are not installed are skipped.
"""

import importlib.util
import itertools
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# The PyTorch models that generate the golden fixtures.
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


@dataclass(frozen=True)
class Net:
    """A model: its builder, image size in pixels, classes, and multiply-adds per image."""

    builder: str
    size: int
    classes: int
    multiply_adds: float


NETS = {
    "ResNet-18": Net("ResNet18", 224, 1000, 1.814e9),
    "ResNet-50": Net("ResNet50", 224, 1000, 4.089e9),
    "ResNeXt-50": Net("ResNeXt50_32x4d", 224, 1000, 4.230e9),
    "CIFAR ResNet-20": Net("CIFARResNet", 32, 10, 40.6e6),
    "ResNet-152": Net("ResNet152", 224, 1000, 11.51e9),
}
LEARNING_RATE, MOMENTUM = 0.01, 0.9
DEVICE = os.environ.get("BENCHMARKS_DEVICE", "cpu")  # or "cuda"
WEIGHTS = "BENCHMARKS_WEIGHTS"  # a file of weights for `Compiled`; otherwise they are random
EPOCHS = 3  # of training from files; the first one includes start-up


def between(ends: list[float]) -> float:
    """Return the median seconds per epoch, given the times at which the epochs ended."""
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


class Ours:
    """keras_resnet with default settings."""

    nets = tuple(NETS)

    def __init__(self, net: Net, precision: str):
        import keras

        keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
        self.net = net
        self.model = self.build()
        self.model.compile(
            keras.optimizers.SGD(LEARNING_RATE, MOMENTUM),
            "sparse_categorical_crossentropy",
            # On a CPU, XLA makes training 2 to 100 times slower.
            jit_compile="auto" if DEVICE == "cuda" else False,
        )

    def build(self):
        import keras_resnet

        builder = getattr(keras_resnet, self.net.builder)
        if self.net.builder == "CIFARResNet":
            return builder(20)
        return builder(weights=None, input_shape=(self.net.size, self.net.size, 3))

    def train(self, images, labels):
        self.model.train_on_batch(images, labels)

    def infer(self, images):
        self.model.predict_on_batch(images)

    def train_from_files(self, folder, batch):
        """Return the seconds per epoch over a folder of JPEG files, flipped and shifted."""
        from keras_resnet import data

        images = data.batches(
            data.load(folder).train,
            image_size=self.net.size,
            batch_size=batch,
            augmentation="small photograph",
        )
        return self._epoch(images)

    def _epoch(self, images):
        """Normalize and train on a dataset, and return the seconds per epoch."""
        import keras

        images = images.map(lambda images, labels: (images / 127.5 - 1.0, labels))
        ends = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
        )
        self.model.fit(images, epochs=EPOCHS, callbacks=[clock], verbose=0)
        return between(ends)

    def save(self, folder):
        self.model.save(folder / "model.keras")

    def load(self, folder):
        import keras

        keras.saving.load_model(folder / "model.keras")


class Compiled:
    """`export.compiled`, with default settings."""

    nets = tuple(NETS)

    def __init__(self, net: Net, precision: str):
        import keras_resnet

        builder = getattr(keras_resnet, net.builder)
        shape = (net.size, net.size, 3)
        self.model = builder(weights=os.environ.get(WEIGHTS) or None, input_shape=shape)
        self.precision, self.asks = precision, {}

    def infer(self, images):
        from keras_resnet import export

        batch = len(images)
        if batch not in self.asks:
            options = dict(precision=self.precision, verified=False, verbose=False)
            self.asks[batch] = export.compiled(self.model, images=images, **options)
        self.asks[batch](images)


class Twin(Ours):
    """The keras_resnet models built from stock Keras layers."""

    def build(self):
        return stock_twin(super().build())

    def train_from_files(self, folder, batch):
        import keras
        import tensorflow as tf

        from keras_resnet.data import AUGMENTATIONS

        images = keras.utils.image_dataset_from_directory(
            folder / "train", image_size=(self.net.size,) * 2, batch_size=batch, verbose=False
        )
        moved = AUGMENTATIONS["small photograph"].layers()
        vary = keras.Sequential([keras.layers.RandomFlip("horizontal"), *moved])
        images = images.map(
            lambda images, labels: (vary(images, training=True), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return self._epoch(images.prefetch(tf.data.AUTOTUNE))


def stock_twin(model):
    """Rebuild a model from stock Keras layers, with the same weights."""
    import keras

    from keras_resnet.layers import BatchNormalization, Conv2D, GroupedConv2D
    from keras_resnet.layers.view import VIEW

    def stock(layer):
        config = layer.get_config()
        for ours, keras_layer in (
            (GroupedConv2D, keras.layers.Conv2D),
            (Conv2D, keras.layers.Conv2D),
            (BatchNormalization, keras.layers.BatchNormalization),
        ):
            if type(layer) is ours:
                own = ("normalization", *VIEW) if ours is Conv2D else ()
                return keras_layer.from_config({k: config[k] for k in config if k not in own})
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=stock)
    twin.set_weights(model.get_weights())
    return twin


class KerasApplications(Ours):
    """`keras.applications`."""

    nets = ("ResNet-50", "ResNet-152")

    def build(self):
        import keras

        builder = getattr(keras.applications, self.net.builder)
        return builder(weights=None, input_shape=(self.net.size, self.net.size, 3))


class KerasHub(Ours):
    """The KerasHub backbone, with the same head as ours."""

    nets = ("ResNet-18", "ResNet-50", "ResNet-152")

    def build(self):
        import keras
        import keras_hub

        basic = self.net.builder == "ResNet18"
        counts = {"ResNet18": [2, 2, 2, 2], "ResNet50": [3, 4, 6, 3], "ResNet152": [3, 8, 36, 3]}
        backbone = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=counts[self.net.builder],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="basic_block" if basic else "bottleneck_block",
            image_shape=(self.net.size, self.net.size, 3),
        )
        features = keras.layers.GlobalAveragePooling2D()(backbone.output)
        outputs = keras.layers.Dense(self.net.classes, activation="softmax", dtype="float32")
        return keras.Model(backbone.input, outputs(features))


class PyTorch:
    """Eager PyTorch, channels first (its default)."""

    nets = tuple(NETS)
    compiled, channels_last = False, False

    def __init__(self, net: Net, precision: str):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.net, self.torch = net, torch
        self.format = torch.channels_last if self.channels_last else torch.contiguous_format
        torch.set_float32_matmul_precision("high")  # tf32 on a GPU, as in TensorFlow and JAX
        self.module = self.build()
        self.optimizer = torch.optim.SGD(self.module.parameters(), LEARNING_RATE, MOMENTUM)
        self.loss = torch.nn.CrossEntropyLoss()
        # torch.compile makes separate graphs for training and inference mode.
        self.forward = torch.compile(self.module) if self.compiled else self.module
        self.half = precision == "bfloat16"

    def build(self):
        module = torch_net(self.net.builder)
        for layer in module.modules():
            if isinstance(layer, self.torch.nn.ReLU):
                layer.inplace = True  # as in torchvision
        return module.to(DEVICE, memory_format=self.format)

    def _autocast(self):
        """Return the autocast context for this precision."""
        return self.torch.autocast(DEVICE, self.torch.bfloat16, enabled=self.half)

    def _images(self, images):
        """Move channels-last NumPy images to the device, in PyTorch's layout."""
        images = self.torch.from_numpy(images).to(DEVICE).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.format)

    def train(self, images, labels):
        self._step(self._images(images), self.torch.from_numpy(labels))

    def _step(self, images, labels):
        """Run one training step and return its loss."""
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.loss(self.forward(images), labels.to(DEVICE))
        loss.backward()
        self.optimizer.step()
        return loss.item()  # Keras reads the loss at every step, too

    def infer(self, images):
        self.module.eval()
        with self.torch.inference_mode(), self._autocast():
            self.forward(self._images(images)).softmax(-1).float().cpu().numpy()

    def train_from_files(self, folder, batch):
        import PIL.Image
        import torch

        classes = sorted((folder / "train").iterdir())
        files = [(file, label) for label, each in enumerate(classes) for file in each.iterdir()]
        size = self.net.size

        class Files(torch.utils.data.Dataset):
            def __len__(self):
                return len(files)

            def __getitem__(self, index):
                file, label = files[index]
                image = PIL.Image.open(file).convert("RGB")
                image = image.resize((size, size), PIL.Image.Resampling.BILINEAR)
                pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
                pixels = pixels.view(size, size, 3).permute(2, 0, 1)
                margin = size // 8
                pixels = torch.nn.functional.pad(pixels, (margin,) * 4)
                top, left = torch.randint(0, 2 * margin + 1, (2,)).tolist()
                pixels = pixels[:, top : top + size, left : left + size]
                if torch.rand(()) < 0.5:
                    pixels = pixels.flip(-1)
                return pixels.float() / 127.5 - 1.0, label

        loader = torch.utils.data.DataLoader(
            Files(),
            batch_size=batch,
            shuffle=True,
            num_workers=len(os.sched_getaffinity(0)),
            persistent_workers=True,
        )
        ends = []
        for _ in range(EPOCHS):
            for images, labels in loader:
                images = images.to(DEVICE).contiguous(memory_format=self.format)
                self._step(images, labels)
            ends.append(time.perf_counter())
        return between(ends)

    def save(self, folder):
        self.torch.save(self.module.state_dict(), folder / "model.pth")

    def load(self, folder):
        self.build().load_state_dict(self.torch.load(folder / "model.pth", weights_only=True))


class PyTorchChannelsLast(PyTorch):
    """Eager PyTorch, channels last."""

    channels_last = True


class PyTorchCompiled(PyTorch):
    """PyTorch with `torch.compile`."""

    compiled = True


class PyTorchCompiledChannelsLast(PyTorch):
    """PyTorch with `torch.compile`, channels last."""

    compiled, channels_last = True, True


class PyTorchFrozen(PyTorchCompiledChannelsLast):
    """The same, for inference only: weights are constants, batch normalization is folded."""

    def __init__(self, net: Net, precision: str):
        import torch._inductor.config

        torch._inductor.config.freezing = True
        super().__init__(net, precision)


class Torchvision(PyTorchCompiledChannelsLast):
    """The torchvision model with `torch.compile`, channels last."""

    nets = ("ResNet-18", "ResNet-50", "ResNeXt-50")

    def build(self):
        import torchvision

        module = getattr(torchvision.models, self.net.builder.lower())()
        return module.to(DEVICE, memory_format=self.format)


def torch_net(builder: str):
    sys.path.insert(0, str(GOLDEN))
    import make_golden

    if builder == "CIFARResNet":
        return make_golden.CIFARResNet(20)
    return make_golden.ResNet(*make_golden.IMAGENET_NETS[builder])


class OpenVINO:
    """Our exported SavedModel in OpenVINO, in the given precision."""

    nets = tuple(NETS)

    def __init__(self, net: Net, precision: str):
        import tempfile

        import openvino

        with tempfile.TemporaryDirectory() as folder:
            Ours(net, "float32").model.export(folder, format="tf_saved_model", verbose=False)
            model = openvino.convert_model(folder)
            options = {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]
            }
            self.compiled = openvino.compile_model(model, "CPU", options)

    def infer(self, images):
        self.compiled(images)


class ONNXRuntime:
    """Our model in ONNX Runtime."""

    nets = tuple(NETS)

    def __init__(self, net: Net, precision: str):
        import tempfile

        import keras
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            model = Ours(net, "float32").model
            signature = [keras.InputSpec(shape=model.input_shape, dtype="float32")]
            model.export(path, format="onnx", verbose=False, input_signature=signature)
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def infer(self, images):
        self.session.run(None, {self.input: images})


_BOTH = ("float32", "bfloat16")
# By name in the report: the class, its precisions, and the modules it imports.
CONTENDERS = {
    "keras_resnet": (Ours, _BOTH, ("keras",)),
    "stock Keras twin": (Twin, _BOTH, ("keras",)),
    "keras.applications": (KerasApplications, _BOTH, ("keras",)),
    "KerasHub": (KerasHub, _BOTH, ("keras_hub",)),
    "PyTorch": (PyTorch, _BOTH, ("torch",)),
    "PyTorch channels_last": (PyTorchChannelsLast, _BOTH, ("torch",)),
    "PyTorch compiled": (PyTorchCompiled, _BOTH, ("torch",)),
    "PyTorch compiled channels_last": (PyTorchCompiledChannelsLast, _BOTH, ("torch",)),
    "torchvision compiled channels_last": (Torchvision, _BOTH, ("torch", "torchvision")),
    "ONNX Runtime": (ONNXRuntime, ("float32",), ("keras", "tf2onnx", "onnxruntime")),
    "OpenVINO": (OpenVINO, _BOTH, ("keras", "openvino")),
}
OF_INFERENCE = {
    "keras_resnet compiled": (Compiled, _BOTH, ("keras",)),
    "PyTorch compiled channels_last, frozen": (PyTorchFrozen, _BOTH, ("torch",)),
}
"""Contenders for inference only, which `benchmarks.inference` measures."""
EVERYONE = CONTENDERS | OF_INFERENCE
