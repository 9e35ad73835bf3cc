"""One model by commands alone: trained, tested, asked, exported and served, all with one answer."""

import csv
import json
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from processes import COMMAND
from serving import Served, grpc_server
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

WEIGHTS = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
CLASSES = ("cats", "dogs")

pytestmark = pytest.mark.slow


def answer(*arguments):
    """What a command answers in a process of its own."""
    command = [*COMMAND, *map(str, arguments), "--json"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def pets(assets):
    return assets / "cats_dogs"


@pytest.fixture(scope="module")
def files(pets):
    """1,000 photographs that the model is not trained on."""
    found = [file for name in CLASSES for file in sorted((pets / "test" / name).iterdir())]
    assert len(found) == 1000
    return found


@pytest.fixture(scope="module")
def trained(assets, pets, tmp_path_factory):
    """The folder of a run, and what `train` says of it."""
    run = tmp_path_factory.mktemp("end_to_end") / "pets"
    options = ["--model", "ResNet50", "--weights", assets / WEIGHTS, "--image-size", 160]
    options += ["--epochs", 1, "--output", run]
    return run, answer("train", "--data", pets, *options)


@pytest.fixture(scope="module")
def predicted(trained, files):
    """The probability of a dog for every photograph, as `predict` says."""
    found = answer("predict", trained[0], *files, "--top", 2)["predictions"]
    assert [each["image"] for each in found] == [str(file) for file in files]
    return np.array(
        [{guess["class"]: guess["probability"] for guess in each["classes"]}["dogs"]
         for each in found]
    )  # fmt: skip


def confusion(dogs, files):
    """Images of every class that are taken for every class."""
    truth = np.array([file.parent.name == "dogs" for file in files])
    return [
        [int((taken & (truth == right)).sum()) for taken in (dogs <= 0.5, dogs > 0.5)]
        for right in (False, True)
    ]


def test_is_good(trained):
    assert trained[1]["test_accuracy"] > 0.97


def test_train_and_predict_agree(trained, predicted, files):
    assert trained[1]["confusion"] == confusion(predicted, files)


def test_evaluate_and_train_agree(trained, pets, predicted):
    run, found = trained
    tested = [
        answer("evaluate", run),
        answer("evaluate", run, "--data", pets),
        answer("evaluate", run, "--data", f"{pets / 'test'}:all"),
    ]
    assert [each["confusion"] for each in tested] == [found["confusion"]] * 3
    assert [each["images"] for each in tested] == [1000] * 3


def test_other_kinds_of_the_same_images_agree(trained, pets, files, tmp_path):
    """A CSV file and TFRecord files of the same photographs."""
    run, found = trained
    split_of = {file: "test" for file in files}
    split_of |= {file: "train" for file in sorted((pets / "train").glob("*/*"))[::40]}
    with (tmp_path / "pets.csv").open("w", newline="") as file:
        rows = ([each, each.parent.name, split] for each, split in split_of.items())
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    for split in ("train", "test"):
        with tf.io.TFRecordWriter(str(tmp_path / f"pets_{split}.tfrecord")) as writer:
            for each in split_of:
                if split_of[each] == split:
                    writer.write(record(each))
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for source in (tmp_path / "pets.csv", tmp_path / "pets_*.tfrecord"):
        assert answer("evaluate", run, "--data", source)["confusion"] == found["confusion"]


def record(file):
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.read_bytes()])),
        "label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[CLASSES.index(file.parent.name)])
        ),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_served_models_agree(trained, pets, predicted, files, tmp_path):
    """The SavedModel of the run, and one that `export` writes, behind gRPC."""
    run, found = trained
    exported = answer("export", run, "--calibrate", pets, "--output", tmp_path / "pets")
    for path in (found["saved_model"], exported["output"]):
        np.testing.assert_allclose(served(Path(path), files), predicted, atol=1e-5)
    assert confusion(served(Path(path), files), files) == found["confusion"]


def served(path, files):
    """The probability of a dog for every photograph, as a server says."""
    dogs = []
    with grpc_server(Served(path)) as address, grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for start in range(0, len(files), 50):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "resnet50"
            request.model_spec.signature_name = "classify_bytes"
            contents = [file.read_bytes() for file in files[start : start + 50]]
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(contents))
            outputs = stub.Predict(request).outputs
            labels, probabilities = (
                tf.make_ndarray(outputs[name]) for name in ("labels", "probabilities")
            )
            assert {*labels.ravel()} == {b"cats", b"dogs"}
            dogs.append(probabilities[labels == b"dogs"])
    return np.concatenate(dogs)
