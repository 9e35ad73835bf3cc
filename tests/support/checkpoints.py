"""Files of weights for the tests: PyTorch's, written without PyTorch, and all others.

The layouts of PyTorch's files are those of torch/serialization.py, and `torch.load` reads what
comes of them. Arrays that are views of one array become tensors that share its storage, as views do
in PyTorch: `np.broadcast_to(np.zeros(1), shape)` is a tensor of any shape with a storage of one
number.
"""

import functools
import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict

import h5py
import keras
import ml_dtypes
import numpy as np
import safetensors.numpy

from keras_resnet.pretrained import to_torch

MAGIC = 0x1950A86A20F9469CFC6C

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

STORAGES = {
    "float64": "torch.DoubleStorage",
    "float32": "torch.FloatStorage",
    "float16": "torch.HalfStorage",
    "bfloat16": "torch.BFloat16Storage",
    "int64": "torch.LongStorage",
    "int32": "torch.IntStorage",
    "int16": "torch.ShortStorage",
    "int8": "torch.CharStorage",
    "uint8": "torch.ByteStorage",
    "bool": "torch.BoolStorage",
}


class Parameter:
    """An array that is written as an `nn.Parameter`."""

    def __init__(self, array):
        self.array = array


class _Name:
    """Something of PyTorch's that a pickle names, which cannot be imported here."""

    def __init__(self, path):
        self.module, _, self.name = path.rpartition(".")

    def __call__(self):
        """Never called: pickle only asks whether it could be."""


# The same object each time, which is what makes a pickle refer back to the first time.
_name = functools.cache(_Name)


class _Storage:
    def __init__(self, array):
        self.array = array


class _Pickler(pickle._Pickler):
    """A pickler that writes arrays as PyTorch writes tensors, and collects their storages."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file, protocol, legacy):
        super().__init__(file, protocol)
        self.legacy = legacy
        self.storages = {}
        self._keys = {}

    def reducer_override(self, value):
        empty = OrderedDict()  # of backward hooks
        if isinstance(value, Parameter):
            return _name("torch._utils._rebuild_parameter"), (value.array, True, empty)
        if isinstance(value, np.ndarray):
            size = value.itemsize
            storage = value
            while isinstance(storage.base, np.ndarray):
                storage = storage.base
            offset = (value.ctypes.data - storage.ctypes.data) // size
            strides = tuple(stride // size for stride in value.strides)
            tensor = _Storage(storage), offset, value.shape, strides, False, empty
            return _name("torch._utils._rebuild_tensor_v2"), tensor
        return NotImplemented

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        array = value.array
        # Before 1.6, the keys were addresses in memory.
        number = 94300000000000 + 64 * len(self._keys) if self.legacy else len(self._keys)
        key = self._keys.setdefault(id(array), str(number))
        # Transposed arrays lie in memory in another order than their axes.
        self.storages[key] = array.ravel("K")
        kind = _name(STORAGES[array.dtype.name])
        identity = "storage", kind, key, "cpu", array.size
        return (*identity, None) if self.legacy else identity

    def _save_name(self, value):
        if self.proto >= 4:
            self.save(value.module)
            self.save(value.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        self.memoize(value)

    dispatch[_Name] = _save_name


def pickled(checkpoint, protocol=2, *, legacy=False):
    """The pickle of a checkpoint, and the arrays that are its storages by their keys."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol, legacy)
    pickler.dump(checkpoint)
    return file.getvalue(), pickler.storages


def as_zip(checkpoint, protocol=2, root="archive"):
    """A checkpoint as `torch.save` has written it since PyTorch 1.6."""
    pickle_, storages = pickled(checkpoint, protocol)
    data = {f"{root}/data/{key}": array.tobytes() for key, array in storages.items()}
    return zip_of(
        {f"{root}/data.pkl": pickle_, f"{root}/byteorder": b"little", **data}
        | {f"{root}/version": b"3\n"}
    )


