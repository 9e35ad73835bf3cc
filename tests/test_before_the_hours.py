"""What would fail at the end of a job is found out before its first step."""

import resource
import signal

import keras
import numpy as np
import PIL.Image
import pytest
import small
from errors import one_line_error
from pictures import write_images

from keras_resnet import data, export, files, runs, training
from keras_resnet.runs import guards, results
from keras_resnet.runs.choices import RUN_FILES, RUN_FOLDERS

QUICK = {"model": "CIFARResNet8", "epochs": 1, "batch_size": 256}


def begun(*_):
    raise AssertionError("the training has begun")


UNTRAINED = keras.callbacks.LambdaCallback(on_train_begin=begun)


@pytest.fixture
def full_disk():
    """Files cannot grow beyond so many bytes."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    signal.signal(signal.SIGXFSZ, handler)


class TestTheFolderOfARun:
    @pytest.mark.parametrize("name", ["a[b]c", "back\\slash"])
    @pytest.mark.parametrize("job", [runs.train, runs.tune])
    def test_from_which_tensorflow_cannot_load(self, tmp_path, name, job):
        with one_line_error("TensorFlow reads [ and \\ as parts of a pattern"):
            job("digits", tmp_path / name, callbacks=[UNTRAINED])
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["~/runs", "gs://bucket/runs", "s3://a"])
    def test_that_is_somewhere_else(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        for job, *arguments in (
            (runs.train, "digits", name),
            (runs.tune, "digits", name),
            (runs.export, "model.keras", name),
        ):
            with one_line_error("must be a folder on this machine"):
                job(*arguments)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("file", RUN_FILES)
    def test_with_a_folder_in_a_files_place(self, tmp_path, file):
        (tmp_path / file).mkdir()
        with one_line_error(f"{file}, which is to be written, is a folder"):
            runs.train("digits", tmp_path, callbacks=[UNTRAINED], **QUICK)

    @pytest.mark.parametrize("folder", RUN_FOLDERS)
    def test_with_a_file_in_a_folders_place(self, tmp_path, folder):
        (tmp_path / folder).write_text("")
        with one_line_error("nothing can be written to", folder):
            runs.train("digits", tmp_path, callbacks=[UNTRAINED], **QUICK)

    def test_whose_exports_are_something_else(self, tmp_path):
        (tmp_path / "saved_model").mkdir()
        (tmp_path / "saved_model" / "thesis.txt").write_text("mine")
        with one_line_error("is no folder of a model's versions"):
            runs.train("digits", tmp_path, callbacks=[UNTRAINED], **QUICK)
        (tmp_path / "search" / "best").mkdir(parents=True)
        (tmp_path / "saved_model").rename(tmp_path / "search" / "best" / "saved_model")
        with one_line_error("is no folder of a model's versions"):
            runs.tune("digits", tmp_path / "search")

    def test_that_another_process_writes_to(self, tmp_path):
        with files.locked(tmp_path), one_line_error(f"{str(tmp_path)!r} is in use"):
            runs.train("digits", tmp_path, callbacks=[UNTRAINED], **QUICK)
        with files.locked(tmp_path), one_line_error(f"{str(tmp_path)!r} is in use"):
            runs.tune("digits", tmp_path)

    def test_on_a_full_disk(self, tmp_path, monkeypatch):
        usage = guards.shutil.disk_usage(tmp_path)
        monkeypatch.setattr(guards.shutil, "disk_usage", lambda path: usage._replace(free=2**19))
        with pytest.raises(OSError, match=r"a model needs 1 MiB, only 0 MiB are free\. Make room"):
            runs.train("digits", tmp_path / "run", callbacks=[UNTRAINED], **QUICK)

    @pytest.mark.parametrize("name", ["two\nlines", "caf\udce9"])
    @pytest.mark.parametrize("job", [runs.train, runs.tune])
    def test_with_names_that_no_labels_file_holds(self, tmp_path, monkeypatch, name, job):
        source = small.digits()
        object.__setattr__(source, "class_names", (name, *source.class_names[1:]))
        monkeypatch.setattr(data, "load", lambda *_, **__: source)
        with one_line_error(repr(name)):
            job("digits", tmp_path / "run", callbacks=[UNTRAINED])


def test_a_damaged_test_image_is_found_first(tmp_path):
    for split in data.SPLITS:
        for name in ("cat", "dog"):
            write_images(tmp_path / "data" / split / name, 2, start=10 * len(split))
    damaged = tmp_path / "data" / "test" / "cat" / "0.png"
    contents = bytearray(damaged.read_bytes())
    contents[60:80] = bytes(20)  # far from its beginning and end
    damaged.write_bytes(contents)
    with one_line_error(str(damaged), "on_error='skip' (--on-error skip) leaves it out"):
        runs.train(tmp_path / "data", tmp_path / "run", callbacks=[UNTRAINED], **QUICK)


def test_no_model_stands_beside_the_names_of_another(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    for name in RUN_FILES:
        (tmp_path / name).write_text("cat\n")
    source = small.digits()
    ended = training.Result({"loss": [1.0]}, 1, 1.0, 1.0)
    arguments = (small.model(), source, ended, tmp_path, tmp_path / "saved_model", "float32")
    with monkeypatch.context() as full:
        full.setattr(keras.Model, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            results.write_results(*arguments)
    assert {file.name for file in tmp_path.iterdir()} == {*RUN_FILES}
    monkeypatch.setattr(results, "write_images", killed)
    with pytest.raises(KeyboardInterrupt):
        results.write_results(*arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


class TestExport:
    def test_a_full_disk_leaves_nothing(self, tmp_path, full_disk):
        model = small.model()
        size = sum(np.prod(weight.shape) * 4 for weight in model.weights)
        # While the weights are written, or the graph.
        for limit in (size // 2, size + 5000):
            full_disk(limit)
            with pytest.raises(OSError, match=r"models/1' cannot be written: .*\.") as caught:
                export.saved_model(model, tmp_path / "models" / "1", verbose=False)
            assert "\n" not in str(caught.value)
            assert not list((tmp_path / "models").iterdir())

    def test_what_a_killed_one_has_left_is_in_nobodys_way(self, tmp_path):
        (tmp_path / ".1f2e3d4c-1" / "variables").mkdir(parents=True)
        exported = export.saved_model(small.model(), tmp_path, verified=False, verbose=False)
        assert exported.path == tmp_path / "1"

    @pytest.mark.parametrize("format", ["litert", "openvino"])
    @pytest.mark.parametrize("labels", ["cat\ndog\n", ""])
    def test_keeps_the_names_of_another_model(self, tmp_path, format, labels):
        small.model().save(tmp_path / "model.keras")
        other = tmp_path / "other"
        other.mkdir()
        (other / "labels.txt").write_text(labels)
        with one_line_error("its labels.txt is that of another model. Choose another folder"):
            runs.export(tmp_path / "model.keras", other, format=format)
        assert [(file.name, file.read_text()) for file in other.iterdir()] == [
            ("labels.txt", labels)
        ]

    def test_beside_its_own_model_is_fine(self, tmp_path):
        small.model(2).save(tmp_path / "model.keras")
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        path = runs.export(tmp_path, tmp_path, format="litert").exported.path
        assert path.parent == tmp_path
        assert (tmp_path / "labels.txt").read_text() == "cat\ndog\n"


class TestWeightsThatAreNaN:
    @pytest.fixture
    def file(self, tmp_path):
        model = small.model(pooling=None)
        first = model.weights[2]
        first.assign(np.full(first.shape, np.nan, "float32"))
        model.save(tmp_path / "model.keras")
        return tmp_path / "model.keras"

    def test_have_no_answers(self, file, tmp_path):
        write_images(tmp_path / "images", 2)
        for job, arguments in (
            (runs.evaluate, ["digits"]),
            (runs.predict, [tmp_path / "images"]),
            (runs.export, [tmp_path / "exported"]),
        ):
            with one_line_error("its weights ", "are NaN"):
                job(file, *arguments)
        assert not (tmp_path / "exported").exists()

    @pytest.mark.parametrize("format", [export.litert, export.saved_model])
    def test_are_not_exported_unseen(self, file, tmp_path, format):
        model = keras.saving.load_model(file)
        path = tmp_path / ("1" if format is export.saved_model else "model.tflite")
        with one_line_error("its weights ", "are NaN"):
            format(model, path, verified=False)

    def test_nor_are_outputs_that_overflow(self, tmp_path):
        model = small.model()
        kernel = model.layers[-1].kernel
        kernel.assign(np.full(kernel.shape, 3e38, "float32"))
        model.save(tmp_path / "model.keras")
        PIL.Image.fromarray(np.full((8, 8), 200, "uint8")).save(tmp_path / "1.png")
        with one_line_error("of 359 images; the first is image 0"):
            runs.evaluate(tmp_path, "digits")
        with one_line_error("gives NaN or infinity for 1 of 1 images"):
            runs.predict(tmp_path, tmp_path / "1.png")

    def test_nor_do_they_calibrate(self, tmp_path):
        images = np.full((2, 8, 8, 1), np.nan, "float32")
        with one_line_error("calibrate holds NaN"):
            export.litert(small.model(), tmp_path / "a.tflite", precision="int8", calibrate=images)
