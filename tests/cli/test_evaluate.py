import json
import shutil

from commands import refused, run
from pictures import write_images

from keras_resnet import data


class TestEvaluate:
    def test_repeats_the_accuracy_of_training(self, trained, photographs):
        output, result = trained
        metrics = json.loads(result.stdout)
        answer = json.loads(run("evaluate", output, "--data", photographs, "--json").stdout)
        assert answer["accuracy"] == metrics["test_accuracy"]
        assert answer["per_class"] == metrics["per_class"]
        assert (answer["split"], answer["images"]) == ("test", len(data.load(photographs).test))

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
        scores, confusion = result.stdout.split("Confusion:")
        assert scores.split().count("zero") == 1
        rows = [line.split() for line in confusion.splitlines()]
        of_class = data.load(photographs).validation.counts(2)
        for name, images in zip(("one", "zero"), of_class, strict=True):
            (counts,) = (row[1:] for row in rows if row[:1] == [name] and len(row) == 3)
            assert sum(map(int, counts)) == images

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
        assert "1 file was skipped:" in result.stdout
        answer = json.loads(run("evaluate", *arguments, "--json").stdout)
        assert (answer["data"], answer["split"], answer["images"]) == ("images", "validation", 4)

    def test_refuses_other_classes(self, trained):
        output, _ = trained
        line = refused(run("evaluate", output, "--data", "digits"))
        assert "the model knows one, zero" in line


class TestOwnImages:
    """A run knows its images: those it was trained on, and those to test on."""

    def test_are_tested_on_without_data(self, trained, photographs):
        output, result = trained
        metrics = json.loads(result.stdout)
        for model in (output, output / "model.keras"):
            answer = json.loads(run("evaluate", model, "--json").stdout)
            assert answer["per_class"] == metrics["per_class"]
            assert (answer["split"], answer["images"]) == ("test", metrics["test_images"])
            assert (answer["trained_on"], answer["changed"], answer["gone"]) == (0, 0, 0)
        counts = {name: sum(each) for name, each in data.load(photographs).counts().items()}
        for split, images in (*counts.items(), ("all", 120)):
            answer = json.loads(run("evaluate", output, "--split", split, "--json").stdout)
            assert (answer["split"], answer["images"]) == (split, images)
            assert answer["trained_on"] == (counts["train"] if split in ("train", "all") else 0)

    def test_that_have_changed_are_left_out_and_told(self, trained, tmp_path):
        output = shutil.copytree(trained[0], tmp_path / "run")
        table = (output / "images.csv").read_text()
        first, second, *others = [row for row in table.splitlines() if row.startswith("test,")]
        table = table.replace(first, f"{first[:-16]}{'0' * 16}")
        table = table.replace(second, second.replace(".png", ".lost"))
        (output / "images.csv").write_text(table)
        result = run("evaluate", output)
        assert result.exit_code == 0, result.output
        assert "1 of the run's images have changed since training" in result.stdout
        assert "1 of the run's images are gone" in result.stdout
        answer = json.loads(run("evaluate", output, "--json").stdout)
        assert (answer["changed"], answer["gone"], answer["images"]) == (1, 1, len(others))

    def test_are_told_among_other_data(self, trained, photographs, tmp_path):
        """More images, and others, in a folder like that of the training."""
        output, _ = trained
        folder = shutil.copytree(photographs, tmp_path / "more")
        for label, name in enumerate(("one", "zero")):
            write_images(folder / name, 40, start=1000 * label)  # the first 40 are others now
        before = {*data.load(photographs).train.digests()}
        everything = run("evaluate", output, "--data", f"{folder}:all", "--json")
        answer = json.loads(everything.stdout)
        now = data.load(folder)
        trained_on = sum(
            digest in before for split in now.splits.values() for digest in split.digests()
        )
        assert (answer["images"], answer["trained_on"]) == (120, trained_on)
        result = run("evaluate", output, "--data", folder)
        assert f"These are the {len(now.test)} test images of 120." in result.stdout
        assert f"{folder}:all tests on all of them" in result.stdout
        assert (
            json.loads(run("evaluate", output, "--data", folder, "--json").stdout)["trained_on"]
            == 0
        )
        result = run("evaluate", output, "--data", f"{folder}:train")
        assert "to train the model" not in result.stdout

    def test_all_of_a_few_can_be_tested_on(self, trained, photographs, tmp_path):
        output, _ = trained
        for name in ("one", "zero"):
            (tmp_path / name).mkdir()
            shutil.copy(photographs / name / "0.png", tmp_path / name)
        assert "too few to split" in refused(run("evaluate", output, "--data", tmp_path))
        answer = json.loads(run("evaluate", output, "--data", f"{tmp_path}:all", "--json").stdout)
        assert answer["images"] == 2
        assert answer["split"] == "all"

    def test_other_data_is_split_as_that_of_the_run(self, trained, photographs, tmp_path):
        output = shutil.copytree(trained[0], tmp_path / "run")
        metrics = json.loads((output / "metrics.json").read_text())
        for fraction in (0.4, 0.0):
            metrics["loaded"]["validation"] = fraction
            (output / "metrics.json").write_text(json.dumps(metrics))
            result = run("evaluate", output, "--data", f"{photographs}:val", "--json")
            if fraction:
                expected = len(data.load(photographs, validation=fraction).validation)
                assert json.loads(result.stdout)["images"] == expected
            else:
                assert "has no validation images: the run held out none" in refused(result)

    def test_a_model_that_is_no_run_wants_data(self, trained, tmp_path):
        shutil.copy(trained[0] / "model.keras", tmp_path / "other.keras")
        for model in (tmp_path / "other.keras", "ResNet18"):
            assert "give the images to test on, --data" in refused(run("evaluate", model))
