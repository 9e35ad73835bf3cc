import dataclasses
import json
import os
import random
import signal
import time
from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pytest
import quick_search
from errors import one_line_error
from quick_search import ended, few_images, in_a_process, runs, search

import keras_resnet
from keras_resnet import data, training, tuning
from keras_resnet.files import LockedError, locked
from keras_resnet.tuning import hypermodel as hypermodels
from keras_resnet.tuning import oracles
from keras_resnet.tuning.records import best, champion

FOUR_DEVICES = SimpleNamespace(num_replicas_in_sync=4)
SMALL = {
    "block": "basic",
    "width": [0.5, 0.75],
    "shortcut": "A",
    "conv2_blocks": [1, 2],
    "conv3_blocks": 1,
    "conv4_blocks": 1,
    "augmentation_strength": "none",
}


@pytest.fixture(scope="module")
def digits():
    """A hundred digits: a trial takes as long as it takes TensorFlow to trace its functions."""
    whole = data.load("digits")
    few = {
        name: split.take(np.arange(count))
        for name, split, count in (
            ("train", whole.train, 60),
            ("validation", whole.validation, 20),
            ("test", whole.test, 20),
        )
    }
    return dataclasses.replace(whole, **few)


def found(tuner):
    return [(each.number, each.values, each.score, each.status) for each in tuner.record().trials]


class TestKills:
    @pytest.mark.parametrize(
        ("algorithm", "seed", "kills"),
        [
            ("hyperband", 1, 4),
            pytest.param("hyperband", 2, 20, marks=pytest.mark.slow),
            pytest.param("random", 3, 20, marks=pytest.mark.slow),
        ],
    )
    def test_lose_no_trial_and_repeat_none(self, processes, tmp_path, algorithm, seed, kills):
        options = dict(algorithm=algorithm, trials=24, epochs=9, seed=seed, seconds=0.05)
        expected = found(search(tmp_path / "whole", **options))
        assert len(expected) == 24
        folder, chance, before = tmp_path / "killed", random.Random(seed), set()
        folder.mkdir()
        for _ in range(kills):
            process = processes.Process(target=in_a_process, args=(folder,), kwargs=options)
            begun = len(runs(folder))
            process.start()
            while process.is_alive() and len(runs(folder)) == begun:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.15))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert not {name for name, _ in runs(folder)[begun:]} & before
            before = ended(folder)
        tuner = search(folder, **options)
        assert not {name for name, pid in runs(folder) if pid == str(os.getpid())} & before
        assert found(tuner) == expected

    def test_between_any_two_files_are_put_right(self, tmp_path):
        options = dict(algorithm="hyperband", trials=2, epochs=3, seed=3)
        expected, written = found(search(tmp_path / "whole", **options)), []
        write = oracles.write_text
        for moment in range(1000):
            folder = tmp_path / str(moment)
            folder.mkdir()

            def until(path, text, moment=moment):
                if len(written) == moment:
                    raise KeyboardInterrupt
                written.append(path)
                write(path, text)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(oracles, "write_text", until)
                try:
                    search(folder, **options)
                    break
                except KeyboardInterrupt:
                    pass
            written.clear()
            before = ended(folder)
            count = len(runs(folder))
            assert found(search(folder, **options)) == expected
            assert not {name for name, _ in runs(folder)[count:]} & before
        assert moment > 8


