"""Models out: what other programs load as it is."""

from keras_resnet.export.card import CARD_FILE, Exported
from keras_resnet.export.comparison import Verification
from keras_resnet.export.folding import fold_batch_norm, unfoldable
from keras_resnet.export.formats import litert, onnx
from keras_resnet.export.latency import Latency, latencies
from keras_resnet.export.objects import DetectorVerification
from keras_resnet.export.runtimes import load
from keras_resnet.export.saved_model import next_version, saved_model
from keras_resnet.export.verify import verify

__all__ = [
    "CARD_FILE",
    "DetectorVerification",
    "Exported",
    "Latency",
    "Verification",
    "fold_batch_norm",
    "latencies",
    "litert",
    "load",
    "next_version",
    "onnx",
    "saved_model",
    "unfoldable",
    "verify",
]
