import csv
import json
import re
import subprocess
import sys

import click.testing
import keras
import numpy as np
import PIL.Image
import pytest
from pictures import encoded, write_damaged, write_images, write_records

import keras_resnet
from keras_resnet import data, training
from keras_resnet.cli import main


def run(*arguments):
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def table_of(path):
    """The first line of a CSV file, and the others."""
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return head, rows


def copied(photographs, folder, **counts):
    """A folder of its own with the first images of every class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            contents = (photographs / name / f"{index}.png").read_bytes()
            (folder / name / f"{index}.png").write_bytes(contents)
    return folder


def refused(result):
    """The one line that a mistake is answered with."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of class/image: the digits 0 and 1 as RGB files."""
    folder = tmp_path_factory.mktemp("zeros-and-ones")
    digits = data.load("digits").train
    for label, name in enumerate(("one", "zero")):
        (folder / name).mkdir()
        images = digits.images[digits.labels == 1 - label][:60]
        for index, image in enumerate(images):
            pixels = np.repeat(image, 3, axis=-1).repeat(2, axis=0).repeat(2, axis=1)
            PIL.Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "pair"
    arguments = ["--model", "cifar_resnet8", "--image-size", 16, "--epochs", 8, "--batch-size", 8]
    arguments += ["--learning-rate", 0.4]
    result = run("train", "--data", photographs, *arguments, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    return output, result


def test_help_answers_without_tensorflow():
    script = (
        "import sys; from keras_resnet.cli import main; main(['--help'], standalone_mode=False)"
    )
    check = "; print('tensorflow' in sys.modules, 'keras' in sys.modules, 'numpy' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script + check], capture_output=True, text=True, check=True
    )
    assert process.stdout.endswith("False False False\n")
    assert "Usage:" in process.stdout


