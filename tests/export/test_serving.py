"""The serving kit of examples/serving, and SavedModels served as TensorFlow Serving serves them."""

import functools
import io
import re
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import endurance
import grpc
import keras
import numpy as np
import pictures
import PIL.Image
import pytest
import tensorflow as tf
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from serving import Served, grpc_server, needs_switch, rest_server, serve_without_xla
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

import keras_resnet
from keras_resnet import export
from keras_resnet.data.pipeline import middle
from keras_resnet.export import warmup
from keras_resnet.graphs import wants_of

KIT = Path(__file__).parents[2] / "examples" / "serving"
NAMES = ["cat", "dog", "bird"]


@functools.cache
def net():
    keras.utils.set_random_seed(0)
    return keras_resnet.CIFARResNet(8, classes=3, include_preprocessing=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a small net is exported."""
    path = tmp_path_factory.mktemp("models") / "resnet50"
    return export.saved_model(net(), path, NAMES, verbose=False).path


@pytest.fixture(scope="module")
def served(folder):
    return Served(folder)


def picture(kind="JPEG", mode="RGB", width=40, height=36, number=0):
    """The contents of an image file."""
    buffer = io.BytesIO()
    small = PIL.Image.fromarray(pictures.pixels(number))
    small.resize((width, height)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def half(contents):
    return contents[: len(contents) // 2]


def expected(contents):
    """The best label of an image file and its probability, by Pillow and the model in memory."""
    image = np.asarray(PIL.Image.open(io.BytesIO(contents)).convert("RGB"))
    image = middle(image, wants_of(net()).crop, 32)
    probabilities = np.asarray(net()(image[None], training=False))[0]
    return NAMES[probabilities.argmax()], float(probabilities.max())


def exact(number):
    """An image file that comes to the model as it is."""
    return picture("PNG", width=32, height=32, number=number)


def run(*command, **options):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


class TestSavedModel:
    @needs_switch
    def test_all_signatures_run_without_xla(self, folder, served, tmp_path):
        process = serve_without_xla(folder, tmp_path / "outputs.npz")
        assert process.returncode == 0, process.stderr
        outputs = np.load(tmp_path / "outputs.npz")
        assert sorted(outputs) == [
            "classify_bytes.labels",
            "classify_bytes.probabilities",
            "features.features",
            "serving_default.probabilities",
        ]
        images = np.ones((2, 32, 32, 3), "float32")
        probabilities = np.asarray(net()(images, training=False))
        # The file of such an image says the same as the image.
        ranked = np.sort(probabilities)[:, ::-1]
        labels = np.array(NAMES, "S")[np.argsort(probabilities)[:, ::-1]]
        np.testing.assert_allclose(
            outputs["serving_default.probabilities"], probabilities, atol=1e-6
        )
        np.testing.assert_allclose(outputs["classify_bytes.probabilities"], ranked, atol=1e-6)
        np.testing.assert_array_equal(outputs["classify_bytes.labels"], labels)
        assert outputs["features.features"].shape == (2, 64)

    def test_stock_command_line_shows_and_runs_it(self, folder, tmp_path):
        command = Path(sys.executable).with_name("saved_model_cli")
        show = run(command, "show", "--dir", folder, "--all")
        assert show.returncode == 0, show.stderr
        for name in ("serving_default", "features", "classify_bytes"):
            assert f"signature_def['{name}']" in show.stdout
        assert "inputs['image_bytes'] tensor_info:\n        dtype: DT_STRING" in show.stdout

        np.save(tmp_path / "images.npy", [exact(1), exact(2)])
        ask = run(
            command,
            *("run", "--dir", folder, "--tag_set", "serve", "--signature_def", "classify_bytes"),
            *("--inputs", f"image_bytes={tmp_path / 'images.npy'}", "--outdir", tmp_path),
        )
        assert ask.returncode == 0, ask.stderr
        probabilities = np.load(tmp_path / "probabilities.npy")[:, 0]
        both = [expected(exact(number))[1] for number in (1, 2)]
        np.testing.assert_allclose(probabilities, both, atol=1e-5)

    def test_warm_up_is_answered_and_is_what_clients_send(self, folder, served):
        asked = []
        for record in tf.data.TFRecordDataset(str(folder / warmup.FILE)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            assert log.WhichOneof("log_type") == "predict_log"
            request = log.predict_log.request
            assert request.model_spec.name == "resnet50"
            name = request.model_spec.signature_name
            ((argument, sent),) = request.inputs.items()
            ((signature_argument, wanted),) = served.signatures[name].inputs.items()
            assert (argument, sent.dtype) == (signature_argument, wanted.dtype)
            count, *sizes = [dimension.size for dimension in sent.tensor_shape.dim]
            assert sizes == [dimension.size for dimension in wanted.tensor_shape.dim][1:]
            outputs = served(name, tf.make_ndarray(sent))
            assert all(len(output) == count for output in outputs.values())
            asked.append((name, count))
        signatures = ("serving_default", "features", "classify_bytes")
        assert sorted(asked) == sorted(
            (name, size) for name in signatures for size in warmup.BATCH_SIZES
        )


def message(*fields):
    """A message class of (name, number, type), where tensorflow-serving-api ships none.

    The names and numbers are those of Serving's `session_bundle_config.proto` and
    `monitoring_config.proto`.
    """
    proto = descriptor_pb2.FileDescriptorProto(name="serving_test.proto", syntax="proto3")
    proto.dependency.append("google/protobuf/wrappers.proto")
    described = proto.message_type.add(name="Config")
    for name, number, kind in fields:
        field = described.field.add(name=name, number=number)
        field.label = field.LABEL_REPEATED if kind == "repeated int64" else field.LABEL_OPTIONAL
        if kind.endswith("Value"):
            field.type, field.type_name = field.TYPE_MESSAGE, f".google.protobuf.{kind}"
        else:
            field.type = getattr(field, f"TYPE_{kind.split()[-1].upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Config"))


BatchingParameters = message(
    ("max_batch_size", 1, "Int64Value"),
    ("batch_timeout_micros", 2, "Int64Value"),
    ("max_enqueued_batches", 3, "Int64Value"),
    ("num_batch_threads", 4, "Int64Value"),
    ("thread_pool_name", 5, "StringValue"),
    ("allowed_batch_sizes", 6, "repeated int64"),
    ("pad_variable_length_inputs", 7, "bool"),
)
PrometheusConfig = message(("enable", 1, "bool"), ("path", 2, "string"))


class TestConfiguration:
    def test_models(self):
        text = (KIT / "models.config").read_text()
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        (model,) = config.model_config_list.config
        assert (model.name, model.base_path) == ("resnet50", "/models/resnet50")
        assert model.model_platform == "tensorflow"
        assert model.model_version_policy.latest.num_versions == 2

    def test_batching_agrees_with_the_warm_up(self):
        config = text_format.Parse((KIT / "batching.config").read_text(), BatchingParameters())
        largest = config.max_batch_size.value
        # A larger request of the warm-up would fail, and the model with it.
        assert max(warmup.BATCH_SIZES) <= largest
        assert list(config.allowed_batch_sizes) == sorted(warmup.BATCH_SIZES)
        # The server insists on it.
        assert config.allowed_batch_sizes[-1] == largest
        assert config.num_batch_threads.value >= 1

    def test_monitoring(self):
        text = (KIT / "monitoring.config").read_text()
        inner = re.fullmatch(r"\s*(?:#.*\s+)*prometheus_config \{(.*)\}\s*", text, re.DOTALL)[1]
        config = text_format.Parse(inner, PrometheusConfig())
        (scrape,) = yaml.safe_load((KIT / "prometheus.yaml").read_text())["scrape_configs"]
        assert config.enable
        assert config.path == scrape["metrics_path"]
        assert scrape["static_configs"] == [{"targets": ["serving:8501"]}]

    def test_compose_finds_its_files(self):
        services = yaml.safe_load((KIT / "compose.yaml").read_text())["services"]
        assert re.fullmatch(r"tensorflow/serving:2\.\d+\.\d+", services["serving"]["image"])
        for service in services.values():
            for volume in service["volumes"]:
                source, _, mode = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")
                assert (KIT / source).exists()
                assert mode == "ro"
        flags = dict(flag.split("=", 1) for flag in services["serving"]["command"])
        assert len(flags) == len(services["serving"]["command"])
        files = [flag for flag in flags.values() if flag.startswith("/config/")]
        assert len(files) == 3
        for file in files:
            assert (KIT / file.removeprefix("/config/")).is_file()

    @pytest.mark.skipif(not shutil.which("bash"), reason="the check is a line of bash")
    def test_health_check_tells_the_model_from_none(self, served):
        services = yaml.safe_load((KIT / "compose.yaml").read_text())["services"]
        command, *rest = services["serving"]["healthcheck"]["test"]
        assert command == "CMD"
        with rest_server(served) as url:
            check = [part.replace("8501", url.rpartition(":")[2]) for part in rest]
            assert run(*check).returncode == 0
            assert run(*(part.replace("resnet50", "other") for part in check)).returncode == 1
        assert run(*check).returncode == 1


@pytest.fixture(scope="module")
def address(served):
    with grpc_server(served) as address:
        yield address


@pytest.fixture(scope="module")
def url(served):
    with rest_server(served) as url:
        yield url


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images and a broken one between them."""
    folder = tmp_path_factory.mktemp("images")
    for name, contents in {
        "first.png": exact(1),
        "broken.jpg": half(picture(width=400, height=300)),
        "second.png": exact(2),
    }.items():
        (folder / name).write_bytes(contents)
    return folder


@pytest.fixture
def client(monkeypatch, capsys):
    """Run a script of the kit in this process, which has TensorFlow; gives its process."""

    def run(name, *arguments):
        command = [str(KIT / name), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(command[0], run_name="__main__")
        return subprocess.CompletedProcess(command, exit.value.code, *capsys.readouterr())

    monkeypatch.syspath_prepend(KIT)
    return run


class TestClients:
    @pytest.mark.parametrize("name", ["grpc_client.py", "rest_client.py"])
    def test_label_and_probability_of_every_image(self, name, address, url, images):
        where = ("--address", address) if name == "grpc_client.py" else ("--url", url)
        files = sorted(images.glob("*.png"))
        process = run(sys.executable, KIT / name, *files, *where)
        assert process.returncode == 0, process.stderr
        lines = process.stdout.splitlines()
        assert len(lines) == 2
        for line, file in zip(lines, files, strict=True):
            name, probability = re.fullmatch(rf"{re.escape(str(file))}: (\w+) (\S+)", line).groups()
            label, exactly = expected(file.read_bytes())
            assert name == label
            assert float(probability) == pytest.approx(exactly, abs=1e-4)

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("grpc_client.py", "INVALID_ARGUMENT: jpeg::Uncompress failed. Invalid JPEG data"),
            ("rest_client.py", "400: jpeg::Uncompress failed. Invalid JPEG data"),
        ],
    )
    def test_a_broken_image_is_named_and_the_next_answered(
        self, client, name, error, address, url, images
    ):
        where = ("--address", address) if name == "grpc_client.py" else ("--url", url)
        process = client(name, *sorted(images.iterdir()), *where)
        assert process.returncode == 1
        (line,) = process.stderr.splitlines()
        assert line.startswith(f"{images / 'broken.jpg'}: {error}")
        assert [line.split(":")[0] for line in process.stdout.splitlines()] == [
            str(images / "first.png"),
            str(images / "second.png"),
        ]

    @pytest.mark.parametrize("name", ["grpc_client.py", "rest_client.py"])
    def test_no_server_and_no_file_are_one_line_each(self, client, name, images):
        where = (
            ("--address", "localhost:1")
            if name == "grpc_client.py"
            else ("--url", "http://localhost:1")
        )
        process = client(name, images / "first.png", images / "missing.png", *where)
        assert process.returncode == 1
        assert process.stdout == ""
        refused, missing = process.stderr.splitlines()
        assert "onnect" in refused
        assert "missing.png" in missing

    def test_unknown_model(self, client, address, url, images):
        image = images / "first.png"
        process = client("rest_client.py", image, "--url", url, "--model", "other")
        assert process.returncode == 1
        assert process.stderr == f"{image}: 404: Servable not found for request\n"

    def test_load_generator_counts(self, client, address, images):
        process = client(
            "load_generator.py",
            *sorted(images.iterdir()),
            *("--address", address, "--clients", 4, "--requests", 60),
        )
        assert process.returncode == 0, process.stderr
        rate, times, errors = process.stdout.splitlines()
        assert re.fullmatch(r"40 answers in \d+\.\d s, \d+\.\d a second", rate)
        p50, p95, p99 = map(float, re.findall(r"p\d\d (\S+) ms", times))
        assert 0 < p50 <= p95 <= p99
        assert errors == "INVALID_ARGUMENT: 20"

    def test_load_generator_stops_in_time(self, client, address, images):
        process = client(
            *("load_generator.py", images / "first.png", "--address", address, "--seconds", 1)
        )
        seconds = float(re.search(r"answers in (\S+) s", process.stdout)[1])
        assert 1 <= seconds < 3

    def test_load_generator_without_server(self, client, images):
        process = client(
            "load_generator.py",
            *(images / "first.png", "--address", "localhost:1", "--requests", 3, "--clients", 2),
        )
        assert process.returncode == 1
        assert process.stdout.splitlines()[1:] == ["UNAVAILABLE: 3"]

    @pytest.mark.skipif(
        not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"
    )
    def test_what_the_readme_says_of_curl(self, url, images, tmp_path):
        readme = (KIT / "README.md").read_text()
        (command,) = re.findall(r"```bash\n(\{ printf.*?)```", readme, re.DOTALL)
        shutil.copy(images / "first.png", tmp_path / "cat.jpg")
        process = run("bash", "-c", command.replace("http://localhost:8501", url), cwd=tmp_path)
        label, probability = expected((images / "first.png").read_bytes())
        found = re.search(r'"labels": \[\s*"(\w+)"', process.stdout)
        assert found, process.stdout + process.stderr
        assert found[1] == label
        assert f"{probability:.5f}"[:-1] in process.stdout


