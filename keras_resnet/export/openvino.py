"""Conversion by OpenVINO, and quantization by NNCF, for `export.openvino`."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.export.comparison import same
from keras_resnet.export.runtimes import PRECISION_OF, computes_bfloat16
from keras_resnet.export.single_files import Asked, archived, asking

_IN_FLOAT = ["MatMul"]  # quantized logits would make many classes equally likely
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_SILENT = {"CI": "true", "NNCF_CI": "1"}  # without these, NNCF reports to Google Analytics


def check_bfloat16() -> None:
    """Raise ValueError for a CPU without bfloat16, where OpenVINO would compute in float32."""
    if not computes_bfloat16():
        raise ValueError(
            "precision='bfloat16' cannot be verified on this CPU, which has no instructions for it "
            "(AVX512-BF16, AMX): choose 'float32' or 'int8', or verified=False for another machine."
        )


def write_openvino(asked: Asked, path: Path) -> dict:
    """Write an .xml file, and its .bin beside it; "int8" by plain quantization."""
    with archived(*asking(asked, batch_size=None)) as folder:
        model = _read(folder)
        if asked.precision == "int8":
            with _quiet_nncf() as nncf:
                model = nncf.quantize(
                    model,
                    _dataset(nncf, asked),
                    advanced_parameters=_for_every_cpu(nncf),
                    **_quantization(nncf, asked),
                )
        return {"accuracy_aware": False, **_saved(model, asked, path)}


def write_openvino_accurately(asked: Asked, path: Path) -> dict:
    """Write it in "int8", except for the layers whose quantization changes the most answers.

    They are found on the images that calibrate; others verify the result.
    """
    with archived(*asking(asked, batch_size=None)) as folder, _quiet_nncf() as nncf:
        import openvino

        model = _read(folder)
        original = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        pairs = [(image, original(_batch(image))[0]) for image in asked.calibrate]
        model = nncf.quantize_with_accuracy_control(
            model,
            _dataset(nncf, asked),
            nncf.Dataset(pairs, lambda pair: _batch(pair[0])),
            _agreement(asked),
            # Agreement drops a little more on the images that verify than on those that calibrate.
            max_drop=(1 - asked.agreement) / 2,
            advanced_quantization_parameters=_for_every_cpu(nncf),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                num_ranking_workers=1  # more would be forked from TensorFlow's process
            ),
            **_quantization(nncf, asked),
        )
        facts = _saved(model, asked, path)
    if not facts["convolutions_in_int8"]:
        raise ValueError(
            f"precision='int8' changes more answers than agreement={asked.agreement:g} allows, and "
            "no convolution can stay in 8 bits: choose 'bfloat16', 'float32' or a lower agreement."
        )
    return {"accuracy_aware": True, **facts}


def _agreement(asked) -> Callable[[Any, Any], tuple[float, list]]:
    """What NNCF judges a model by: the fraction of answers that stay the same, and the outputs."""

    def judged(compiled, pairs):
        outputs, originals = zip(
            *((compiled(_batch(image))[0], original) for image, original in pairs), strict=True
        )
        interface = asked.interface
        kept = same(
            np.concatenate(outputs), np.concatenate(originals), interface.kind, interface.thresholds
        )
        return float(np.mean(kept)), [[output] for output in outputs]

    return judged


def _read(folder):
    """A SavedModel as OpenVINO reads it."""
    import openvino

    # `openvino.convert_model` does the same, and reports it to Google Analytics.
    return openvino.Core().read_model(folder)


def _saved(model, asked, path):
    """Write a model's files; returns the facts about its quantization."""
    import openvino

    if asked.interface.batch_size:
        _, *shape = model.input().partial_shape
        model.reshape([asked.interface.batch_size, *shape])
    model.set_rt_info(asked.precision, PRECISION_OF)
    try:
        # The weights are used in bfloat16, and float16 loses nothing of that which matters.
        openvino.save_model(model, path, compress_to_fp16=asked.precision == "bfloat16")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(f"{str(path)!r} cannot be written: {reason}") from error
    weights = [
        operation.input_value(1).get_node().get_type_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in _CONVOLUTIONS
    ]
    in_float = weights.count("Constant")
    return {"convolutions": len(weights), "convolutions_in_int8": len(weights) - in_float}


def _batch(image):
    return np.asarray(image, "float32")[None]


def _dataset(nncf, asked):
    return nncf.Dataset(asked.calibrate, _batch)


def _for_every_cpu(nncf):
    """Weights from -64 to 63: CPUs without VNNI add pairs of products in 16 bits.

    With weights up to 127 these overflow, and a model that was verified on another CPU gives wrong
    answers there: ResNet-50 loses four points of top-1 accuracy.
    """
    return nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)


def _quantization(nncf, asked):
    """The options of both kinds of quantization."""
    return dict(
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(asked.calibrate),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(types=_IN_FLOAT, validate=False),
    )


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF, without progress bars, without logs except errors, and without telemetry."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        with _environment(_SILENT):
            import nncf
        logger = logging.getLogger("nncf")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield nncf
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def _environment(values):
    """Set environment variables for a while."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
