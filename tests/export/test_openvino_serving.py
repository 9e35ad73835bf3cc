"""The part of examples/serving for OpenVINO Model Server."""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pictures
import PIL.Image
import pytest
import yaml
from serving import grpc_server

import keras_resnet
from keras_resnet import export, runs

openvino = pytest.importorskip("openvino")

KIT = Path(__file__).parents[2] / "examples" / "serving"

# What the server's own schema (`src/schema.cpp`) allows, where it is used; no package ships it.
FIELDS = {
    "name": str,
    "base_path": str,
    "batch_size": int | str,
    "model_version_policy": dict,
    "nireq": int,
    "target_device": str,
    "plugin_config": dict,
    "shape": dict | str,
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """The folder of a small model, exported twice."""
    folder = tmp_path_factory.mktemp("served")
    keras.utils.set_random_seed(0)
    net = keras_resnet.CIFARResNet(8, classes=3, include_preprocessing=True, name="resnet50")
    net.save(folder / "model.keras")
    (folder / "labels.txt").write_text("cat\ndog\nbird\n")
    for version in ("1", "2"):
        runs.export(folder, folder / "resnet50" / version, format="openvino")
    return folder / "resnet50", net


class TestConfiguration:
    @pytest.fixture
    def config(self):
        whole = json.loads((KIT / "openvino.json").read_text())
        assert [*whole] == ["model_config_list"]
        (model,) = whole["model_config_list"]
        assert [*model] == ["config"]
        return model["config"]

    def test_has_what_the_server_knows(self, config):
        assert {"name", "base_path"} <= {*config} <= {*FIELDS}
        for name, value in config.items():
            assert isinstance(value, FIELDS[name])
        assert (config["name"], config["base_path"]) == ("resnet50", "/models/resnet50")
        assert config["model_version_policy"] == {"latest": {"num_versions": 2}}

    def test_openvino_takes_its_options(self, config, versions):
        folder, _ = versions
        core = openvino.Core()
        compiled = core.compile_model(folder / "1" / "resnet50.xml", "CPU", config["plugin_config"])
        for name, value in config["plugin_config"].items():
            assert (
                str(compiled.get_property(name))
                .lower()
                .endswith({"LATENCY": "latency", "f32": "'float32'>"}[value])
            )

    def test_compose_finds_its_files(self):
        (service,) = yaml.safe_load((KIT / "openvino.yaml").read_text())["services"].values()
        models, config = service["volumes"]
        assert re.sub(r"\$\{\w+:-(.*?)\}", r"\1", models) == "../../openvino_models:/models:ro"
        assert config == ".:/config:ro"
        flags = dict(flag.partition("=")[::2] for flag in service["command"])
        assert (KIT / flags["--config_path"].removeprefix("/config/")).is_file()
        theirs = yaml.safe_load((KIT / "compose.yaml").read_text())["services"]["serving"]
        assert service["ports"] == theirs["ports"]
        assert service["healthcheck"]["test"] == theirs["healthcheck"]["test"]


class TestVersions:
    def test_are_folders_of_files_that_belong_together(self, versions):
        folder, _ = versions
        for version in ("1", "2"):
            assert {each.name for each in (folder / version).iterdir()} == {
                "resnet50.xml",
                "resnet50.bin",
                "resnet50.xml.json",
                "labels.txt",
            }
        assert {each.name for each in folder.iterdir()} == {"1", "2"}

    def test_a_version_appears_whole(self, versions, tmp_path, monkeypatch):
        folder, _ = versions
        new = tmp_path / "served" / "1"
        seen = []
        write = export.openvino

        def noted(*arguments, **options):
            seen.append(new.exists())
            exported = write(*arguments, **options)
            seen.append(new.exists())
            return exported

        monkeypatch.setattr(export, "openvino", noted)
        record = runs.export(folder.parent, new, format="openvino")
        assert seen == [False, False]
        assert record.exported.path == new / "resnet50.xml"
        assert record.exported.path.exists()

    def test_one_that_is_refused_leaves_none(self, versions, tmp_path, monkeypatch):
        folder, _ = versions
        module = sys.modules["keras_resnet.export.comparison"]
        monkeypatch.setattr(module, "timed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.export(folder.parent, tmp_path / "served" / "1", format="openvino")
        assert [*(tmp_path / "served").iterdir()] == []


class Served:
    """A file as the server runs it: tensors by their names, in what its configuration says."""

    def __init__(self, path):
        config = json.loads((KIT / "openvino.json").read_text())
        (model,) = config["model_config_list"]
        options = model["config"]["plugin_config"]
        self._compiled = openvino.Core().compile_model(path, "CPU", options)

    def __call__(self, name, images):
        assert name == "serving_default"
        answer = self._compiled({"images": images})
        return {each.any_name: answer[each] for each in self._compiled.outputs}


class TestClient:
    @pytest.fixture
    def client(self, versions, monkeypatch, capsys):
        folder, _ = versions
        path = folder / "1" / "resnet50.xml"

        def run(*images):
            with grpc_server(Served(path)) as address:
                command = [
                    KIT / "openvino_client.py",
                    f"{path}.json",
                    *images,
                    "--address",
                    address,
                ]
                monkeypatch.setattr(sys, "argv", [*map(os.fspath, command)])
                with pytest.raises(SystemExit) as exit:
                    runpy.run_path(sys.argv[0], run_name="__main__")
            return exit.value.code, *map(str.splitlines, capsys.readouterr())

        return run

    def test_answers_as_predict_does(self, client, versions, tmp_path):
        folder, _ = versions
        files = []
        for number, size in enumerate([(32, 32), (120, 90), (50, 77)]):
            files.append(tmp_path / f"{number}.png")
            PIL.Image.fromarray(pictures.pixels(number)).resize(size).save(files[-1])
        code, lines, errors = client(*files)
        assert (code, errors) == (0, [])
        record = runs.predict(folder.parent, files)
        for line, file, found in zip(lines, files, record.to_json()["predictions"], strict=True):
            name, probability = re.fullmatch(rf"{re.escape(str(file))}: (\w+) (\S+)", line).groups()
            best = found["classes"][0]
            assert name == best["class"]
            assert float(probability) == pytest.approx(best["probability"], abs=0.01)

    def test_what_fails_is_named_and_the_next_answered(self, client, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"no image")
        PIL.Image.fromarray(np.zeros((32, 32, 3), "uint8")).save(tmp_path / "black.png")
        files = [tmp_path / name for name in ("broken.png", "missing.png", "black.png")]
        code, lines, errors = client(*files)
        assert code == 1
        assert [line.split(":")[0] for line in lines] == [str(tmp_path / "black.png")]
        assert "broken.png" in errors[0]
        assert "missing.png" in errors[1]