class TestParallel:
    def environment(self, port, name):
        return {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
        }

    def start(self, processes, folder, port, name, **options):
        process = processes.Process(
            target=in_a_process,
            args=(folder,),
            kwargs={"environment": self.environment(port, name), "timeout": 10.0, **options},
        )
        process.start()
        return process

    @pytest.mark.parametrize("algorithm", ["hyperband", "random"])
    def test_every_trial_is_run_once(self, processes, tmp_path, algorithm, free_port):
        options = dict(algorithm=algorithm, trials=17, epochs=9, seconds=0.1)
        started = [
            self.start(processes, tmp_path, free_port, name, **options)
            for name in ("chief", "worker0", "worker1")
        ]
        for process in started:
            process.join(60)
            assert process.exitcode == 0
        names = [name for name, _ in runs(tmp_path)]
        assert sorted(names) == sorted(set(names)) == sorted(ended(tmp_path))
        assert len(names) == 17
        assert len({process for _, process in runs(tmp_path)}) == 2

    def test_a_lost_worker_gives_its_trial_to_another(self, processes, tmp_path, free_port):
        options = dict(algorithm="random", trials=4, epochs=1, timeout=4.0)
        chief = self.start(processes, tmp_path, free_port, "chief", **options)
        lost = self.start(processes, tmp_path, free_port, "worker0", seconds=60, **options)
        wait_until(lambda: runs(tmp_path))
        lost.kill()
        other = self.start(processes, tmp_path, free_port, "worker1", seconds=0.1, **options)
        for process in (chief, other):
            process.join(60)
            assert process.exitcode == 0
        assert len(ended(tmp_path)) == 4
        assert [name for name, _ in runs(tmp_path)].count("trial_0") == 2

    def test_a_worker_that_was_given_up_may_end_its_trial_after_all(self, tmp_path):
        oracle = search(tmp_path, algorithm="random", trials=1, epochs=1).oracle
        oracle.max_trials = 3
        trial = oracle.create_trial("worker0")
        assert oracle.give_up(-1.0) == ["worker0"]
        oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5, "seconds": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        following = oracle.create_trial("worker0")
        assert following.trial_id != trial.trial_id
        assert oracle.trials[trial.trial_id].status == "COMPLETED"
        following.status = "FAILED"
        oracle.end_trial(following)
        assert oracle.create_trial("worker0").status == "STOPPED"
        assert not oracle.ongoing_trials

    def test_drawing_that_takes_long_does_not_keep_workers_waiting(self, tmp_path):
        tuner = search(tmp_path, algorithm="random", trials=1, epochs=1, timeout=1.0)
        tuner.oracle.max_trials = 2
        tuner.hypermodel.undecided = 10
        statuses = [tuner.oracle.create_trial("worker0").status for _ in range(10)]
        assert statuses[:3] == ["IDLE"] * 3
        assert statuses[-1] == "RUNNING"

    def test_a_chief_that_is_killed_goes_on(self, processes, tmp_path, free_port):
        options = dict(algorithm="random", trials=12, epochs=1, seconds=0.2)
        chief = self.start(processes, tmp_path, free_port, "chief", **options)
        workers = [
            self.start(processes, tmp_path, free_port, f"worker{index}", **options)
            for index in range(2)
        ]
        wait_until(lambda: len(ended(tmp_path)) > 3)
        chief.kill()
        for worker in workers:
            worker.join(60)  # with an error, or to its end with the next chief
        before = ended(tmp_path)
        count = len(runs(tmp_path))
        again = [
            self.start(processes, tmp_path, free_port, name, **options)
            for name in ("chief", "worker0", "worker1")
        ]
        for process in again:
            process.join(60)
            assert process.exitcode == 0
        assert not {name for name, _ in runs(tmp_path)[count:]} & before
        assert len(ended(tmp_path)) == 12

    def test_a_worker_without_a_chief_says_so(self, tmp_path, monkeypatch, free_port):
        for name, value in self.environment(free_port, "worker0").items():
            monkeypatch.setenv(name, value)
        with pytest.raises(tuning.LostChiefError, match="no chief of a search answered there"):
            search(tmp_path, timeout=0.5)

    def test_a_chief_whose_port_is_in_use_says_so(self, tmp_path, monkeypatch, used_port):
        for name, value in self.environment(used_port, "chief").items():
            monkeypatch.setenv(name, value)
        with one_line_error(f"KERASTUNER_ORACLE_PORT='{used_port}'", "cannot listen"):
            search(tmp_path, timeout=5)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def used_port():
    import socket

    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        yield used.getsockname()[1]


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class TestFailures:
    @pytest.mark.parametrize("algorithm", ["hyperband", "random"])
    def test_of_trials_are_recorded_and_passed_over(self, tmp_path, algorithm):
        tuner = search(tmp_path, algorithm=algorithm, trials=16, epochs=9, failing=0.6)
        record = tuner.record()
        failed = [trial for trial in record.trials if trial.status == "failed"]
        assert len(record.trials) == 16
        assert len(failed) > 3
        assert {trial.message for trial in failed} == {"no memory for that"}
        if algorithm == "hyperband":  # which goes on with the best, all the same
            assert any(trial.epochs == 9 for trial in record.trials)

    def test_that_end_the_process_are_given_up_in_the_end(self, processes, tmp_path):
        options = dict(algorithm="random", trials=3, epochs=1, seed=4, crashing=True)
        for _ in range(20):
            process = processes.Process(target=in_a_process, args=(tmp_path,), kwargs=options)
            process.start()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGABRT
        record = search(tmp_path, **options).record()
        failed = {trial.number for trial in record.trials if trial.status == "failed"}
        assert failed
        assert failed == {t.number for t in record.trials if t.values["conv2_blocks"] > 4}
        for number in failed:
            assert [name for name, _ in runs(tmp_path)].count(f"trial_{number - 1}") == 5
            assert "ended 5 times without a message" in record.trials[number - 1].message

    def test_of_all_trials_leave_nothing_to_train(self, tmp_path):
        tuner = search(tmp_path, trials=3, epochs=1, failing=1.0)
        with one_line_error("none of the 3 trials completed", "no memory for that"):
            tuning.retrain(tuner, few_images())

    def test_a_loss_that_becomes_nan_is_one(self, tmp_path, digits):
        space = {**SMALL, "learning_rate": [1e30, 2e30]}
        hypermodel = tuning.ResNetHyperModel((8, 8, 1), 10, space)
        tuner = tuning.search(
            hypermodel, digits, algorithm="random", trials=1, epochs=1, directory=tmp_path
        )
        (trial,) = tuner.record().trials
        assert trial.status == "failed"
        assert "the loss became NaN or infinite" in trial.message

    def test_a_mistake_ends_the_search(self, tmp_path, digits):
        hypermodel = tuning.ResNetHyperModel((8, 8, 1), 10, SMALL)
        options = dict(trials=1, epochs=1, directory=tmp_path)
        with one_line_error("class_weight has [10]"):
            tuning.search(hypermodel, digits, class_weight={10: 2.0}, **options)

    def test_a_model_of_other_classes_ends_it_before_it_begins(self, tmp_path, digits):
        hypermodel = tuning.ResNetHyperModel((8, 8, 1), 9, SMALL)
        with one_line_error("classes=9", "digits has 10"):
            tuning.search(hypermodel, digits, directory=tmp_path)
        assert not list(tmp_path.iterdir())