class TestDemo:
    def test_goes_the_whole_way(self, tmp_path):
        process = subprocess.run(
            [sys.executable, "-m", "keras_resnet.cli", "demo", "--output", tmp_path, "--json"],
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        (line,) = process.stdout.splitlines()
        metrics = json.loads(line)
        assert metrics["test_accuracy"] >= 0.98
        assert sum(scores["support"] for scores in metrics["per_class"].values()) == 359
        assert metrics["saved_model_difference"] < 1e-5
        assert metrics["saved_model"] == str(tmp_path / "saved_models" / "digits" / "1")
        assert {file.name for file in (tmp_path / "runs" / "digits").iterdir()} == {
            "confusion.csv",
            "curves.png",
            "history.csv",
            "labels.txt",
            "logs",
            "metrics.json",
            "model.keras",
            "predictions.png",
        }
        assert "Epoch 1/" in process.stderr
        assert "Warning" not in process.stderr


class TestTrain:
    def test_answers_in_json_alone(self, trained):
        output, result = trained
        (line,) = result.stdout.splitlines()
        metrics = json.loads(line)
        assert metrics == json.loads((output / "metrics.json").read_text())
        assert metrics["test_accuracy"] > 0.9
        assert metrics["test_images"] == 24

    def test_writes_everything_it_says(self, trained):
        output, _ = trained
        assert (output / "labels.txt").read_text() == "one\nzero\n"
        assert len((output / "history.csv").read_text().splitlines()) == 9
        assert (output / "saved_model" / "1" / "saved_model.pb").exists()
        for picture in ("curves.png", "predictions.png"):
            PIL.Image.open(output / picture).verify()

    def test_the_confusion_is_that_of_the_scores(self, trained):
        output, result = trained
        metrics = json.loads(result.stdout)
        head, rows = table_of(output / "confusion.csv")
        assert head == ["", "one", "zero"]
        assert [row[0] for row in rows] == ["one", "zero"]
        counts = np.array([list(map(int, row[1:])) for row in rows])
        assert counts.tolist() == metrics["confusion"]
        assert counts.trace() / 24 == pytest.approx(metrics["test_accuracy"])
        for name, right, of_class, taken_for in zip(
            ("one", "zero"), counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0), strict=True
        ):
            scores = metrics["per_class"][name]
            assert scores["support"] == of_class == 12
            assert scores["recall"] == pytest.approx(right / of_class)
            assert scores["precision"] == pytest.approx(right / taken_for)
        model = keras.saving.load_model(output / "model.keras")
        assert model.output_shape == (None, 2)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--set", "ema"], "--set 'ema' must be FIELD=VALUE, such as ema=0.99"),
            (["--set", "label=1"], "field of a recipe 'label' is not known. Did you mean label_sm"),
            (["--set", "epochs=many"], "epochs='many' must be a whole number"),
            (["--set", "ema=2"], "ema=2 must be at least 0 and below 1"),
            (["--strategy", "gpu"], "strategy 'gpu' must be one of 'auto', 'mirrored'"),
            (["--hosts", "a,b"], "are for strategy 'multiworker', not 'auto'"),
            (["--strategy", "multiworker", "--hosts", "a,b"], "must name this machine once"),
            (["--strategy", "multiworker"], "TF_CONFIG='{' must be JSON such as"),
            (["--batch-size", "6", "--set", "accumulation=4"], "accumulation=4 must divide batch"),
        ],
    )
    def test_mistakes_are_told_before_anything_is_written(
        self, photographs, tmp_path, monkeypatch, options, reason
    ):
        monkeypatch.setenv("TF_CONFIG", "{")
        arguments = ["--data", photographs, "--model", "CIFARResNet8", "--output", tmp_path / "run"]
        assert reason in refused(run("train", *arguments, *options))
        assert not (tmp_path / "run").exists()

    def test_takes_recipe_shortcut_and_share_of_validation(self, photographs, tmp_path):
        arguments = ["--data", photographs, "--model", "CIFARResNet8", "--image-size", 16, "--json"]
        arguments += ["--recipe", "modern", "--set", "milestones=[0.5]", "--epochs", 1]
        arguments += ["--shortcut", "none", "--validation", 0.3, "--output", tmp_path, "--profile"]
        result = run("train", *arguments, "--set", "batch-size=4")
        assert result.exit_code == 0, result.output
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert not any(isinstance(layer, keras.layers.Add) for layer in model.layers)
        training, validation = re.search(
            r"(\d+) training, (\d+) validation", result.stderr
        ).groups()
        assert int(validation) / (int(training) + int(validation)) == pytest.approx(0.3, abs=0.03)
        assert list((tmp_path / "profile").rglob("*.xplane.pb"))

    def test_without_validation_the_last_epoch_is_kept(self, photographs, tmp_path):
        arguments = ["--data", photographs, "--model", "CIFARResNet8", "--image-size", 16]
        arguments += ["--validation", 0, "--epochs", 3, "--output"]
        scratch, stages = tmp_path / "scratch", tmp_path / "stages"
        for output, *options in (
            (scratch,),
            (stages, "--weights", scratch / "model.keras"),
        ):
            result = run("train", *arguments, output, *options)
            assert result.exit_code == 0, result.output
            assert ", 0 validation and" in result.stdout
            names, *epochs = (output / "history.csv").read_text().splitlines()
            assert "val_" not in names
            assert json.loads((output / "metrics.json").read_text())["best_epoch"] == len(epochs)

    def test_damaged_files_are_skipped_and_told(self, photographs, tmp_path):
        folder = copied(photographs, tmp_path / "images", one=20, zero=8)
        damaged = [str(file) for file in write_damaged(folder / "one")]
        arguments = ["--data", folder, "--model", "CIFARResNet8", "--image-size", 16]
        arguments += ["--epochs", 1, "--output", tmp_path / "run"]
        assert repr(damaged[0]) in refused(run("train", *arguments))
        assert not (tmp_path / "run").exists()
        result = run("train", *arguments, "--on-error", "skip", "--balanced")
        assert result.exit_code == 0, result.output
        skipped = json.loads((tmp_path / "run" / "metrics.json").read_text())["skipped"]
        lines = result.stdout.splitlines()
        place = lines.index("4 files were skipped:")
        for file, reason, line in zip(damaged, skipped, lines[place + 1 :], strict=False):
            assert reason.startswith(f"{file!r} is not an image")
            assert line == f"  {reason}"
        counts = map(int, re.search(r"(\d+) training, (\d+) val\w+ and (\d+)", lines[0]).groups())
        assert sum(counts) == 28
        assert "times the smallest's images: they count alike." in result.stdout

    @pytest.mark.parametrize("balanced", [True, False])
    def test_balanced_weighs_the_classes(self, photographs, tmp_path, monkeypatch, balanced):
        seen = {}

        def stop(model, source, recipe, strategy, **options):
            seen.update(options, counts=source.train.counts(2))
            raise ValueError("enough")

        monkeypatch.setattr(training, "train", stop)
        folder = copied(photographs, tmp_path / "images", one=40, zero=10)
        arguments = ["--data", folder, "--model", "CIFARResNet8", "--image-size", 16]
        arguments += ["--output", tmp_path / "run", *(["--balanced"] if balanced else [])]
        result = run("train", *arguments)
        assert result.exit_code == 2
        ones, zeros = seen["counts"]
        assert f"The largest class has {ones / zeros:.1f} times" in result.stdout
        assert ("--balanced makes them count alike" in result.stdout) != balanced
        if balanced:
            total = ones + zeros
            assert seen["class_weight"] == pytest.approx(
                {0: total / 2 / ones, 1: total / 2 / zeros}
            )
        else:
            assert seen["class_weight"] is None

    def test_half_precision_and_records_will_do(self, tmp_path):
        images, labels = [encoded(number) for number in range(40)], [0, 1] * 20
        records = write_records(tmp_path / "pets.tfrecord.gz", images, labels)
        arguments = ["--model", "CIFARResNet8", "--image-size", 8, "--epochs", 1]
        try:
            result = run(
                "train", "--data", records, *arguments, "--precision", "bfloat16",
                "--output", tmp_path / "run",
            )  # fmt: skip
        finally:
            keras.config.set_dtype_policy("float32")
        assert result.exit_code == 0, result.output
        model = keras.saving.load_model(tmp_path / "run" / "model.keras")
        assert model.get_layer("conv1_conv").compute_dtype == "bfloat16"

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--data", "no/such/folder"], "data 'no/such/folder': there is no such folder"),
            (["--data", "digits", "--model", "ResNet51"], "Did you mean ResNet5"),
            (["--data", "digits", "--model", "CIFARResNet21"], "depth=21 must be 6n + 2"),
            (["--data", "digits", "--model", "ResNet50"], "is too small"),
            (
                ["--data", "digits", "--model", "CIFARResNet8", "--weights", "lost.weights.h5"],
                "weights='lost.weights.h5': there is no such file",
            ),
        ],
    )
    def test_mistakes_are_one_line_and_leave_nothing(self, tmp_path, arguments, complaint):
        line = refused(run("train", *arguments, "--output", tmp_path / "run"))
        assert complaint in line
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "option", [["--epochs", 0], ["--batch-size", 0], ["--image-size", 0], ["--seed", -1]]
    )
    def test_numbers_out_of_range_are_named(self, tmp_path, option):
        result = run("train", "--data", "digits", *option, "--output", tmp_path / "run")
        assert result.exit_code == 2
        assert f"Invalid value for '{option[0]}'" in result.stderr

    def test_names_of_classes_may_be_anything(self, photographs, tmp_path):
        names = ["[bold]dog [x]", "odd [b] :cat:", "accuracy", "schön"]
        for name, source in zip(names, ["one", "zero"] * 2, strict=True):
            folder = tmp_path / "images" / name
            folder.mkdir(parents=True)
            for file in sorted((photographs / source).iterdir())[:6]:
                (folder / file.name).write_bytes(file.read_bytes())
        arguments = ["--model", "CIFARResNet8", "--image-size", 16, "--epochs", 1]
        output = tmp_path / "run"
        result = run("train", "--data", tmp_path / "images", *arguments, "--output", output)
        assert result.exit_code == 0, result.output
        assert "[bold]dog [x]" in result.stdout
        assert "odd [b] :cat:" in result.stdout
        image = tmp_path / "odd[" / "bold]x.png"
        image.parent.mkdir()
        image.write_bytes((photographs / "one" / "0.png").read_bytes())
        result = run("predict", output, image)
        assert "odd[/bold]x.png" in result.stdout

    def test_another_backend_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        line = refused(run("train", "--data", "digits", "--output", tmp_path / "run"))
        assert "training and export need KERAS_BACKEND=tensorflow" in line

    def test_a_text_file_named_jpg_is_named(self, tmp_path, photographs):
        folder = tmp_path / "images"
        for name in ("one", "zero"):
            (folder / name).mkdir(parents=True)
            for file in sorted((photographs / name).iterdir())[:5]:
                (folder / name / file.name).write_bytes(file.read_bytes())
        (folder / "zero" / "fake.jpg").write_text("zero")
        line = refused(run("train", "--data", folder, "--output", tmp_path / "run"))
        assert "zero/fake.jpg' is not an image" in line
        assert not (tmp_path / "run").exists()

    def test_a_damaged_image_is_named(self, tmp_path, photographs):
        folder = tmp_path / "images"
        for name in ("one", "zero"):
            (folder / name).mkdir(parents=True)
            for file in sorted((photographs / name).iterdir())[:5]:
                (folder / name / file.name).write_bytes(file.read_bytes()[:-40])
        arguments = ["--model", "CIFARResNet8", "--image-size", 16, "--epochs", 1]
        result = run("train", "--data", folder, *arguments, "--output", tmp_path / "run")
        assert result.exit_code == 2
        assert "png' is not an image that can be read" in result.stderr.splitlines()[-1]
        assert not (tmp_path / "run").exists()

    def test_a_place_that_cannot_be_written_to_is_named_before_training(self, tmp_path):
        (tmp_path / "file").write_text("")
        arguments = ["--data", "digits", "--model", "CIFARResNet8"]
        line = refused(run("train", *arguments, "--output", tmp_path / "file" / "run"))
        assert "nothing can be written to" in line