def zip_of(members):
    """A ZIP archive of uncompressed members, the bytes of each aligned as PyTorch does."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            padding = -(file.tell() + 30 + len(name) + 4) % 64
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(info, content)
    return file.getvalue()


def as_legacy(checkpoint, protocol=2):
    """A checkpoint as `torch.save` wrote it before PyTorch 1.6."""
    return legacy_of(*pickled(checkpoint, protocol, legacy=True), protocol=protocol)


def legacy_of(pickle_, storages, protocol=2):
    """A file of the format before PyTorch 1.6 around a pickle."""
    sizes = {"short": 2, "int": 4, "long": 4}
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    keys = sorted(storages)
    return b"".join(
        [
            *(pickle.dumps(each, protocol) for each in (MAGIC, 1001, machine)),
            pickle_,
            pickle.dumps(keys, protocol),
            *(struct.pack("<q", storages[key].size) + storages[key].tobytes() for key in keys),
        ]
    )


class _TarPickler(_Pickler):
    def reducer_override(self, value):
        if isinstance(value, Parameter):
            # The tensor, its gradient, hooks, and whether it is trained: set once it was made.
            state = value.array, None, OrderedDict(), True, False
            return _name("torch.nn.parameter.Parameter"), (), state
        return NotImplemented

    def persistent_id(self, value):
        if not isinstance(value, np.ndarray):
            return None
        key = str(94300000000000 + 64 * len(self.storages))
        self.storages[key] = value
        return key


def as_tar(checkpoint):
    """A checkpoint of whole arrays as `torch.save` wrote it before PyTorch 0.1.10."""
    file = io.BytesIO()
    pickler = _TarPickler(file, 2, legacy=True)
    pickler.dump(checkpoint)
    count = pickle.dumps(len(pickler.storages), 2)
    storages, tensors = [count], [count]
    for key, array in pickler.storages.items():
        kind = _name(STORAGES[array.dtype.name])
        storages += [pickled((int(key) + 1, "cpu", kind))[0], struct.pack("<q", array.size)]
        storages += [array.tobytes()]
        tensors += [pickled((int(key), int(key) + 1, _name("torch.FloatTensor")))[0]]
        strides = [stride // array.itemsize for stride in array.strides]
        tensors += [struct.pack(f"<{2 * array.ndim + 2}q", array.ndim, *array.shape, *strides, 0)]
    storages += [pickle.dumps([], 2)]  # views of storages

    sizes = {"short": 2, "int": 4, "long": 8}
    machine = {"protocol_version": 1000, "little_endian": True, "type_sizes": sizes}
    return tar_of(
        {
            "sys_info": pickle.dumps(machine, 2),
            "pickle": file.getvalue(),
            "tensors": b"".join(tensors),
            "storages": b"".join(storages),
        }
    )


def tar_of(members):
    """A TAR archive with headers of the kind that PyTorch's had."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            # A fraction of a second takes a header of its own.
            info.size, info.mtime = len(content), 0.5
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def as_arrays(arrays, protocol=3):
    """A pickle of NumPy arrays, as detectron2 publishes its models."""
    content = {"model": arrays, "__author__": "Detectron2", "matching_heuristics": True}
    return pickle.dumps(content, protocol)


def as_safetensors(arrays):
    """Arrays as a `.safetensors` file."""
    return safetensors.numpy.save({name: array.copy() for name, array in arrays.items()})


def wrapped(state_dict, prefix="module."):
    """A state dict as training scripts save it: among other things, under the names of wrappers."""
    return {
        "epoch": 3,
        "arch": "resnet",
        "state_dict": OrderedDict((prefix + name, array) for name, array in state_dict.items()),
        "best_prec1": 76.5,
        "best_acc1": np.array(76.5, "float32"),
        "optimizer": {
            "state": {0: {"step": 7, "momentum_buffer": np.ones(2, "float32")}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "nesterov": False, "params": [0]}],
        },
    }


def write_keras_2(path, model, biases=()):
    """Write weights as Keras 2 did, and the files of keras.applications are."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["layer_names"] = [layer.name for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{each.name}:0" for each in layer.weights]
            for variable in layer.weights:
                group[f"{layer.name}/{variable.name}:0"] = np.asarray(variable)
            if layer.name in biases:
                group[f"{layer.name}/bias:0"] = biases[layer.name]


def _write_model(path, model):
    """Write a whole model as Keras 2 did, with the state of its optimizer."""
    copy = keras.models.clone_model(model)
    copy.compile(keras.optimizers.Adam(), "mse")
    copy.train_on_batch(np.zeros((1, *model.input_shape[1:])), np.zeros((1, model.output_shape[1])))
    copy.set_weights(model.get_weights())
    copy.save(path)


def _write_bytes(write):
    return lambda path, model: path.write_bytes(write(to_torch(model)))


# How to write the weights of a model, by the suffixes that such files have.
WRITERS = {
    ".pth": _write_bytes(as_zip),
    ".th": _write_bytes(as_legacy),
    ".tar.pth": _write_bytes(as_tar),
    ".pkl": _write_bytes(as_arrays),
    ".safetensors": _write_bytes(as_safetensors),
    ".h5": write_keras_2,
    ".model.h5": _write_model,
    ".weights.h5": lambda path, model: model.save_weights(path),
    ".keras": lambda path, model: model.save(path),
}