class TestBudget:
    @pytest.mark.parametrize(
        ("algorithm", "trials"), [("hyperband", 24), ("random", 20), ("bayesian", 13)]
    )
    def test_what_is_over_it_is_never_trained(self, tmp_path, algorithm, trials):
        tuner = search(tmp_path, algorithm=algorithm, trials=trials, epochs=3, budget="params=6e4")
        record = tuner.record()
        assert len(record.trials) == trials
        assert all(trial.parameters <= 6e4 for trial in record.trials)
        assert record.declined > 5
        assert len(runs(tmp_path)) == len(record.trials)

    def test_what_a_net_takes_is_measured_once_for_all_processes(self, tmp_path, monkeypatch):
        measured = []
        monkeypatch.setattr(hypermodels, "milliseconds", lambda net: measured.append(net) or 1.0)
        options = dict(algorithm="random", epochs=1, budget="ms=2")
        search(tmp_path, trials=3, **options)
        count = len(measured)
        search(tmp_path, trials=3, **options)
        assert count >= 3
        # Only the smallest model is measured again, to check the budget before the search begins.
        assert len(measured) == count + 1

    def test_declined_ones_are_counted_over_interruptions(self, tmp_path):
        options = dict(algorithm="random", budget="params=6e4", epochs=1, seed=5)
        whole = search(tmp_path / "whole", trials=12, **options).record()
        for trials in (4, 8, 12):
            parts = search(tmp_path / "parts", trials=trials, **options).record()
        assert parts.declined == whole.declined > 0


