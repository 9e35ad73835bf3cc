import json

from commands import refused, run

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
        assert "1 files were skipped:" in result.stdout
        answer = json.loads(run("evaluate", *arguments, "--json").stdout)
        assert (answer["data"], answer["split"], answer["images"]) == ("images", "validation", 4)

    def test_refuses_other_classes(self, trained):
        output, _ = trained
        line = refused(run("evaluate", output, "--data", "digits"))
        assert "the model knows one, zero" in line