class TestTune:
    SMALL = (
        *("--set", "conv2_blocks=1", "--set", "conv3_blocks=[1,2]", "--set", "conv4_blocks=1"),
        *("--set", "width=[0.5,1]", "--set", "augmentation_strength=none", "--image-size", 8),
        *("--data", "digits", "--epochs", 2, "--batch-size", 128),
    )

    def test_searches_reports_and_trains_the_best(self, tmp_path):
        command = ["tune", *self.SMALL, "--trials", 3, "--budget", "params=1e5", "--json"]
        result = run(*command, "--output", tmp_path)
        assert result.exit_code == 0, result.stderr
        (line,) = result.stdout.splitlines()
        answer = json.loads(line)
        assert (answer["trials"], answer["failed"]) == (3, 0)
        assert answer["best"]["parameters"] <= 1e5
        assert answer["test_accuracy"] > 0.2
        assert result.stderr.count("val_accuracy") >= 3
        rows = table_of(tmp_path / "trials.csv")[1]
        assert len(rows) == 3
        assert "Which choices mattered" in (tmp_path / "report.html").read_text()
        PIL.Image.open(tmp_path / "pareto.png").verify()
        for file in ("model.keras", "metrics.json", "curves.png", "saved_model/1/saved_model.pb"):
            assert (tmp_path / "best" / file).exists()
        again = run(*command, "--retrain-epochs", 0, "--output", tmp_path)
        assert json.loads(again.stdout)["best"] == answer["best"]
        assert "Trial" not in again.stderr.split("Best of")[0]

    def test_refuses_another_search_in_its_folder(self, tmp_path):
        command = ["tune", *self.SMALL, "--output", tmp_path, "--retrain-epochs", 0, "--trials"]
        assert run(*command, 1).exit_code == 0
        result = run(*command, 2, "--set", "shortcut=B")
        assert result.exit_code == 2
        assert "space: shortcut was" in result.stderr

    def test_refuses_what_it_cannot_search(self, tmp_path):
        command = ["tune", *self.SMALL, "--output", tmp_path / "run"]
        for options, word in (
            (("--budget", "params=5"), "budget='params=5'"),
            (("--set", "shortcut=[]"), "shortcut=() is empty"),
            (("--objective", "val_auc"), "objective='val_auc'"),
            (("--weights", "imagenet"), "choice of a space 'conv2_blocks' is not known"),
        ):
            result = run(*command, *options)
            assert result.exit_code == 2
            assert word in result.stderr.splitlines()[-1]
        assert not (tmp_path / "run").exists()