class TestSearch:
    def test_ends_where_the_space_does(self, tmp_path):
        space = {**SMALL, "learning_rate": 0.1, "weight_decay": 0.0, "label_smoothing": 0.0}
        tuner = search(tmp_path, algorithm="random", trials=9, epochs=1, space=space)
        assert len(tuner.record().trials) == 4

    @pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
    def test_bayesian_optimization_begins_after_ten_trials(self, tmp_path):
        random, bayesian = (
            search(tmp_path / algorithm, algorithm=algorithm, trials=11, epochs=1).record().trials
            for algorithm in ("random", "bayesian")
        )
        assert [trial.values for trial in random[:10]] == [trial.values for trial in bayesian[:10]]
        assert random[10].values != bayesian[10].values

    def test_its_time_ends_with_it(self, tmp_path):
        tuner = search(tmp_path, trials=2, epochs=1, seconds=0.1)
        seconds = tuner.record().seconds
        assert seconds > 0.2
        time.sleep(0.1)
        assert tuner.record().seconds == seconds

    def test_goes_on_where_it_was(self, tmp_path):
        whole = search(tmp_path / "whole", trials=10, epochs=9)
        search(tmp_path / "parts", trials=4, epochs=9)
        parts = search(tmp_path / "parts", trials=10, epochs=9)
        assert found(parts) == found(whole)
        assert len(runs(tmp_path / "parts")) == 10

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"seed": 1}, "seed was 0, is 1"),
            ({"epochs": 4}, "epochs was 3, is 4"),
            ({"budget": "params=1e6"}, "budget was '', is 'params=1000000'"),
        ],
    )
    def test_another_one_in_its_folder_is_refused(self, tmp_path, change, name):
        search(tmp_path, trials=1, epochs=3)
        with one_line_error("holds another search", name):
            search(tmp_path, **{"trials": 2, "epochs": 3, **change})

    def test_one_on_other_images_is_refused(self, tmp_path):
        search(tmp_path, trials=1, epochs=3)
        settings = json.loads((tmp_path / "search.json").read_text())
        for former, why in (
            ("0" * 16, "the images, labels or classes have changed"),
            ("contents-", "knew images by name"),
        ):
            (tmp_path / "search.json").write_text(json.dumps({**settings, "data": former}))
            with one_line_error("holds another search", "data was", why):
                search(tmp_path, trials=2, epochs=3)

    def test_one_of_before_whose_tests_showed_less_than_its_training_is_refused(self, tmp_path):
        file, options = tmp_path / "search.json", dict(epochs=3, crop=0.5)
        search(tmp_path, trials=1, **options)
        settings = json.loads(file.read_text())
        del settings["view"]
        file.write_text(json.dumps(settings))
        with one_line_error("holds another search", "view was None"):
            search(tmp_path, trials=2, **options)

    def test_one_that_has_not_begun_binds_nobody(self, tmp_path, monkeypatch):
        def fail(*_, **options):
            raise ValueError("a mistake")

        with monkeypatch.context() as patched:
            patched.setattr("keras_resnet.tuning.tuner.Tuner.search", fail)
            with pytest.raises(ValueError, match="a mistake"):
                search(tmp_path, trials=1, epochs=3)
        assert len(search(tmp_path, trials=2, epochs=9).record().trials) == 2

    def test_another_precision_or_weighting_in_its_folder_is_refused(self, tmp_path, monkeypatch):
        search(tmp_path, trials=1, epochs=3)
        with one_line_error("class_weight was None, is {'0': 2.0}"):
            search(tmp_path, trials=2, epochs=3, class_weight={0: 2.0})
        monkeypatch.setattr(keras.config, "dtype_policy", lambda: keras.DTypePolicy("bfloat16"))
        with one_line_error("precision was 'float32', is 'bfloat16'"):
            search(tmp_path, trials=2, epochs=3)

    def test_fields_that_recipes_did_not_have_yet_do_not_make_another_one(self, tmp_path):
        search(tmp_path, trials=1, epochs=3)
        settings = json.loads((tmp_path / "search.json").read_text())
        del settings["recipe"]["ema"], settings["recipe"]["milestones"]
        (tmp_path / "search.json").write_text(json.dumps(settings))
        assert len(search(tmp_path, trials=2, epochs=3).record().trials) == 2
        settings["recipe"]["momentum"] = 0.5
        (tmp_path / "search.json").write_text(json.dumps(settings))
        with one_line_error("recipe: momentum was 0.5, is 0.9"):
            search(tmp_path, trials=3, epochs=3)

    def test_another_one_at_the_same_time_is_refused(self, tmp_path):
        with locked(tmp_path), one_line_error("is in use: another process"):
            search(tmp_path, trials=1, epochs=1)

    def test_another_space_in_its_folder_is_refused(self, tmp_path, monkeypatch):
        search(tmp_path, trials=1, epochs=3)
        monkeypatch.setitem(quick_search.CHOICES, "width", [0.5, 2.0])
        with one_line_error("space: width was [0.5, 1.0], is [0.5, 2.0]"):
            search(tmp_path, trials=2, epochs=3)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"objective": "val_auc"}, ["objective='val_auc'", "val_accuracy, val_loss"]),
            ({"trials": 0}, ["trials=0"]),
            ({"algorithm": "grid"}, ["algorithm 'grid'", "hyperband"]),
            ({"timeout": 0}, ["timeout=0"]),
            ({"objective": "loss"}, ["objective='loss'", "augmentation_strength", "val_loss"]),
            ({"objective": "accuracy"}, ["objective='accuracy'", "choose val_accuracy"]),
            (
                {"space": {"batch_size": [64, 62], "width": 1.0}, "strategy": FOUR_DEVICES},
                ["batch_size=62 cannot be divided among 4 devices"],
            ),
        ],
    )
    def test_wrong_arguments_are_named(self, tmp_path, options, words):
        with one_line_error(*words):
            search(tmp_path, **options)
        assert not list(tmp_path.iterdir())

    def test_training_is_compared_where_it_is_the_same(self, tmp_path):
        space = {**quick_search.CHOICES, "augmentation_strength": "none", "label_smoothing": 0.1}
        # Quick trials do not measure it.
        with pytest.raises(ValueError, match=r"Objective value missing .*'accuracy'"):
            search(tmp_path, trials=1, epochs=1, space=space, objective="accuracy")

    def test_an_earlier_versions_losses_are_not_compared_silently(self, tmp_path, caplog):
        options = dict(objective="val_loss", epochs=1, algorithm="random")
        search(tmp_path, trials=1, **options)
        search(tmp_path, trials=2, **options)
        assert not caplog.text
        settings = json.loads((tmp_path / "search.json").read_text())
        assert settings.pop("val_loss") == "of plain labels"
        (tmp_path / "search.json").write_text(json.dumps(settings))
        search(tmp_path, trials=3, **options)
        assert "do not compare with those before" in caplog.text
        assert "val_loss" not in json.loads((tmp_path / "search.json").read_text())

    def test_one_without_a_completed_trial_has_no_champion(self, tmp_path):
        tuner = search(tmp_path, trials=2, epochs=1, failing=2.0)
        with one_line_error("none of the 2 trials completed. no memory for that"):
            champion(tuner.record())
        with one_line_error("the search has no trials: all 7 models that were drawn are over"):
            champion(dataclasses.replace(tuner.record(), trials=[], declined=7))

    def test_a_trial_that_another_worker_still_runs_is_waited_for(self, tmp_path, monkeypatch):
        fit, calls = quick_search.Quick.fit, []

        def first_in_use(*arguments, **options):
            calls.append(1)
            if len(calls) == 1:
                raise LockedError("in use")
            return fit(*arguments, **options)

        monkeypatch.setattr(quick_search.Quick, "fit", first_in_use)
        (trial,) = search(tmp_path, trials=1, epochs=1).record().trials
        assert (trial.status, len(calls)) == ("completed", 2)

    def test_is_a_tuner_of_keras_tuner(self, tmp_path, digits):
        space = {**SMALL, "label_smoothing": 0.0}
        hypermodel = tuning.ResNetHyperModel((8, 8, 1), 10, space)
        tuner = tuning.search(
            *(hypermodel, digits),
            **dict(trials=2, epochs=2, directory=tmp_path, steps_per_execution=4),
            objective="val_loss",
        )
        assert isinstance(tuner, keras_tuner.Tuner)
        (model,) = tuner.get_best_models()
        images = data.batches(digits.validation, image_size=8, channels=1)
        model.compile(loss="sparse_categorical_crossentropy")
        loss = model.evaluate(images, verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(best(tuner.record())[0].score, rel=1e-4)
        net, result = tuning.retrain(tuner, digits, verbose=0)
        assert len(result.history["loss"]) == 2
        assert net.count_params() == model.count_params()
        assert not list(tmp_path.glob("trials/*/run"))

    def test_stock_tuners_take_the_hypermodel(self, tmp_path, digits, monkeypatch):
        # It imports TensorBoard, which TensorFlow no longer installs.
        monkeypatch.setattr(keras_tuner.Tuner, "_configure_tensorboard_dir", lambda *_: None)
        hypermodel = tuning.ResNetHyperModel(
            (8, 8, 1), 10, SMALL, "params=1e5", recipe=training.Recipe(epochs=1)
        )
        tuner = keras_tuner.RandomSearch(
            hypermodel, "val_accuracy", max_trials=2, directory=tmp_path, seed=1
        )
        tuner.search(digits, verbose=0)
        assert 0 < tuner.oracle.get_best_trials()[0].score <= 1

    def test_a_damaged_file_is_named(self, tmp_path):
        options = dict(algorithm="random", trials=1, epochs=1)
        search(tmp_path, **options)
        for name in ("search.json", "trials/oracle.json", "trials/trial_0/trial.json"):
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(content[: len(content) // 2])
            with one_line_error(f"{name}' is cut off or damaged: ", "Put a copy in its place"):
                search(tmp_path, **options)
            (tmp_path / name).write_bytes(content)
        assert len(search(tmp_path, **options).record().trials) == 1

    def test_what_was_half_written_is_no_progress(self, tmp_path):
        """A trial that is killed whenever it saves is given up."""
        tuner, folder = search(tmp_path, trials=1, epochs=1), tmp_path / "trial"
        for start in range(5):
            tuner._count_start(folder)
            (folder / "run" / f".{start:08}-1-abcdef-after-1").mkdir(parents=True)
        with pytest.raises(keras_tuner.errors.FailedTrialError, match="ended 5 times"):
            tuner._count_start(folder)


class TestRetraining:
    def test_goes_on_unless_more_trials_have_found_a_better_model(self, tmp_path, monkeypatch):
        folder, found_there = tmp_path / "best" / "checkpoints", []

        def train(hypermodel, *_, checkpoints, **options):
            found_there.append((checkpoints / "after-1").exists())
            (checkpoints / "after-1").mkdir(exist_ok=True)
            raise KeyboardInterrupt

        monkeypatch.setattr(quick_search.Quick, "train", train)
        options = dict(algorithm="random", epochs=1, seed=2)
        champions = []
        for trials in (2, 2, 3, 12):
            tuner = search(tmp_path, trials=trials, **options)
            champions.append(champion(tuner.record()).number)
            with pytest.raises(KeyboardInterrupt):
                tuning.retrain(tuner, data.load("digits"), checkpoints=folder)
        assert champions[0] == champions[2] < champions[3]
        assert found_there == [False, True, True, False]


class TestTransfer:
    def test_backbones_without_the_weights_cannot_be_chosen(self):
        with pytest.warns(RuntimeWarning, match="Only ResNet50 can be chosen .* ResNet18 has no"):
            hypermodel = tuning.TransferHyperModel((64, 64, 3), 2, weights="imagenet_caffe")
        assert hypermodel.space["backbone"] == ["ResNet50"]
        asked = {"backbone": ["ResNet50", "ResNet34"]}
        with one_line_error("weights='imagenet_caffe': ResNet34 has no such weights"):
            tuning.TransferHyperModel((64, 64, 3), 2, asked, weights="imagenet_caffe")
        with one_line_error("has none for ResNet34"):
            tuning.TransferHyperModel((64, 64, 3), 2, asked, weights={"ResNet50": "imagenet"})

    def test_backbones_that_the_file_is_not_of_cannot_be_chosen(self, tmp_path):
        weights = tmp_path / "backbone.weights.h5"
        keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_top=False).save_weights(weights)
        with one_line_error("backbone.weights.h5"):
            tuning.TransferHyperModel(
                (8, 8, 1), 10, {"backbone": ["CIFARResNet8", "CIFARResNet14"]}, weights=weights
            )

    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            ({"back_to": ["head", "conv6"]}, "back_to='conv6': cifar_resnet8 has no such layer"),
            ({"dropout": [0.2, 1.0]}, "space: dropout=1.0 must be at least 0 and below 1"),
        ],
    )
    def test_choices_that_no_trial_could_have_are_refused(self, choice, words):
        space = {"backbone": "CIFARResNet8", **choice}
        with one_line_error(words):
            tuning.TransferHyperModel((8, 8, 1), 10, space, weights=None)

    def test_features_are_computed_once_for_all_trials(self, tmp_path, digits):
        space = {
            "backbone": "CIFARResNet8",
            "back_to": ["head", "conv4"],
            "slower": 0.1,
            "dropout": 0.0,
            **{"learning_rate": 0.1, "weight_decay": 0.0, "label_smoothing": 0.0},
            "augmentation_strength": "light",
        }
        weights = tmp_path / "backbone.weights.h5"
        backbone = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_top=False)
        backbone.save_weights(weights)
        hypermodel = tuning.TransferHyperModel(
            *((8, 8, 1), 10, space),
            weights=str(weights),
            recipe=training.recipe("finetune", epochs=1),
        )
        tuner = tuning.search(
            hypermodel, digits, algorithm="random", trials=2, epochs=1, directory=tmp_path / "s"
        )
        record = tuner.record()
        assert {trial.status for trial in record.trials} == {"completed"}
        assert {trial.values["back_to"] for trial in record.trials} == {"head", "conv4"}
        for trial in record.trials:
            assert ("slower" in trial.values) == (trial.values["back_to"] == "conv4")
        assert len(list(tmp_path.glob("s/trials/features/*.npz"))) == 1
        net, _ = tuning.retrain(tuner, digits, verbose=0)
        assert net.output_shape == (None, 10)


