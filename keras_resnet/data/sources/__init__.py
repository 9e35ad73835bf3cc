"""Where images come from: a file for each kind of source."""

from keras_resnet.data.source import SPLITS, Source, Split
from keras_resnet.data.sources.digits import digits
from keras_resnet.data.sources.files import csv_file, folder
from keras_resnet.data.sources.load import load
from keras_resnet.data.sources.streams import tensorflow_dataset, tfrecords

__all__ = [
    "SPLITS",
    "Source",
    "Split",
    "csv_file",
    "digits",
    "folder",
    "load",
    "tensorflow_dataset",
    "tfrecords",
]