class TestEvaluate:
    def test_repeats_the_accuracy_of_training(self, trained, photographs):
        output, result = trained
        metrics = json.loads(result.stdout)
        answer = json.loads(run("evaluate", output, "--data", photographs, "--json").stdout)
        assert answer["accuracy"] == metrics["test_accuracy"]
        assert answer["per_class"] == metrics["per_class"]
        assert (answer["split"], answer["images"]) == ("test", 24)

    def test_tests_on_the_same_images_whatever_the_seed(self, photographs, tmp_path):
        arguments = ["--model", "cifar_resnet8", "--image-size", 16, "--epochs", 1, "--seed", 5]
        result = run("train", "--data", photographs, *arguments, "--output", tmp_path, "--json")
        metrics = json.loads(result.stdout)
        answer = json.loads(run("evaluate", tmp_path, "--data", photographs, "--json").stdout)
        assert answer["per_class"] == metrics["per_class"]

    def test_takes_a_split_and_prints_a_table(self, trained, photographs):
        output, _ = trained
        result = run("evaluate", output, "--data", f"{photographs}:validation")
        assert result.exit_code == 0, result.output
        assert "validation images" in result.stdout
        scores, confusion = result.stdout.split("Confusion,")
        assert scores.split().count("zero") == 1
        rows = [line.split() for line in confusion.splitlines()]
        for name in ("one", "zero"):
            (counts,) = (row[1:] for row in rows if row[:1] == [name] and len(row) == 3)
            assert sum(map(int, counts)) == 7

    def test_takes_a_table_of_images(self, trained, photographs, tmp_path):
        output, _ = trained
        rows = [
            f"{photographs / name / f'{index}.png'},{name},{split}"
            for name in ("zero", "one")
            for index, split in enumerate(["train"] * 5 + ["validation"] * 2 + ["test"] * 3)
        ]
        table = tmp_path / "images.csv"
        table.write_text("\n".join(["path,label,split", *rows, "lost.png,one,validation"]))
        assert "lost.png' is not an image" in refused(run("evaluate", output, "--data", table))
        arguments = [output, "--data", f"{table}:validation", "--on-error", "skip"]
        result = run("evaluate", *arguments)
        assert result.exit_code == 0, result.output
        assert "1 files were skipped:" in result.stdout
        answer = json.loads(run("evaluate", *arguments, "--json").stdout)
        assert (answer["data"], answer["split"], answer["images"]) == ("images", "validation", 4)

    def test_refuses_other_classes(self, trained):
        output, _ = trained
        line = refused(run("evaluate", output, "--data", "digits"))
        assert "MODEL knows one, zero" in line