@pytest.mark.parametrize(
    ("task", "objective", "head"),
    [
        ("multilabel", "val_accuracy", "Dense"),
        ("regression", "val_mean_absolute_error", "Rescaling"),
    ],
)
def test_searches_for_other_tasks_choose_by_their_metrics(tmp_path, digits, task, objective, head):
    """Which of the digits 0, 1 and 2 an image shows, and the number that it shows."""
    names = ("0", "1", "2") if task == "multilabel" else ("value",)

    def relabelled(split):
        labels = split.labels.astype("float32")
        if task == "multilabel":
            labels = (split.labels[:, None] == np.arange(3)).astype("float32")
        return data.Split(split.images, labels)

    source = dataclasses.replace(
        digits,
        class_names=names,
        task=task,
        **{name: relabelled(split) for name, split in digits.splits.items()},
    )
    hypermodel = tuning.ResNetHyperModel((8, 8, 1), len(names), SMALL)
    options = dict(algorithm="random", trials=2, epochs=1, directory=tmp_path, verbose=0)
    with one_line_error("objective='val_f1' is not measured for " + task, objective):
        tuning.search(hypermodel, source, objective="val_f1", **options)
    tuner = tuning.search(hypermodel, source, **options)
    record = tuner.record()
    assert (record.objective, record.direction) == (objective, "max" if names[1:] else "min")
    assert [trial.status for trial in record.trials] == ["completed"] * 2
    scores = [trial.score for trial in record.trials]
    assert best(record)[0].score == (max(scores) if names[1:] else min(scores))
    model, _ = tuning.retrain(tuner, source, verbose=0)
    assert type(model.layers[-1]).__name__ == head
    assert model.output_shape == (None, len(names))
    with one_line_error("holds another search", "task was"):
        tuning.search(tuning.ResNetHyperModel((8, 8, 1), 10, SMALL), digits, **options)
