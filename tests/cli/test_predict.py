import json
import re

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run, table_of
from pictures import write_damaged

import keras_resnet


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
            ([tmp_path / "broken.keras", image], "is not a .keras file, or not a whole one"),
            (["resnet05", image], "model 'resnet05' is not known. Did you mean ResNet50?"),
            (["ResNet18", image, "--weights", "imagnet"], "Did you mean imagenet?"),
            (["ResNet18", image, "--weights", "imagenet_v2"], "only 'imagenet_v1'"),
            (["ResNet18", image, "--weights", "lost.pth"], "there is no such file"),
            (["CIFARResNet14", image], "model with pretrained weights 'CIFARResNet14'"),
        ):
            assert complaint in refused(run("predict", *arguments))

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
            (["--positive", "zero"], "positive needs csv"),
            (["--csv", "out.csv", "--probability"], "probability needs positive"),
            (
                ["--csv", "out.csv", "--positive", "seven"],
                "positive='seven': the model knows one, zero",
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
