"""What people type and where they run it: an answer, or one line that says why not."""

import json
import os
import pwd

import click
import keras
import numpy as np
import PIL.Image
import pytest
import small
import tensorflow as tf
from commands import refused, run, table_of
from pictures import write_damaged, write_images

from keras_resnet import runs
from keras_resnet.cli.console import answer, mistakes_in_a_line
from keras_resnet.data.labels_file import write_labels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model of two classes of photographs."""
    folder = tmp_path_factory.mktemp("model")
    small.model(2, channels=3).save(folder / "model.keras")
    write_labels(folder, ["café", "thé"])
    return folder


class TestBackends:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["evaluate", "a", "--data", "b"],
            ["predict", "a", "b"],
            ["export", "a", "--output", "b"],
            ["train", "--data", "a", "--output", "b"],
            ["tune", "--data", "a", "--output", "b"],
            ["bench", "a"],
            ["summary", "ResNet18"],
            ["data", "digits"],
        ],
    )
    @pytest.mark.parametrize("backend", ["jax", "nonsense"])
    def test_other_than_tensorflow(self, monkeypatch, arguments, backend):
        monkeypatch.setenv("KERAS_BACKEND", backend)
        line = refused(run(*arguments))
        assert f"KERAS_BACKEND={backend}: this needs KERAS_BACKEND=tensorflow" in line


class TestWithoutAHome:
    @pytest.fixture(autouse=True)
    def homeless(self, monkeypatch):
        def unknown(number):
            raise KeyError(number)

        monkeypatch.setattr(pwd, "getpwuid", unknown)
        for name in ("HOME", "KERAS_HOME", "KERAS_RESNET_WEIGHTS"):
            monkeypatch.delenv(name, raising=False)

    def test_weights_are_looked_for_elsewhere(self, tmp_path, monkeypatch):
        write_images(tmp_path, 1)
        line = refused(run("predict", "ResNet18", tmp_path))
        assert "'~/.keras': this user has no home directory. Set KERAS_RESNET_WEIGHTS" in line
        monkeypatch.setenv("KERAS_RESNET_WEIGHTS", "~/weights")
        assert "'~/weights': this user has" in refused(run("predict", "ResNet18", tmp_path))

    def test_downloads_have_no_place(self, monkeypatch):
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
        line = refused(run("data", "tfds:mnist"))
        assert "'tfds:mnist': this user has no home directory. Set TFDS_DATA_DIR" in line

    def test_a_model_in_a_file_needs_none(self, model, tmp_path):
        write_images(tmp_path, 1)
        assert run("predict", model, tmp_path).exit_code == 0


class TestNoWeights:
    @pytest.mark.parametrize("word", ["none", "None"])
    @pytest.mark.parametrize("job", ["train", "tune"])
    def test_begin_from_scratch(self, monkeypatch, job, word):
        given = {}
        monkeypatch.setattr(runs, job, lambda *_, **options: given.update(options))
        result = run(job, "--data", "digits", "--output", "a", "--weights", word)
        assert result.exit_code == 0, result.output
        assert given.get("weights") is None

    @pytest.mark.parametrize("job", ["predict", "evaluate", "export"])
    def test_have_no_answers(self, job):
        others = {"predict": ["a"], "evaluate": ["--data", "a"], "export": ["--output", "a"]}[job]
        line = refused(run(job, "ResNet18", *others, "--weights", "none"))
        assert "a model without weights knows nothing" in line


class TestDamagedImages:
    def test_are_skipped(self, model, tmp_path):
        write_images(tmp_path, 3)
        damaged = write_damaged(tmp_path)
        assert repr(str(damaged[0])) in refused(run("predict", model, tmp_path))
        options = [model, tmp_path, "--on-error", "skip"]
        result = run("predict", *options, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert [each["image"] for each in found["predictions"]] == [
            str(tmp_path / f"{index}.png") for index in range(3)
        ]
        assert len(found["skipped"]) == len(damaged)
        assert all(str(each) in line for each, line in zip(damaged, found["skipped"], strict=True))
        result = run("predict", *options, "--csv", tmp_path / "out.csv")
        assert f"{len(damaged)} files were skipped" in result.stdout
        assert [name for name, _ in table_of(tmp_path / "out.csv")[1]] == ["0", "1", "2"]

    def test_alone_are_a_mistake(self, model, tmp_path):
        damaged = write_damaged(tmp_path)
        line = refused(run("predict", model, tmp_path, "--on-error", "skip"))
        assert repr(str(damaged[0])) in line


class TestSubmissions:
    def test_tell_files_of_one_name_apart(self, model, tmp_path):
        places = [tmp_path / name for name in ("a", "b")]
        for start, place in enumerate(places):
            write_images(place, 2, start=10 * start)
        result = run("predict", model, *places, "--csv", tmp_path / "out.csv")
        assert result.exit_code == 0, result.output
        _, rows = table_of(tmp_path / "out.csv")
        assert [name for name, _ in rows] == ["a/0", "a/1", "b/0", "b/1"]
        (places[0] / "0.jpg").write_bytes((places[0] / "0.png").read_bytes())
        run("predict", model, places[0], "--csv", tmp_path / "out.csv")
        assert [name for name, _ in table_of(tmp_path / "out.csv")[1]] == [
            "0.jpg", "0.png", "1.png"
        ]  # fmt: skip

    def test_spell_a_class_one_way(self, model, tmp_path):
        write_images(tmp_path, 1)
        options = ["--csv", tmp_path / "out.csv", "--positive", "cafe\u0301"]
        assert run("predict", model, tmp_path, *options).exit_code == 0

    def test_refuse_a_class_whose_name_another_has(self, model, tmp_path):
        write_images(tmp_path, 1)
        for file in model.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        names = (tmp_path / "labels.txt").read_text().splitlines()
        (tmp_path / "labels.txt").write_text("\n".join([names[0], *names[:-1]]))
        options = ["--csv", tmp_path / "out.csv", "--positive", names[0]]
        line = refused(run("predict", tmp_path, tmp_path / "0.png", *options))
        assert "is the name of several classes" in line

    def test_have_one_line_for_an_image(self, model, tmp_path):
        write_images(tmp_path, 2)
        line = refused(
            run("predict", model, tmp_path, tmp_path / "1.png", "--csv", tmp_path / "out.csv")
        )
        assert "1.png' is named twice" in line
        assert not (tmp_path / "out.csv").exists()

    @pytest.mark.parametrize("given", ["", "model.keras", "other.keras"])
    @pytest.mark.parametrize("name", ["0.png", "model.keras", "labels.txt", "images.csv"])
    def test_replace_nothing_else(self, model, tmp_path, name, given):
        write_images(tmp_path, 1)
        for file in model.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "images.csv").write_text("those of the run")
        (tmp_path / "other.keras").write_bytes((tmp_path / "model.keras").read_bytes())
        before = (tmp_path / name).read_bytes()
        options = [tmp_path / "0.png", "--csv", tmp_path / name]
        line = refused(run("predict", tmp_path / given, *options))
        assert "would replace what is no submission: choose another name" in line
        assert (tmp_path / name).read_bytes() == before

    @pytest.mark.parametrize("link", [True, False])
    def test_replace_no_pipe(self, model, tmp_path, link):
        write_images(tmp_path, 1)
        path = pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        if link:
            path = tmp_path / "out.csv"
            path.symlink_to(pipe)
        line = refused(run("predict", model, tmp_path / "0.png", "--csv", path))
        assert "would replace what is no submission" in line
        assert pipe.is_fifo()
        assert path.is_symlink() == link

    def test_have_a_place_before_the_model_runs(self, model, tmp_path):
        write_images(tmp_path, 1)
        line = refused(run("predict", model, tmp_path, "--csv", tmp_path / "0.png" / "out.csv"))
        assert "nothing can be written to" in line


def test_a_model_of_other_channels_is_shown_no_files(tmp_path):
    write_images(tmp_path, 1)
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    keras.Sequential([keras.Input((8, 8, 2)), *layers]).save(tmp_path / "model.keras")
    result = run("predict", tmp_path, tmp_path)
    assert result.exit_code == 2
    assert "channels=2: files of images are read as grey images (1) or in" in result.stderr


def test_a_model_with_a_changed_byte_is_named(model, tmp_path):
    write_images(tmp_path, 1)
    contents = bytearray((model / "model.keras").read_bytes())
    contents[len(contents) // 2] ^= 1
    (tmp_path / "model.keras").write_bytes(contents)
    line = refused(run("predict", tmp_path, tmp_path / "0.png"))
    assert f"{str(tmp_path / 'model.keras')!r} cannot be loaded: Bad CRC-32" in line


def test_a_sheet_has_a_place_before_the_data_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(run("data", "no data", "--sheet", tmp_path / "file" / "sheet.png"))
    assert "nothing can be written to" in line


def test_names_are_data(model, tmp_path):
    folder = tmp_path / "two  blanks 50%s {0} a[b]c ünï né $HOME 'b' [red] :x:"
    write_images(folder, 1)
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    result = run("predict", folder, folder)
    assert result.exit_code == 0, result.output
    assert str(folder / "0.png") in result.stdout
    result = run("predict", folder, folder, "--csv", folder / "out.csv", "--json")
    assert json.loads(result.stdout)["csv"] == str(folder / "out.csv")


def test_names_that_are_not_utf8_are_shown(model, tmp_path):
    image = tmp_path / "caf\udce9.png"
    PIL.Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(image)
    result = run("predict", model, image)
    assert result.exit_code == 0, result.output
    assert "caf\\udce9.png" in result.stdout


def test_numbers_that_are_none(model, tmp_path):
    options = ["--agreement", "nan", "--output", tmp_path / "new"]
    assert "agreement=nan must be" in refused(run("export", model, *options))


def test_words_that_are_none(tmp_path):
    options = ["--set", 'augmentation={"a": 1}', "--output", tmp_path / "new"]
    assert "augmentation {'a': 1} is not known" in refused(run("train", "--data", "a", *options))


class TestAnswers:
    def test_have_no_nan(self, capsys):
        with answer(True) as found:
            print("a table")
            found.update(r2=float("nan"), count=np.int64(3))
        captured = capsys.readouterr()
        assert json.loads(captured.out) == {"r2": None, "count": 3}
        assert "NaN" not in captured.out

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError("Unable to allocate 1 TiB"),
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n\ta tensor"),
        ],
    )
    def test_of_too_little_memory_are_one_line(self, error):
        expected = pytest.raises(click.ClickException, match=r"not enough memory.*lloca")
        with expected as caught, mistakes_in_a_line():
            raise error
        assert "\n" not in str(caught.value)

    def test_to_a_closed_pipe_are_left_to_click(self):
        with pytest.raises(BrokenPipeError), mistakes_in_a_line():
            raise BrokenPipeError
