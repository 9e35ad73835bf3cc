import numpy as np
import small
import tensorflow as tf

from keras_resnet import training
from keras_resnet.training import logs


def test_a_line_tells_the_speed_of_its_own_epoch(monkeypatch, capsys):
    seconds = 0.0
    monkeypatch.setattr(logs.time, "perf_counter", lambda: seconds)
    progress = logs.Progress(2, epochs=3, steps=5, batch_size=100)
    # Seconds of a step: in the last epoch the machine is busy.
    for epoch, duration in enumerate([1.0, 1.0, 4.0]):
        progress.begin_epoch(epoch, 0)
        for _ in range(5):
            seconds += duration
            progress.step(100, {"loss": 1.0})
        seconds += 30  # validation
        progress.end_epoch(epoch, {"loss": 1.0})
    rates = [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert rates == ["100 images/s", "100 images/s", "25 images/s"]
    assert progress.images_per_second == 1400 / 29  # all steps but the first


def test_every_epoch_is_an_event(digits, tmp_path):
    recipe = training.Recipe(epochs=2, batch_size=256)
    log = training.TensorBoardLog(tmp_path)
    result = training.train(small.model(), digits, recipe, callbacks=[log], verbose=0)
    (file,) = tmp_path.iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name in ("scalars", "")
            number = float(tf.make_ndarray(value.tensor))
            found.setdefault(value.tag, []).append((event.step, number))
    assert {tag: [step for step, _ in values] for tag, values in found.items()} == {
        name: [0, 1] for name in result.history
    }
    losses = [value for _, value in found["val_loss"]]
    np.testing.assert_allclose(losses, result.history["val_loss"], rtol=1e-6)
