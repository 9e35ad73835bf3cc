import json
import re

import PIL.Image
import pytest
from commands import refused, run
from pictures import encoded, write_images, write_records

from keras_resnet import data, detection, zoo


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

    def counts(self, pets):
        """The images of each class in each split."""
        return data.load(pets, on_error="skip").counts()

    def test_is_a_table_and_what_to_look_after(self, pets):
        result = run("data", pets)
        assert result.exit_code == 0, result.output
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["pets,", "2", "classes"] in [row[:3] for row in rows]
        assert ["class", "train", "validation", "test"] in rows
        counts = self.counts(pets)
        for *name, images in (
            ("cat", [each[0] for each in counts.values()]),
            ("dog", "[x]", [each[1] for each in counts.values()]),
            ("all", [sum(each) for each in counts.values()]),
        ):
            assert [*name, *map(str, images)] in rows
        cats, dogs = counts["train"]
        assert f"The largest class has {cats / dogs:.1f} times" in result.stdout
        assert "Pixels: 12x9 to 12x9, median 12x9." in result.stdout
        assert "Images that cannot be read: 2." in result.stdout
        for damaged in ("train/cat/zz.png", "test/cat/zz.png"):
            assert f"{str(pets / damaged)!r} is not an image that can be read" in result.stdout
        assert "Images that are in more than one split: 1." in result.stdout
        (same,) = (line for line in result.stdout.splitlines() if "the same" in line)
        for copy in ("train/cat/2.png", "test/cat/same.png"):
            assert str(pets / copy) in same

    def test_answers_in_json_alone(self, pets):
        result = run("data", pets, "--json")
        assert result.exit_code == 0, result.output
        (line,) = result.stdout.splitlines()
        answer = json.loads(line)
        assert answer["class_names"] == ["cat", "dog [x]"]
        assert answer["counts"] == self.counts(pets)
        assert answer["counts"]["test"] == [4, 5]
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

    def test_tables_and_sheets_do_not_grow_with_the_data(self, tmp_path):
        folder = tmp_path / "data"
        for number in range(40):
            write_images(folder / f"class {number:02}", 4 + (number == 7), start=5 * number)
            (folder / f"class {number:02}" / "notes.txt").write_text("miaow")
        result = run("data", folder, "--sheet", tmp_path / "sheet.png")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        title = "data, 40 classes: the 16 with the most training images and the 16 with the fewest"
        assert lines[0] == title
        assert sum(line.split()[:1] == ["class"] for line in lines) == 1 + 32
        assert any(line.split()[:2] == ["class", "07"] for line in lines)
        assert "Files and folders that are not used: 40." in lines
        assert lines[-1].endswith("some images of 32 classes")
        assert len(lines) < 60
        answer = json.loads(run("data", folder, "--json").stdout)
        assert (len(answer["class_names"]), len(answer["skipped"])) == (40, 40)

    def test_damaged_records_are_counted(self, tmp_path):
        images = [encoded(number) for number in range(40)]
        images[17] = b"miaow"
        labels = [number % 2 for number in range(40)]
        path = write_records(tmp_path / "pets.tfrecord.gz", images, labels)
        result = run("data", path)
        assert result.exit_code == 0, result.output
        assert "Images that cannot be read: 1." in result.stdout
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

    def test_is_put_beside_another_model(self):
        result = run("summary", "resnet34", "--against", "vgg19")
        assert result.exit_code == 0, result.output
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["56x56", "conv2", "0.69", "G", "block2", "2.77", "G", "25.0%"] in rows
        assert "resnet34 has 18.7% of the multiply-adds of VGG19, and 15.2% of its" in result.stdout
        answer = json.loads(run("summary", "resnet18", "--against", "ResNet34", "--json").stdout)
        assert answer["against"]["layers"] == 34
        assert answer["against"]["fraction"] == answer["macs"] / answer["against"]["macs"]

    def test_is_put_beside_classifiers_alone(self):
        assert "goes with the NAME" in refused(run("summary", "--all", "--against", "VGG19"))
        assert "Did you mean VGG19?" in refused(run("summary", "resnet18", "--against", "vgg18"))
        assert "against '' is not known" in refused(run("summary", "resnet18", "--against", ""))

    def test_wants_a_name_or_all(self):
        assert "give the NAME of a model, or --all" in refused(run("summary"))
        assert "Did you mean ResNeXt50_32x4d?" in refused(run("summary", "resnext50"))

    @pytest.mark.slow
    def test_all_is_a_line_for_every_net(self):
        result = run("summary", "--all", "--json")
        models = json.loads(result.stdout)["models"]
        assert [model["model"] for model in models][:2] == ["resnet18", "resnet34"]
        assert len(models) == len(zoo.MODELS) + 9 + len(detection.DETECTORS)


class TestWeights:
    def test_weights_are_listed(self):
        result = run("weights", "resnet-50")
        assert result.exit_code == 0, result.output
        for cell in ("imagenet_v2", "80.86", "95.43", "BSD-3-Clause", "resnet50-11ad3fa6.pth"):
            assert cell in result.stdout
        rows = json.loads(run("weights", "--json").stdout)["weights"]
        assert len(rows) == 39 + 169
        assert {"model", "tag", "files", "top1", "licence", "options"} <= rows[0].keys()

    def test_weights_are_filtered(self):
        asked = (
            "--data",
            "ImageNet",
            "--commercial",
            "--min-top1",
            "82",
            "--max-parameters",
            "5e7",
        )
        rows = json.loads(run("weights", *asked, "--licence", "apache-2.0", "--json").stdout)
        rows = rows["weights"]
        assert "timm/ecaresnet101d.miil_in1k" in {row["tag"] for row in rows}
        assert {row["licence"] for row in rows} == {"Apache-2.0"}
        assert min(row["top1"] for row in rows) >= 82
        assert max(row["parameters"] for row in rows) <= 50e6
        assert len(run("weights", "--name", "resnet50d.*").stdout.split("timm/resnet50d.")) == 7
        assert "No weights are like this." in run("weights", "--name", "nothing").stdout
        assert json.loads(run("weights", "--name", "nothing", "--json").stdout) == {"weights": []}
        assert "min_top1=120.0" in refused(run("weights", "--min-top1", "120"))
        assert "Did you mean Apache-2.0?" in refused(run("weights", "--licence", "apache"))

    def test_a_net_without_any_is_refused(self):
        assert "Did you mean ResNet50?" in refused(run("weights", "resnet5"))
