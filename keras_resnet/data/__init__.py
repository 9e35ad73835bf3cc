"""Images in: from a source to batches."""

from keras_resnet.data.pipeline import batches
from keras_resnet.data.sources import SPLITS, Source, Split, check_images, image_files, load

__all__ = ["SPLITS", "Source", "Split", "batches", "check_images", "image_files", "load"]