class TestPredict:
    def test_equals_the_model_in_python(self, trained, photographs):
        output, _ = trained
        file = photographs / "zero" / "0.png"
        result = run("predict", output, file, "--json")
        assert result.exit_code == 0, result.output
        (prediction,) = json.loads(result.stdout)["predictions"]
        model = keras.saving.load_model(output / "model.keras")
        expected = model.predict(np.asarray(PIL.Image.open(file))[None], verbose=0)[0]
        assert prediction["image"] == str(file)
        assert [guess["class"] for guess in prediction["classes"]] == ["zero", "one"]
        probabilities = [guess["probability"] for guess in prediction["classes"]]
        np.testing.assert_allclose(probabilities, expected[::-1], atol=1e-5)

    def test_takes_files_and_folders_and_prints_a_table(self, trained, photographs):
        output, _ = trained
        result = run(
            "predict", output / "model.keras", photographs / "one", photographs / "zero" / "0.png",
            "--top", 1,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        rows = [line for line in result.stdout.splitlines() if ".png" in line]
        assert len(rows) == 61
        assert sum("one" in row.split()[-2] for row in rows) > 50

    def test_works_without_the_names_of_the_classes(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, input_shape=(None, None, 3), include_preprocessing=True)
        net.save(tmp_path / "net.keras")
        result = run("predict", tmp_path / "net.keras", photographs / "one" / "0.png", "--json")
        classes = json.loads(result.stdout)["predictions"][0]["classes"]
        assert all(guess["class"] in "0123456789" for guess in classes)

    def test_mistakes_are_one_line(self, trained, photographs, tmp_path):
        output, _ = trained
        image = photographs / "one" / "0.png"
        text = tmp_path / "cat.jpg"
        text.write_text("cat")
        (tmp_path / "broken.keras").write_text("nothing")
        (tmp_path / "empty").mkdir()
        for arguments, complaint in (
            ([output, "lost.jpg"], "'lost.jpg': there is no such file or folder"),
            ([output, text], "cat.jpg' is not an image"),
            ([output, tmp_path / "empty"], "no images in"),
            ([tmp_path / "empty", image], "there is no file"),
            ([tmp_path / "broken.keras", image], "is no .keras file, or not a whole one"),
            (["resnet05", image], "model 'resnet05' is not known. Did you mean ResNet50?"),
            (["ResNet18", image, "--weights", "imagnet"], "Did you mean imagenet?"),
            (["ResNet18", image, "--weights", "imagenet_v2"], "only 'imagenet_v1'"),
            (["ResNet18", image, "--weights", "lost.pth"], "there is no such file"),
            (["CIFARResNet14", image], "model with pretrained weights 'CIFARResNet14'"),
        ):
            assert complaint in refused(run("predict", *arguments))


class TestSubmission:
    @pytest.fixture
    def unknown(self, photographs, tmp_path):
        """Images as Kaggle has them, to be named."""
        folder = tmp_path / "test"
        folder.mkdir()
        for index, name in enumerate(("zero", "one", "one", "zero", "one") * 3, start=1):
            contents = (photographs / name / f"{index}.png").read_bytes()
            (folder / f"{index}.png").write_bytes(contents)
        return folder

    def test_names_every_image_in_the_order_of_numbers(self, trained, unknown, tmp_path):
        output, _ = trained
        path = tmp_path / "new" / "submission.csv"
        result = run("predict", output, unknown, "--csv", path)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [f"{path}: 15 lines"]
        head, rows = table_of(path)
        assert head == ["id", "label"]
        assert [number for number, _ in rows] == [str(number) for number in range(1, 16)]
        predictions = json.loads(run("predict", output, unknown, "--json").stdout)["predictions"]
        expected = {each["image"]: each["classes"][0]["class"] for each in predictions}
        assert rows == [[str(n), expected[str(unknown / f"{n}.png")]] for n in range(1, 16)]
        assert len(set(expected.values())) == 2

    def test_marks_one_class_or_gives_its_probability(self, trained, unknown, tmp_path):
        output, _ = trained
        path = tmp_path / "submission.csv"
        arguments = [output, unknown, "--csv", path, "--positive", "zero", "--json"]
        answer = json.loads(run("predict", *arguments).stdout)
        assert answer["csv"] == str(path)
        zeros = {
            re.search(r"(\d+)\.png", each["image"])[1]: guess["probability"]
            for each in answer["predictions"]
            for guess in each["classes"]
            if guess["class"] == "zero"
        }
        _, rows = table_of(path)
        assert rows == [[str(n), str(int(zeros[str(n)] > 0.5))] for n in range(1, 16)]
        result = run("predict", *arguments, "--probability")
        assert result.exit_code == 0, result.output
        _, rows = table_of(path)
        for number, probability in rows:
            assert float(probability) == pytest.approx(zeros[number], abs=1e-5)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--positive", "zero"], "--positive goes with --csv"),
            (["--csv", "out.csv", "--probability"], "--probability with --positive"),
            (
                ["--csv", "out.csv", "--positive", "seven"],
                "--positive 'seven': MODEL knows one, zero",
            ),
        ],
    )
    def test_mistakes_are_one_line_and_leave_nothing(
        self, trained, unknown, tmp_path, monkeypatch, arguments, complaint
    ):
        monkeypatch.chdir(tmp_path)
        output, _ = trained
        assert complaint in refused(run("predict", output, unknown, *arguments))
        assert not (tmp_path / "out.csv").exists()

    def test_a_damaged_image_leaves_none(self, trained, unknown, tmp_path):
        output, _ = trained
        first, *_ = write_damaged(unknown)
        line = refused(run("predict", output, unknown, "--csv", tmp_path / "out.csv"))
        assert repr(str(first)) in line
        assert not (tmp_path / "out.csv").exists()


