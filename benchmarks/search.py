"""The overhead of a search on top of training: `python -m benchmarks.search`.

Runs a random search over the default space for CIFAR-10, under a million parameters, in which every
trial trains for the same time. Reports the time outside training (sampling, counting, building,
saving) and, more strictly, the time outside validation and all training steps after the first.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe
from benchmarks.training import source

RESULTS = Path(__file__).parent / "results" / "search.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()

    import keras

    from keras_resnet import training, tuning

    class Timed(tuning.ResNetHyperModel):
        """Adds up the training time of all trials."""

        seconds = 0.0

        def train(self, *arguments, **named):
            start = time.perf_counter()
            try:
                return super().train(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - start

    class After(keras.callbacks.Callback):
        """Stops each training after some seconds, and adds up the time of the first steps."""

        first_steps = 0.0

        def on_train_begin(self, logs=None):
            self.begin, self.steps = time.perf_counter(), 0

        def on_train_batch_end(self, batch, logs=None):
            seconds = time.perf_counter() - self.begin
            self.model.stop_training = seconds > options.seconds
            self.steps += 1
            if self.steps == 1:
                self.first_steps += seconds

    hypermodel = Timed((32, 32, 3), 10, budget="params=1e6", recipe=training.Recipe(batch_size=128))
    after = After()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tuner = tuning.search(
            hypermodel,
            source(),
            algorithm="random",
            trials=options.trials,
            epochs=1000,
            directory=folder,
            callbacks=[after],
        )
        seconds = time.perf_counter() - start
        steps = sum(trial.seconds for trial in tuner.record().trials) - after.first_steps
    around, before = seconds - hypermodel.seconds, seconds - steps
    lines = [
        describe(),
        f"\n{options.trials} trials of {options.seconds:g} s each from the default space, under a "
        f"million parameters: {seconds:.1f} s",
        f"outside training           {around:6.1f} s {around / seconds:6.1%}   "
        "sampling, counting, building, saving",
        f"outside steps and validation{before:5.1f} s {before / seconds:6.1%}   "
        "the same plus tracing and first steps",
    ]
    RESULTS.write_text("".join(f"{line}\n" for line in lines))
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
