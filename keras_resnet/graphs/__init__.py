"""What a Keras model is: its head, what it wants to be shown, its layers in order.

==================  =================================================================
`head_of`           what comes out of a model, and the layers between that and its features
`whole_head_of`     all layers of the head, or an error
`answer_of`         what turns outputs into answers of a task
`task_of_outputs`   the task that outputs are for
`thresholds_of`     from which probabilities on labels are present; `with_thresholds` says it
`present`           which labels are
`features_of`       what enters the head, as a tensor
`extractor_of`      everything but the head, as a model
`head_model_of`     the head alone, as a model
`blocks_of`         the layers between the points that every way through a model passes
`chain_of`          a model as functions that follow each other, cut at these points
`drop_path_of`      how often its last residual block is left out in training
`stages_of`         the layers between the strides
`last_stage`        those behind the last stride
`stage_name`        what the names of a stage's layers begin with
`wants_of`          the images a model wants: normalization, size, crop, interpolation
`remember`          change what a model says it wants
`view_of`           how images are shown to a model, in training, tests and serving
`remember_view`     make a model remember that
`input_of`          what a model begins with
`flat_layers`       all layers in order, those of nested models in their place
`named_layers`      a layer, or those of a stage, by name
`is_functional`     whether a model is a graph of layers; `check_functional` insists
`check_weights`     insists that no weight is NaN
`plain`             the same layers from one tensor to one tensor
`twin_of`           a new layer of the same configuration
`copy_state`        everything that a layer has learned, into another layer
`digest`            whether two models compute the same, whatever their weights
==================  =================================================================

Models among a model's layers are looked into, at any depth. *Unknown* is an answer: callers say so
instead of guessing.
"""

from keras_resnet.graphs.answers import Answer, answer_of, task_of_outputs
from keras_resnet.graphs.blocks import blocks_of, drop_path_of
from keras_resnet.graphs.chain import Link, Step, chain_of
from keras_resnet.graphs.heads import (
    OUTPUTS,
    POOLING,
    Head,
    Output,
    extractor_of,
    features_of,
    head_model_of,
    head_of,
    whole_head_of,
)
from keras_resnet.graphs.stages import last_stage, stage_name, stages_of
from keras_resnet.graphs.structure import (
    PASSING,
    check_functional,
    check_weights,
    copy_state,
    digest,
    flat_layers,
    input_of,
    is_functional,
    named_layers,
    plain,
    twin_of,
)
from keras_resnet.graphs.thresholds import present, thresholds_of, with_thresholds
from keras_resnet.graphs.wants import View, Wants, remember, remember_view, view_of, wants_of

__all__ = [
    "OUTPUTS",
    "PASSING",
    "POOLING",
    "Answer",
    "Head",
    "Link",
    "Output",
    "Step",
    "View",
    "Wants",
    "answer_of",
    "blocks_of",
    "chain_of",
    "check_functional",
    "check_weights",
    "copy_state",
    "digest",
    "drop_path_of",
    "extractor_of",
    "features_of",
    "flat_layers",
    "head_model_of",
    "head_of",
    "input_of",
    "is_functional",
    "last_stage",
    "named_layers",
    "plain",
    "present",
    "remember",
    "remember_view",
    "stage_name",
    "stages_of",
    "task_of_outputs",
    "thresholds_of",
    "twin_of",
    "view_of",
    "wants_of",
    "whole_head_of",
    "with_thresholds",
]
