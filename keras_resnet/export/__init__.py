"""Models out: folders that other programs load as they are."""

from keras_resnet.export.saved_model import next_version, saved_model
from keras_resnet.export.verify import Verification, verify

__all__ = ["Verification", "next_version", "saved_model", "verify"]