class TestData:
    @pytest.fixture
    def pets(self, tmp_path):
        """Cats and dogs with two damaged files, and one image in two splits."""
        folder = tmp_path / "pets"
        start = 0
        for split, counts in (("train", (12, 4)), ("test", (3, 5))):
            for name, count in zip(("cat", "dog [x]"), counts, strict=True):
                write_images(folder / split / name, count, start=start)
                start += count
        (folder / "train" / "cat" / "zz.png").write_bytes(b"")
        (folder / "test" / "cat" / "zz.png").write_text("a letter")
        (folder / "test" / "cat" / "same.png").write_bytes(encoded(2))
        return folder

    def test_is_a_table_and_what_to_look_after(self, pets):
        result = run("data", pets)
        assert result.exit_code == 0, result.output
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["pets,", "2", "classes"] in [row[:3] for row in rows]
        assert ["class", "train", "validation", "test"] in rows
        assert ["cat", "10", "2", "4"] in rows
        assert ["dog", "[x]", "3", "1", "5"] in rows
        assert ["all", "13", "3", "9"] in rows
        assert f"The largest class has {10 / 3:.1f} times" in result.stdout
        assert "Pixels: 12x9 to 12x9, median 12x9." in result.stdout
        assert "2 images cannot be read." in result.stdout
        for damaged in ("train/cat/zz.png", "test/cat/zz.png"):
            assert f"{str(pets / damaged)!r} is not an image that can be read" in result.stdout
        assert "1 images are in more than one split." in result.stdout
        (same,) = (line for line in result.stdout.splitlines() if "the same" in line)
        for copy in ("train/cat/2.png", "test/cat/same.png"):
            assert str(pets / copy) in same

    def test_answers_in_json_alone(self, pets):
        result = run("data", pets, "--json")
        assert result.exit_code == 0, result.output
        (line,) = result.stdout.splitlines()
        answer = json.loads(line)
        assert answer["class_names"] == ["cat", "dog [x]"]
        assert answer["counts"] == {"train": [10, 3], "validation": [2, 1], "test": [4, 5]}
        assert len(answer["damaged"]) == 2
        assert len(answer["duplicates"]) == 1
        assert answer["largest"] == [12, 9]

    def test_draws_a_sheet(self, pets, tmp_path):
        sheet = tmp_path / "new" / "sheet.png"
        result = run("data", pets, "--sheet", sheet)
        assert result.exit_code == 0, result.output
        assert str(sheet) in result.stdout
        with PIL.Image.open(sheet) as image:
            assert image.size == (1320, 396)  # two rows of eight

    def test_damaged_records_are_counted(self, tmp_path):
        images = [encoded(number) for number in range(40)]
        images[17] = b"miaow"
        labels = [number % 2 for number in range(40)]
        path = write_records(tmp_path / "pets.tfrecord.gz", images, labels)
        result = run("data", path)
        assert result.exit_code == 0, result.output
        assert "1 images cannot be read." in result.stdout
        assert re.search(r"(train|validation|test): image \d+ .* cannot", result.stdout)

    def test_mistakes_are_one_line(self, tmp_path):
        write_images(tmp_path / "cat", 3)
        for source, complaint in (
            ("no/such/folder", "data 'no/such/folder': there is no such folder"),
            ("no/such.csv", "there is no such file"),
            ("no/such*.tfrecord", "there is no such file"),
            (tmp_path, "'cat' is the only class in it"),
        ):
            assert complaint in refused(run("data", source))


