"""A search's best model against ResNet-20: `python -m benchmarks.cifar_search DATA`.

Runs Hyperband under 300,000 parameters on every eighth image of CIFAR-10. Then trains the best
model, the default ResNet-20 and a ResNet-20 with the paper's learning rate on all of these images,
for as many epochs as the longest trials, with several seeds. DATA is anything that
`keras-resnet train --data` accepts. On two cores the search takes half an hour, and the comparison
a quarter of an hour.
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results" / "cifar_search"
BUDGET, TRIALS, EPOCHS, PART = "params=3e5", 22, 9, 8
SPACE = {
    # Nine epochs are too few for narrow models, low learning rates and strong augmentation.
    "width": [1.0, 1.5],
    "augmentation_strength": ["none", "light"],
    "learning_rate": {"min_value": 0.1, "max_value": 1.0, "sampling": "log"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()

    import keras
    import numpy as np

    import keras_resnet
    from keras_resnet import analysis, data, training, tuning
    from keras_resnet.tuning import report

    def part(split):
        return split.take(np.arange(0, len(split), PART))

    source = data.load(options.data, validation=0.2)
    source = replace(source, train=part(source.train), validation=part(source.validation))
    recipe = training.Recipe(epochs=EPOCHS)
    hypermodel = tuning.ResNetHyperModel((32, 32, 3), 10, SPACE, BUDGET, recipe=recipe)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tuning.search(
            hypermodel, source, trials=TRIALS, epochs=EPOCHS, directory=folder, cache="memory"
        )
        record = tuner.record()
        report.write_report(RESULTS, record)
        (RESULTS / "report.html").unlink()  # as large as everything else together

        def best(seed):
            return tuning.retrain(tuner, source, seed=seed, cache="memory", verbose=0)[0]

        def default(seed, **changes):
            keras.utils.set_random_seed(seed)
            net = keras_resnet.CIFARResNet(20, include_preprocessing=True)
            training.train(
                net,
                source.with_all_to_train(),
                recipe.changed(**changes),
                seed=seed,
                cache="memory",
                verbose=0,
            )
            return net

        nets = {
            "best model of the search": best,
            "ResNet-20, default recipe": default,
            "ResNet-20, learning rate 0.2": lambda seed: default(seed, learning_rate=0.2),
        }
        found = {name: [] for name in nets}
        for seed in range(options.seeds):
            for name, trained in nets.items():
                net = trained(seed)
                test = data.batches(source.test, image_size=32, batch_size=500)
                quality = analysis.evaluate(net, test, source.class_names)
                found[name].append(quality.accuracy)
                print(
                    f"{name}: {quality.accuracy:.2%}, {net.count_params():,} parameters", flush=True
                )
    lines = [
        describe(),
        f"\n{len(source.train):,} training images, {len(source.validation):,} validation images",
        report.summary(record),
        f"\nTest accuracy after {EPOCHS} epochs on all of these images, {options.seeds} seeds",
    ]
    for name, values in found.items():
        each = ", ".join(f"{value:.2%}" for value in values)
        lines.append(f"{name:30}{statistics.mean(values):8.2%}   ({each})")
    (RESULTS / "summary.txt").write_text("".join(f"{line}\n" for line in lines))
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
