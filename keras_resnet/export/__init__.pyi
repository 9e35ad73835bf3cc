from .card import CARD_FILE, Exported
from .comparison import Verification
from .compiled import Compiled, compiled
from .folding import fold_batch_norm, unfoldable
from .formats import litert, onnx, openvino
from .latency import Latency, latencies
from .objects import DetectorVerification
from .runtimes import load
from .saved_model import next_version, saved_model
from .verify import verify

__all__ = [
    "CARD_FILE",
    "Compiled",
    "DetectorVerification",
    "Exported",
    "Latency",
    "Verification",
    "compiled",
    "fold_batch_norm",
    "latencies",
    "litert",
    "load",
    "next_version",
    "onnx",
    "openvino",
    "saved_model",
    "unfoldable",
    "verify",
]
