import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from errors import one_line_error

from keras_resnet import training
from keras_resnet.training.checkpoints import Checkpoints, bind, differences


def net(units=3):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(units)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x), name="net")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def fill(model, value):
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(keras.ops.full(variable.shape, value, variable.dtype))


def filled_with(model):
    (value,) = {
        float(number)
        for variable in (*model.variables, *model.optimizer.variables)
        if "learning_rate" not in variable.path
        for number in np.ravel(variable.numpy())
    }
    return value


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, {"seed": 1})


def test_all_of_the_state_comes_back(checkpoints):
    model, other = net(), net()
    fill(model, 3)
    assert checkpoints.save(model, {"step": 5}).name == "after-1"
    assert checkpoints.restore(other) == {"step": 5}
    assert filled_with(other) == 3


def test_as_many_are_kept_as_wanted(tmp_path):
    model, checkpoints = net(), Checkpoints(tmp_path, {}, keep=4)
    for number in range(7):
        checkpoints.save(model, {"step": number})
    assert sorted(path.name for path in tmp_path.glob("after-*")) == [
        "after-4",
        "after-5",
        "after-6",
        "after-7",
    ]
    assert checkpoints.newest.name == "after-7"


@pytest.mark.parametrize("file", ["state.safetensors", "progress.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_one_that_a_disk_has_damaged_is_passed_over(checkpoints, caplog, file, keep):
    model = net()
    for value in (1, 2):
        fill(model, value)
        newest = checkpoints.save(model, {"step": value})
    content = (newest / file).read_bytes()
    (newest / file).write_bytes(content[: int(keep * len(content))])
    assert checkpoints.restore(model) == {"step": 1}
    assert filled_with(model) == 1
    assert f"{newest} cannot be read" in caplog.text


def test_none_that_can_be_read_is_an_error(checkpoints):
    model = net()
    for file in checkpoints.save(model, {}).iterdir():
        file.unlink()
    with pytest.raises(OSError, match=r"no checkpoint in .* can be read: remove the folder"):
        checkpoints.restore(model)


def test_damaged_best_weights_are_named(checkpoints):
    model = net()
    checkpoints.save_best(model)
    (checkpoints.folder / "best.safetensors").write_bytes(b"half")
    with one_line_error("best.safetensors' is cut off or damaged: ", "to start over."):
        checkpoints.restore_best(model)


def test_damaged_settings_are_named_and_can_be_removed(tmp_path):
    bind(tmp_path, {"seed": 1})
    Checkpoints(tmp_path, {}).save(net(), {"step": 1})
    (tmp_path / "settings.json").write_text('{"se')
    with one_line_error("settings.json' is cut off or damaged: ", "the same command continues"):
        bind(tmp_path, {"seed": 1})
    (tmp_path / "settings.json").unlink()
    assert Checkpoints(tmp_path, {"seed": 1}).open(net()) == {"step": 1}


def test_of_another_run_are_refused(tmp_path):
    first = Checkpoints(tmp_path, {"model": "resnet50", "seed": 1})
    assert first.open(net()) is None
    first.save(net(), {"step": 3})
    with one_line_error("model was 'resnet50', is 'resnet18'. Repeat its command"):
        Checkpoints(tmp_path, {"model": "resnet18", "seed": 1}).open(net())
    assert Checkpoints(tmp_path, {"model": "resnet50", "seed": 1}).open(net()) == {"step": 3}


def test_a_run_that_has_not_begun_binds_nobody(tmp_path):
    bind(tmp_path, {"seed": 1})
    bind(tmp_path, {"seed": 2})
    Checkpoints(tmp_path / "1-head", {"seed": 2}).save(net(), {})
    with one_line_error("seed was 2, is 3"):
        bind(tmp_path, {"seed": 3})


@pytest.mark.parametrize("name", [".12345678-after-1", ".12345678-1-abcdef-best.safetensors"])
def test_nothing_is_written_before_they_are_opened(tmp_path, name):
    stray = tmp_path / "run" / name
    stray.mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path / "run", {"seed": 1})
    assert list(stray.parent.iterdir()) == [stray]
    checkpoints.open(net())
    assert [path.name for path in stray.parent.iterdir()] == ["settings.json"]


def test_a_field_that_recipes_did_not_have_yet_had_its_default(tmp_path):
    now = dataclasses.asdict(training.Recipe(epochs=3))
    then = {name: now[name] for name in now if name not in ("ema", "rates", "milestones")}
    bind(tmp_path, {"recipe": then})
    Checkpoints(tmp_path, {}).save(net(), {})
    bind(tmp_path, {"recipe": now})
    with one_line_error("other settings: recipe: ema was 0.0, is 0.9; recipe: epochs was 3, is 4"):
        bind(tmp_path, {"recipe": {**now, "ema": 0.9, "epochs": 4}})
    of_a_later_version = {"recipe": {**now, "unheard_of": 1}}
    assert differences(of_a_later_version, {"recipe": now}) == ["recipe: unheard_of was 1, is None"]


def test_space_is_looked_for_beforehand(checkpoints, monkeypatch):
    usage = shutil.disk_usage(checkpoints.folder)
    checkpoints.check_space(net())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(OSError, match=r"the checkpoints need .* MiB are free. Make room"):
        checkpoints.check_space(net())


def test_a_disk_that_is_full_at_any_byte_leaves_the_former_state(checkpoints):
    model = net()
    fill(model, 1)
    size = sum(file.stat().st_size for file in checkpoints.save(model, {"step": 1}).iterdir())
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    failures = 0
    try:
        for limit in np.unique(np.linspace(0, size, 60).astype(int)):
            fill(model, 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), former[1]))
            try:
                checkpoints.save(model, {"step": 2})
                break
            except OSError:
                failures += 1
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, former)
            assert checkpoints.restore(model) == {"step": 1}
            assert filled_with(model) == 1
            names = {path.name for path in checkpoints.folder.iterdir()}
            assert names == {"after-1"}
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    assert failures > 40