def predict(address, name, inputs):
    """Ask the server over gRPC; gives the outputs as arrays."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "resnet50"
    request.model_spec.signature_name = name
    argument = "image_bytes" if name == "classify_bytes" else "images"
    dtype = tf.string if name == "classify_bytes" else tf.float32
    request.inputs[argument].CopyFrom(tf.make_tensor_proto(inputs, dtype))
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = service.Predict(request, timeout=60).outputs
    return {name: tf.make_ndarray(output) for name, output in outputs.items()}


BAD = {
    "half a JPEG": (
        "classify_bytes",
        [half(picture(width=400, height=300))],
        "jpeg::Uncompress failed. Invalid JPEG data",
    ),
    "begun JPEG": ("classify_bytes", [picture()[:100]], "Invalid JPEG data"),
    "half a PNG": ("classify_bytes", [half(picture("PNG"))], "Invalid PNG data"),
    "empty file": ("classify_bytes", [picture(), b""], "[image] [1] [is none of JPEG, PNG, GIF"),
    "text": ("classify_bytes", [b"no image"], "GIF, BMP: it has] [8] [bytes.]"),
    "no files": ("classify_bytes", [], "no images were sent: send at least one."),
    "file for a list": ("classify_bytes", picture(), ""),
    "list of lists": ("classify_bytes", [[picture()]], ""),
    "no images": ("serving_default", np.zeros((0, 32, 32, 3)), "no images were sent"),
    "size": ("serving_default", np.zeros((1, 31, 32, 3)), "[1,31,32,3] is not compatible"),
    "rank": ("serving_default", np.zeros((32, 32, 3)), "[32,32,3] is not compatible"),
    "channels": ("serving_default", np.zeros((1, 32, 32, 1)), "[1,32,32,1] is not compatible"),
    "number": ("serving_default", 0.0, ""),
    "no images for features": ("features", np.zeros((0, 32, 32, 3)), "no images were sent"),
    "size for features": ("features", np.zeros((2, 64, 64, 3)), "[2,64,64,3] is not compatible"),
    "rank for features": ("features", np.zeros((1, 1, 32, 32, 3)), "is not compatible"),
}
GOOD = {
    "PNG with alpha": picture("PNG", "RGBA"),
    "grey PNG with alpha": picture("PNG", "LA"),
    "PNG with palette": picture("PNG", "P"),
    "grey JPEG": picture("JPEG", "L"),
    "GIF": picture("GIF"),
    "BMP": picture("BMP"),
    "20 megapixels": picture(width=5000, height=4000),
}


class TestRequests:
    @pytest.mark.parametrize(("name", "inputs", "reason"), BAD.values(), ids=BAD)
    def test_bad_ones_get_a_reason_and_do_no_harm(self, address, name, inputs, reason):
        with pytest.raises(grpc.RpcError) as caught:
            predict(address, name, inputs)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details()
        assert reason in caught.value.details()
        outputs = predict(address, "classify_bytes", [exact(3)])
        label, probability = expected(exact(3))
        assert outputs["labels"][0, 0] == label.encode()
        assert outputs["probabilities"][0, 0] == pytest.approx(probability, abs=1e-5)

    @pytest.mark.parametrize("contents", GOOD.values(), ids=GOOD)
    def test_good_ones_are_answered_as_by_the_model(self, address, contents):
        outputs = predict(address, "classify_bytes", [contents, contents])
        label, probability = expected(contents)
        assert outputs["labels"][:, 0].tolist() == [label.encode()] * 2
        # Pillow's JPEG decoder rounds otherwise.
        np.testing.assert_allclose(outputs["probabilities"][:, 0], probability, atol=0.01)


class TestEndurance:
    def test_clients_at_once_get_what_each_of_them_asked_for(self, served):
        contents = [exact(number) for number in range(16)]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda each: served("classify_bytes", [each]), contents * 4)
        for each, answer in zip(contents * 4, answers, strict=True):
            label, probability = expected(each)
            assert answer["labels"][0, 0] == label.encode()
            assert answer["probabilities"][0, 0] == pytest.approx(probability, abs=1e-5)

    def test_a_few_requests(self, folder):
        assert len(endurance.endure(folder, requests=1000).samples) == 1

    def test_growth_is_told(self):
        assert endurance.Memory([100, 101, 100, 100]).growth == 0
        assert endurance.Memory([100, 100, 100, 103]).growth == pytest.approx(0.03)
        assert endurance.Memory([100, 103, 100, 100]).spread == pytest.approx(0.03)

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
    def test_memory_stays_within_2_percent_over_10_000_requests(self, folder):
        # In a process of its own, without what other tests leave behind.
        process = run(sys.executable, endurance.__file__, folder)
        assert process.returncode == 0, process.stdout + process.stderr
