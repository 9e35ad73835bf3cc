"""Where images come from: one file for each kind of source."""

from keras_resnet.data.source import SPLITS, Source, Split
from keras_resnet.data.sources.coco import coco
from keras_resnet.data.sources.csv_file import csv_file
from keras_resnet.data.sources.digits import digits
from keras_resnet.data.sources.folder import folder
from keras_resnet.data.sources.load import load
from keras_resnet.data.sources.tensorflow_dataset import tensorflow_dataset
from keras_resnet.data.sources.tfrecords import tfrecords
from keras_resnet.data.sources.voc import voc

__all__ = [
    "SPLITS",
    "Source",
    "Split",
    "coco",
    "csv_file",
    "digits",
    "folder",
    "load",
    "tensorflow_dataset",
    "tfrecords",
    "voc",
]