def test_of_another_shape_are_refused(checkpoints):
    checkpoints.save(net(), {})
    with pytest.raises(OSError, match=r"no checkpoint in .* can be read"):
        checkpoints.restore(net(units=4))


SAVING = """
import sys
sys.path[:0] = sys.argv[2:]
from test_checkpoints import Checkpoints, fill, net
model, checkpoints = net(), Checkpoints(sys.argv[1], {})
value = (checkpoints.restore(model) or {"step": 0})["step"]
print("ready", flush=True)
while True:
    value += 1
    fill(model, value)
    checkpoints.save(model, {"step": value})
    checkpoints.save_best(model)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_state(tmp_path):
    """As in a run: what is killed is started again in the same folder."""
    random, model, step = np.random.default_rng(0), net(), 0
    arguments = [sys.executable, "-c", SAVING, tmp_path, *sys.path]
    for _ in range(6):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.2 + random.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before, step = step, Checkpoints(tmp_path, {}).restore(model)["step"]
        assert step > before
        assert filled_with(model) == step
        Checkpoints(tmp_path, {}).restore_best(model)


class TestRestoring:
    def test_what_a_killed_process_left_half_written_is_passed_over(self, tmp_path):
        model = net()
        checkpoints = Checkpoints(tmp_path, {})
        checkpoints.save(model, {"epoch": 1})
        (tmp_path / ".1234-after-2").mkdir()
        (tmp_path / ".1234-after-2" / "state.weights.h5").write_bytes(b"half")
        assert Checkpoints(tmp_path, {}).restore(model) == {"epoch": 1}

    def test_keeps_the_newest(self, tmp_path):
        model = net()
        checkpoints = Checkpoints(tmp_path, {}, keep=2)
        for epoch in range(1, 13):
            checkpoints.save(model, {"epoch": epoch})
        assert len(list(tmp_path.glob("after-*"))) == 2
        assert checkpoints.restore(model) == {"epoch": 12}

    def test_brings_back_the_optimizer_and_the_dice(self, tmp_path):
        def fresh():
            keras.utils.set_random_seed(1)
            layers = [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
            model = keras.Sequential(layers)
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
            return model

        inputs, targets = np.ones((8, 4)), np.ones((8, 3))
        whole = fresh()
        for _ in range(4):
            whole.train_on_batch(inputs, targets)
        half = fresh()
        for _ in range(2):
            half.train_on_batch(inputs, targets)
        Checkpoints(tmp_path, {}).save(half, {})
        rest = fresh()
        assert Checkpoints(tmp_path, {}).restore(rest) == {}
        for _ in range(2):
            rest.train_on_batch(inputs, targets)
        np.testing.assert_allclose(rest.get_weights()[0], whole.get_weights()[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("former", "why"),
    [
        (
            "0123456789abcdef",
            "knew images by name",
        ),
        ("contents-0123456789abcdef", "the images, labels or classes have changed"),
    ],
)
def test_a_run_on_other_images_does_not_go_on(tmp_path, former, why):
    bind(tmp_path, {"fingerprint": former})
    (tmp_path / "after-1").mkdir()
    bind(tmp_path, {"fingerprint": former})
    with one_line_error("holds an interrupted run with other settings: fingerprint was", why):
        bind(tmp_path, {"fingerprint": "contents-348d5136aef77177"})
