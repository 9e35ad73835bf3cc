"""Data sets of images, from the source to batches."""

from keras_resnet.data.augmentation import AUGMENTATIONS, Augmentation
from keras_resnet.data.folds import folds_of, with_fold
from keras_resnet.data.images import check_images, image_files
from keras_resnet.data.pipeline import batches
from keras_resnet.data.sources import SPLITS, Source, Split, load

__all__ = [
    "AUGMENTATIONS",
    "SPLITS",
    "Augmentation",
    "Source",
    "Split",
    "batches",
    "check_images",
    "folds_of",
    "image_files",
    "load",
    "with_fold",
]
