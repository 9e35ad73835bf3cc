import keras
import pytest
import small
from errors import one_line_error

from keras_resnet import training, transfer
from keras_resnet.training.callbacks import check_callbacks, direct

MEASURED = ["loss", "accuracy"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (keras.callbacks.ReduceLROnPlateau, "the learning rate is the recipe's: give it milestone"),
        (
            lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
            "LearningRateScheduler cannot be used here; the learning rate is the recipe's",
        ),
        (lambda: keras.callbacks.BackupAndRestore("backup"), "give checkpoints, a folder that"),
        (keras.callbacks.SwapEMAWeights, "SwapEMAWeights cannot be used here; give the recipe ema"),
        (lambda: keras.callbacks.EarlyStopping, "must be a Keras callback"),
        (
            lambda: keras.callbacks.EarlyStopping("val_accuracy", restore_best_weights=True),
            "a run keeps the weights of the lowest val_loss",
        ),
    ],
)
def test_what_would_fail_or_be_ignored_is_refused_at_once(make, complaint):
    with one_line_error("callbacks: ", complaint):
        training.Execution(callbacks=[make()])


def test_callbacks_are_a_list():
    one = keras.callbacks.TerminateOnNaN()
    for given in (one, iter([one]), keras.callbacks.CallbackList([one])):
        with one_line_error("callbacks=<", "must be a list of Keras callbacks"):
            training.Execution(callbacks=given)


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val_accuracy", "max"), ("accuracy", "max"), ("val_loss", "min"), ("loss", "min")],
)
def test_more_is_better_where_it_is(monitor, mode):
    stopping = keras.callbacks.EarlyStopping(monitor)
    check_callbacks([stopping])
    direct([stopping], MEASURED, validated=True)
    assert stopping.mode == mode


def test_what_a_callback_says_itself_is_left():
    stopping = keras.callbacks.EarlyStopping("loss", mode="max")
    direct([stopping, keras.callbacks.TerminateOnNaN()], MEASURED, validated=False)
    assert stopping.mode == "max"


def test_only_what_is_measured_can_be_watched():
    saving = keras.callbacks.ModelCheckpoint("best.keras", "val_acc", save_best_only=True)
    for validated, measured in ((True, "loss, accuracy, val_loss, val_accuracy"), (False, "acc")):
        with one_line_error("ModelCheckpoint(monitor='val_acc') must watch", measured):
            direct([saving], MEASURED, validated=validated)
    with one_line_error("EarlyStopping(monitor='val_loss') must watch"):
        direct([keras.callbacks.EarlyStopping()], MEASURED, validated=False)
    with one_line_error("EarlyStopping(monitor='val_map') needs mode='min' or mode='max'"):
        direct([keras.callbacks.EarlyStopping("val_map")], ["loss", "map"], validated=True)
    every = keras.callbacks.ModelCheckpoint("{epoch}.keras", "val_acc")
    direct([every], MEASURED, validated=False)  # it saves every epoch


def test_a_run_stops_by_its_accuracy(digits):
    recipe = training.Recipe(epochs=9, learning_rate=1e-9, warm_up=0.0)
    stopping = keras.callbacks.EarlyStopping("val_accuracy", patience=1)
    result = training.train(
        small.model(), digits, recipe, callbacks=[stopping], image_size=8, verbose=0
    )
    assert len(result.history["loss"]) == 2


def test_stages_look_before_they_compute_features(digits):
    stopping = keras.callbacks.EarlyStopping("val_auc")
    with one_line_error("monitor='val_auc'"):
        transfer.fine_tune(small.model(), digits, callbacks=[stopping], image_size=8, verbose=0)
