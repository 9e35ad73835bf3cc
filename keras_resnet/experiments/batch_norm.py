"""What batch normalization does, and the mistakes people make with it: Ioffe and Szegedy 2015."""

from keras_resnet.experiments import trainings
from keras_resnet.experiments.batch_norm_report import report
from keras_resnet.experiments.batch_norm_trials import BatchNormSettings, trials
from keras_resnet.experiments.experiment import Experiment

EXPERIMENT = Experiment(
    "batch-norm",
    BatchNormSettings,
    trials,
    report,
    # A step of 2 images takes too long on all of them; the rest is the paper's.
    full={**trainings.FULL, "depth": 20, "batch_sizes": (4, 8, 16, 32, 64, 128)},
)
