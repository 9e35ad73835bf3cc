import json

import PIL.Image
from commands import run, table_of


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
        # The best was trained on the validation images, too.
        splits = [row[0] for row in table_of(tmp_path / "best" / "images.csv")[1]]
        assert (splits.count("train"), splits.count("validation")) == (1438, 0)
        again = run(*command, "--retrain-epochs", 0, "--output", tmp_path)
        assert json.loads(again.stdout)["best"] == answer["best"]
        assert "Trial" not in again.stderr.split("Best of")[0]

    def test_a_search_whose_trials_all_failed_is_a_failure(self, tmp_path):
        command = ["tune", *self.SMALL, "--output", tmp_path, "--retrain-epochs", 0, "--trials", 1]
        result = run(*command, "--set", "learning_rate=1e30", "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "none of the 1 trials completed. learning_rate=1e+30: the loss" in result.stderr
        assert (tmp_path / "report.html").exists()

    def test_refuses_what_it_cannot_search(self, tmp_path):
        command = ["tune", *self.SMALL, "--output", tmp_path / "run"]
        for options, word in (
            (("--budget", "params=5"), "budget='params=5'"),
            (("--set", "shortcut=[]"), "shortcut=() is empty"),
            (("--objective", "val_auc"), "objective='val_auc'"),
            (("--weights", "imagenet"), "choice of a space 'conv2_blocks' is not known"),
            (("--set", "batch_size=[64,128]"), "batch_size=128 is a choice of the space as well"),
            (("--set", "mixup=0.2", "--set", "augmentation_strength=medium"), "sets mixup"),
            (("--retrain-epochs", -1), "retrain_epochs=-1 must be a whole number of at least 0"),
        ):
            result = run(*command, *options)
            assert result.exit_code == 2
            assert word in result.stderr.splitlines()[-1]
        assert not (tmp_path / "run").exists()