class TestPretrained:
    def test_weights_of_a_file_predict_as_in_python(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, classes=7, include_preprocessing=True)
        keras_resnet.pretrained.to_torch(net, tmp_path / "net.safetensors")
        image = photographs / "one" / "0.png"
        result = run(
            "predict", "cifar-resnet8", image, "--weights", tmp_path / "net.safetensors", "--json"
        )
        assert result.exit_code == 0, result.output
        classes = json.loads(result.stdout)["predictions"][0]["classes"]
        pixels = np.asarray(PIL.Image.open(image).resize((32, 32)))[None]
        expected = net.predict(pixels, verbose=0)[0]
        assert len(classes) == 5
        assert classes[0]["class"] == str(expected.argmax())
        assert classes[0]["probability"] == pytest.approx(expected.max(), abs=0.05)

    def test_training_starts_from_them_with_a_head_of_its_own(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, classes=7)
        keras_resnet.pretrained.to_torch(net, tmp_path / "net.safetensors")
        result = run(
            "train", "--data", photographs, "--model", "CIFARResNet8", "--epochs", 1,
            "--weights", tmp_path / "net.safetensors", "--image-size", 16,
            "--output", tmp_path / "run",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        model = keras.saving.load_model(tmp_path / "run" / "model.keras")
        assert model.output_shape == (None, 2)
        # The first layers, which one epoch leaves alone, are those of the file.
        np.testing.assert_array_equal(
            model.get_layer("conv1_conv").kernel, net.get_layer("conv1_conv").kernel
        )

    def test_weights_are_listed(self):
        result = run("weights", "resnet-50")
        assert result.exit_code == 0, result.output
        for cell in ("imagenet_v2", "80.86", "95.43", "BSD-3-Clause", "resnet50-11ad3fa6.pth"):
            assert cell in result.stdout
        rows = json.loads(run("weights", "--json").stdout)["weights"]
        assert len(rows) == 26
        assert {"model", "tag", "files", "top1", "licence", "options"} <= rows[0].keys()

    def test_a_net_without_any_is_refused(self):
        assert "Did you mean ResNet50?" in refused(run("weights", "resnet5"))


class TestSummary:
    def test_is_table_1_of_the_paper(self):
        result = run("summary", "resnet50")
        assert result.exit_code == 0, result.output
        rows = {
            line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.split()
        }
        assert rows["conv4"] == ["14x14x1024", "18", "7,098,368", "1.46", "G"]
        assert rows["total"] == ["50", "25,557,032", "4.09", "G"]

    def test_json_takes_any_size(self):
        result = run("summary", "CIFARResNet56", "--image-size", "64", "--json")
        answer = json.loads(result.stdout)
        assert (answer["parameters"], answer["layers"]) == (853_018, 56)
        assert answer["input_shape"] == [64, 64, 3]

    def test_wants_a_name_or_all(self):
        assert "give the NAME of a net, or --all" in refused(run("summary"))
        assert "Did you mean ResNeXt50_32x4d?" in refused(run("summary", "resnext50"))

    @pytest.mark.slow
    def test_all_is_a_line_for_every_net(self):
        result = run("summary", "--all", "--json")
        models = json.loads(result.stdout)["models"]
        assert [model["model"] for model in models][:2] == ["resnet18", "resnet34"]
        assert len(models) == 15


class TestExport:
    def test_saved_model_of_a_run_is_verified_on_test_images(self, trained, photographs, tmp_path):
        output, _ = trained
        arguments = ["--calibrate", photographs, "--precision", "bfloat16", "--json"]
        result = run("export", output, "--output", tmp_path / "pair", *arguments)
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        folder = tmp_path / "pair" / "1"
        assert answer["output"] == str(folder)
        assert (answer["runtime"], answer["made_up"]) == ("TensorFlow", False)
        assert answer["agreement"] >= 0.99
        assert answer["images"] == len(data.load(photographs).test)
        assert (folder / "assets" / "labels.txt").read_text() == "one\nzero\n"
        again = run("export", output, "--output", tmp_path / "pair")
        assert again.exit_code == 0, again.output
        assert str(tmp_path / "pair" / "2") in again.stdout

    @pytest.mark.parametrize("precision", ["float32", "int8"])
    def test_litert_file_with_its_card_and_labels(self, trained, photographs, tmp_path, precision):
        output, _ = trained
        arguments = ["--format", "litert", "--precision", precision, "--calibrate", photographs]
        result = run("export", output, "--output", tmp_path, *arguments)
        assert result.exit_code == 0, result.output
        assert "LiteRT" in result.stdout
        assert {file.name for file in tmp_path.iterdir()} == {
            "cifar_resnet8.tflite",
            "cifar_resnet8.tflite.json",
            "labels.txt",
        }
        card = json.loads((tmp_path / "cifar_resnet8.tflite.json").read_text())
        assert (card["precision"], card["labels"]) == (precision, ["one", "zero"])

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--precision", "int8"], "--format saved_model knows float32, bfloat16"),
            (["--format", "litert", "--precision", "int8"], "needs --calibrate SOURCE"),
            (["--format", "onnx", "--precision", "bfloat16"], "--format onnx knows float32"),
            (["--format", "litert", "--resize"], "--resize and --image-dtype are for"),
            (["--image-dtype", "uint8", "--batch-size", "2", "--output", "."], "no folder of a"),
        ],
    )
    def test_mistakes(self, trained, tmp_path, arguments, reason, monkeypatch):
        output, _ = trained
        (tmp_path / "something").write_text("else")
        monkeypatch.chdir(tmp_path)
        assert reason in refused(run("export", output, "--output", tmp_path / "new", *arguments))
        assert [file.name for file in tmp_path.iterdir()] == ["something"]


class TestBench:
    def test_models_side_by_side(self, trained, photographs, tmp_path):
        output, _ = trained
        file = tmp_path / "cifar_resnet8.tflite"
        assert run("export", output, "--output", tmp_path, "--format", "litert").exit_code == 0
        arguments = ["--images", photographs, "--seconds", "0.1", "--batch-size", "2", "--json"]
        result = run("bench", output / "saved_model", file, *arguments)
        assert result.exit_code == 0, result.output
        ours, theirs = json.loads(result.stdout)["results"]
        assert (ours["path"], ours["runtime"]) == (str(output / "saved_model" / "1"), "TensorFlow")
        assert (theirs["path"], theirs["runtime"]) == (str(file), "LiteRT")
        for latency in (ours, theirs):
            assert latency["batch_size"] == 2
            assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
            assert latency["images_per_second"] > 0
        assert "images/s" in result.stderr

    def test_what_is_no_exported_model(self, tmp_path):
        line = refused(run("bench", tmp_path))
        assert "is no exported model" in line
