import contextlib
import dataclasses
import hashlib
import http.server
import io
import logging
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import h5py
import numpy as np
import pytest
from checkpoints import as_arrays
from detectron2_files import as_detectron2, torchvision_state
from errors import one_line_error

import keras_resnet
from keras_resnet import detection, pretrained
from keras_resnet.pretrained import registry
from keras_resnet.pretrained.fetch import fetch

fetching = sys.modules[fetch.__module__]

# The same weights, as they are published now, before PyTorch 1.6, and without a checksum.
RESNET18_FILES = [
    "resnet18-f37072fd.pth",
    "resnet18-5c106cde.pth",
    "resnet18.tv_in1k.safetensors",
]
WITH_TOP = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
WITHOUT_TOP = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"

# ResNet-50 in all but its widths, which no file name tells.
NARROW = dict(filters=(4, 4, 4, 4), input_shape=(32, 32, 3))


class Server(http.server.ThreadingHTTPServer):
    """Serves `contents`, in the way that `answer` has, and writes down what it is asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.requests = {}, []
        self.answer = whole
        self.over = threading.Event()

    def address(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requests.append(name)
        self.server.answer(self, self.server.contents[name])

    def begin(self, length, code=200, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": length, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def whole(request, content):
    request.begin(len(content))
    request.wfile.write(content)


def late(request, content):
    time.sleep(1)
    whole(request, content)


def changed(request, content):
    whole(request, b"<html>Please log in</html>")


def missing(request, content):
    request.send_error(404)


def failing(request, content):
    request.send_error(500)


def babbling(request, content):
    request.wfile.write(b"nonsense\r\n\r\n")


def broken_off(request, content):
    request.begin(len(content))
    request.wfile.write(content[: len(content) // 2])


def stuck(request, content):
    broken_off(request, content)
    request.server.over.wait(20)


def silent(request, content):
    request.server.over.wait(20)


def miscounting(request, content):
    request.begin("many")
    request.wfile.write(content)


def redirecting_nowhere(request, content):
    request.begin(0, 302, Location="http://nowhere..invalid/")


def moved(request, content):
    if request.path == "/elsewhere":
        whole(request, content)
    else:
        request.begin(0, 302, Location="/elsewhere")


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def serve(server, monkeypatch):
    """Let a row of the registry point to the server, which gets contents for its files."""

    def serve(model, tag, contents=None):
        files = []
        for file in registry.REGISTRY[model, tag].files:
            content = (contents or {}).get(file.name, file.name.encode() * 20_000)
            server.contents[file.name] = content
            # As many digits as are published: often the first ones only, sometimes none.
            checksum = hashlib.new(file.algorithm, content).hexdigest()[: len(file.checksum)]
            address = server.address(file.name)
            files.append(dataclasses.replace(file, address=address, checksum=checksum))
        row = dataclasses.replace(registry.REGISTRY[model, tag], files=tuple(files))
        monkeypatch.setitem(registry.REGISTRY, (model, tag), row)
        return row

    return serve


@pytest.fixture
def row(serve):
    """Weights in a single file."""
    return serve("CIFARResNet20", "cifar10")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty Keras cache, and no folder of the user's."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("KERAS_RESNET_WEIGHTS", raising=False)
    # A proxy that the tests are run behind knows nothing of their server.
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of the user's."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("KERAS_RESNET_WEIGHTS", str(folder))
    return folder


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def files_in(cache):
    """What is in the cache, but for locks."""
    return {path.name for path in cache.rglob("*") if path.suffix != ".lock"}


def logged(caplog):
    return [record for record in caplog.records if record.name == "keras_resnet"]


def digest(file, content):
    return hashlib.new(file.algorithm, content).hexdigest()


@contextlib.contextmanager
def helpful_os_error(file, path, start="", reason=""):
    """Expect the one-line error that says what to do without a network."""
    with pytest.raises(OSError, match=re.escape(file.address)) as caught:
        yield
    message = str(caught.value)
    assert message.startswith(f"{start}{file.name} ")
    assert "\n" not in message
    for part in (reason, str(path), "KERAS_RESNET_WEIGHTS"):
        assert part in message


@contextlib.contextmanager
def read_only(folder):
    mode = folder.stat().st_mode
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        yield
    finally:
        folder.chmod(mode)


@pytest.fixture(scope="module")
def net():
    """CIFAR-ResNet-20 with other moving averages than a fresh one, in the CIFAR-10 zoo's names."""
    net = keras_resnet.CIFARResNet(20)
    generator = np.random.default_rng(0)
    net.set_weights([generator.uniform(0.5, 1, w.shape) for w in net.get_weights()])
    return net


@pytest.fixture
def served_net(net, serve, tmp_path):
    path = tmp_path / "net"
    pretrained.to_torch(net, path, naming="cifar")
    name = registry.REGISTRY["CIFARResNet20", "cifar10"].files[0].name
    return serve("CIFARResNet20", "cifar10", {name: path.read_bytes()})


def keras_file(model, top):
    """The weights of a model as keras.applications publishes them."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for layer in model.layers:
            for weight in layer.weights:
                if top or layer.name != "predictions":
                    file[f"{layer.name}/{layer.name}/{weight.name}:0"] = weight.numpy()
    return content.getvalue()


@pytest.fixture(scope="module")
def caffe_net():
    return keras_resnet.ResNet50(weights=None, stride_in="1x1", **NARROW)


@pytest.fixture
def served_caffe(caffe_net, serve):
    contents = {WITH_TOP: keras_file(caffe_net, True), WITHOUT_TOP: keras_file(caffe_net, False)}
    return serve("ResNet50", "imagenet_caffe", contents)


def assert_equal_weights(ours, theirs):
    for our_array, their_array in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(our_array, their_array)


class TestOrder:
    def test_begins_with_the_folder_of_the_user(self, serve, server, folder, cache):
        row = serve("ResNet18", "imagenet_v1")
        # Even what would be the second choice in the cache.
        mine = put(folder, RESNET18_FILES[2], server.contents[RESNET18_FILES[2]])
        put(cache, RESNET18_FILES[0], server.contents[RESNET18_FILES[0]])
        assert fetch(row) == mine
        assert not server.requests

    def test_goes_on_with_the_cache_of_keras(self, row, server, folder, cache):
        path = put(cache, row.files[0].name, server.contents[row.files[0].name])
        assert fetch(row) == path
        assert not server.requests

    def test_ends_with_one_download(self, row, server, folder, cache):
        (file,) = row.files
        path = fetch(row)
        assert path == cache / file.name
        assert path.read_bytes() == server.contents[file.name]
        assert fetch(row) == path
        assert server.requests == [file.name]
        assert files_in(cache) == {file.name}

    @pytest.mark.parametrize("name", RESNET18_FILES)
    def test_takes_every_file_of_the_same_weights(self, serve, server, folder, cache, name):
        row = serve("ResNet18", "imagenet_v1")
        path = put(cache, name, server.contents[name])
        assert fetch(row) == path
        path = put(folder, name, server.contents[name])
        assert fetch(row) == path
        assert not server.requests

    def test_prefers_the_newest_of_them(self, serve, server, folder):
        row = serve("ResNet18", "imagenet_v1")
        for name in RESNET18_FILES:
            put(folder, name, server.contents[name])
        assert fetch(row) == folder / RESNET18_FILES[0]

    def test_downloads_the_newest_of_them(self, serve, server):
        fetch(serve("ResNet18", "imagenet_v1"))
        assert server.requests == RESNET18_FILES[:1]

    @pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
    def test_needs_no_folder_of_the_user(self, row, server, cache, tmp_path, monkeypatch, value):
        if value is not None:
            monkeypatch.setenv("KERAS_RESNET_WEIGHTS", value)
        # No folder does not mean the one that happens to be the current one.
        monkeypatch.chdir(tmp_path)
        put(tmp_path, row.files[0].name, b"mine")
        assert fetch(row) == cache / row.files[0].name
        assert len(server.requests) == 1

    def test_passes_over_folders_that_are_called_like_the_file(self, row, server, folder, cache):
        (folder / row.files[0].name).mkdir()
        assert fetch(row).parent == cache


class TestTheClassifier:
    @pytest.mark.parametrize("place", ["folder", "cache"])
    def test_is_left_out_where_it_is_not_needed(self, serve, server, request, place):
        row, place = serve("ResNet50", "imagenet_caffe"), request.getfixturevalue(place)
        path = put(place, WITHOUT_TOP, server.contents[WITHOUT_TOP])
        put(place, WITH_TOP, server.contents[WITH_TOP])
        assert fetch(row, top=False) == path
        assert not server.requests

    @pytest.mark.parametrize("place", ["folder", "cache"])
    def test_is_no_hindrance(self, serve, server, request, place):
        row, place = serve("ResNet50", "imagenet_caffe"), request.getfixturevalue(place)
        path = put(place, WITH_TOP, server.contents[WITH_TOP])
        assert fetch(row, top=False) == path
        assert not server.requests

    @pytest.mark.parametrize("place", ["folder", "cache"])
    def test_is_downloaded_where_it_is_needed(self, serve, server, cache, request, place):
        row, place = serve("ResNet50", "imagenet_caffe"), request.getfixturevalue(place)
        put(place, WITHOUT_TOP, server.contents[WITHOUT_TOP])
        assert fetch(row) == cache / WITH_TOP
        assert server.requests == [WITH_TOP]

    def test_is_not_downloaded_in_vain(self, serve, server, cache):
        assert fetch(serve("ResNet50", "imagenet_caffe"), top=False) == cache / WITHOUT_TOP
        assert server.requests == [WITHOUT_TOP]

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({}, WITH_TOP),
            (dict(classes=1000), WITH_TOP),
            (dict(include_top=False, pooling="avg"), WITHOUT_TOP),
            (dict(classes=3), WITHOUT_TOP),
        ],
        ids=str,
    )
    def test_is_asked_for_by_models_that_have_the_same(
        self, served_caffe, caffe_net, server, options, name
    ):
        model = keras_resnet.ResNet50(weights="imagenet_caffe", **NARROW, **options)
        assert server.requests == [name]
        kernel = model.get_layer("conv5_block3_3_conv").kernel
        np.testing.assert_array_equal(kernel, caffe_net.get_layer("conv5_block3_3_conv").kernel)

    def test_of_the_weights_is_not_lost_to_a_model_that_it_fits(self, served_caffe, caffe_net):
        model = keras_resnet.ResNet50(weights=None, stride_in="1x1", **NARROW)
        pretrained.load_weights(model, "imagenet_caffe", new_head=True)
        assert_equal_weights(model.get_weights(), caffe_net.get_weights())


class TestAChecksum:
    def test_of_a_download_is_checked(self, row, server, cache):
        (file,) = row.files
        server.answer = changed
        ours = digest(file, b"<html>Please log in</html>")
        with one_line_error(file.address, ours, file.checksum):
            fetch(row)
        assert not files_in(cache)
        server.answer = whole
        assert fetch(row).read_bytes() == server.contents[file.name]

    def test_of_a_download_is_an_error_about_weights(self, row, server):
        server.answer = changed
        with one_line_error("weights='cifar10'", row.files[0].checksum):
            keras_resnet.CIFARResNet(20, weights="cifar10")

    @pytest.mark.parametrize(
        ("model", "tag"), [("CIFARResNet20", "cifar10"), ("ResNet50", "imagenet_caffe")]
    )
    def test_of_a_file_in_the_cache_has_it_downloaded_anew(
        self, serve, server, cache, caplog, model, tag
    ):
        file = (row := serve(model, tag)).files[0]
        path = put(cache, file.name, b"damaged")
        assert fetch(row) == path
        assert path.read_bytes() == server.contents[file.name]
        assert server.requests == [file.name]
        (record,) = logged(caplog)
        assert record.levelno == logging.WARNING
        for part in (str(path), digest(file, b"damaged"), file.checksum):
            assert part in record.getMessage()

    def test_of_a_file_in_the_cache_leaves_another_one_to_be_found(self, serve, server, cache):
        row = serve("ResNet18", "imagenet_v1")
        put(cache, RESNET18_FILES[0], b"damaged")
        path = put(cache, RESNET18_FILES[1], server.contents[RESNET18_FILES[1]])
        assert fetch(row) == path
        assert files_in(cache) == {RESNET18_FILES[1]}
        assert not server.requests

    @pytest.mark.parametrize("content", [b"fine-tuned", b""], ids=["changed", "empty"])
    def test_of_a_file_of_the_user_is_their_business(self, row, server, folder, content):
        (file,) = row.files
        path = put(folder, file.name, content)
        with pytest.warns(RuntimeWarning, match=re.escape(str(path))) as caught:
            assert fetch(row) == path
        (message,) = [str(each.message) for each in caught if each.category is RuntimeWarning]
        assert digest(file, content) in message
        assert file.checksum in message
        assert path.read_bytes() == content
        assert not server.requests

    def test_that_is_right_is_not_mentioned(self, row, server, folder, caplog):
        put(folder, row.files[0].name, server.contents[row.files[0].name])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fetch(row)
        assert not logged(caplog)

    def test_that_nobody_publishes_is_not_missed(self, serve, folder):
        path = put(folder, RESNET18_FILES[2], b"whatever")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert fetch(serve("ResNet18", "imagenet_v1")) == path


class TestWithoutANetwork:
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (missing, "404"),
            (failing, "500"),
            (babbling, "nonsense"),
            (broken_off, "got only"),
            (silent, "timed out"),
            (stuck, "timed out"),
            (miscounting, "many"),
            (redirecting_nowhere, "label"),
        ],
    )
    def test_a_bad_server_is_no_riddle(self, row, server, cache, monkeypatch, answer, reason):
        server.answer = answer
        (file,) = row.files
        with (
            monkeypatch.context() as patch,
            helpful_os_error(file, cache / file.name, reason=reason),
        ):
            patch.setattr(fetching, "_SILENCE", 0.3)
            fetch(row)
        assert not files_in(cache)
        server.answer = whole
        assert fetch(row).read_bytes() == server.contents[file.name]

    def test_a_closed_port_is_no_riddle(self, row, cache):
        with socket.socket() as nobody:
            # Taken, so that it is nobody else's, but not listened at.
            nobody.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{nobody.getsockname()[1]}/file"
            file = dataclasses.replace(row.files[0], address=address)
            with helpful_os_error(file, cache / file.name):
                fetch(dataclasses.replace(row, files=(file,)))
        assert not files_in(cache)

    def test_an_unknown_host_is_no_riddle(self, row, cache):
        file = dataclasses.replace(row.files[0], address="https://nowhere.invalid/file")
        with helpful_os_error(file, cache / file.name):
            fetch(dataclasses.replace(row, files=(file,)))
        assert not files_in(cache)

    def test_builders_say_whose_argument_it_was(self, row, server, cache):
        server.answer = missing
        (file,) = row.files
        with helpful_os_error(file, cache / file.name, "weights='cifar10': "):
            keras_resnet.CIFARResNet(20, weights="cifar10")

    def test_a_file_put_where_the_error_says_is_found(self, row, server, cache):
        server.answer = missing
        (file,) = row.files
        cache.rmdir()
        with pytest.raises(OSError, match=re.escape(str(cache / file.name))):
            fetch(row)
        path = put(cache, file.name, server.contents[file.name])
        assert fetch(row) == path

    def test_the_patience_of_others_is_as_it_was(self, row, server):
        server.answer = missing
        with pytest.raises(OSError, match="404"):
            fetch(row)
        assert socket.getdefaulttimeout() is None
        server.answer = whole
        fetch(row)
        assert socket.getdefaulttimeout() is None

    def test_a_redirection_is_followed(self, row, server):
        name = row.files[0].name
        server.answer, server.contents["elsewhere"] = moved, server.contents[name]
        assert fetch(row).read_bytes() == server.contents[name]
        assert server.requests == [name, "elsewhere"]


# A process of its own that fetches a file when it is told to. The backend plays no part: this one
# starts soonest.
PROCESS = """
import pickle, signal, sys
from keras_resnet.pretrained.fetch import fetch
signal.signal(signal.SIGINT, signal.default_int_handler)
row = pickle.loads(bytes.fromhex(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
fetch(row)
"""


@pytest.fixture
def process(row):
    """Starts a process that will fetch the file once it gets a line."""
    with contextlib.ExitStack() as stack:

        def start():
            process = subprocess.Popen(
                [sys.executable, "-c", PROCESS, pickle.dumps(row).hex()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def wait_for_ready(process):
    seen = []
    for line in process.stdout:
        if line == "ready\n":
            return
        seen.append(line)
    pytest.fail("".join(seen))


def let_go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


class TestProcesses:
    @pytest.mark.parametrize(
        "killer", [signal.SIGINT, signal.SIGKILL], ids=lambda killer: killer.name
    )
    def test_that_are_killed_leave_nothing_that_is_taken_for_the_file(
        self, row, server, cache, process, killer
    ):
        server.answer = stuck
        child = process()
        wait_for_ready(child)
        let_go(child)
        deadline = time.monotonic() + 60
        while not any((cache / name).stat().st_size for name in files_in(cache)):
            assert child.poll() is None, child.stdout.read()
            assert time.monotonic() < deadline, "nothing has been written in a minute"
            time.sleep(0.01)
        child.send_signal(killer)
        assert child.wait(60) == -killer
        name = row.files[0].name
        assert name not in files_in(cache)
        server.answer = whole
        assert fetch(row).read_bytes() == server.contents[name]
        assert files_in(cache) == {name}
        assert server.requests == [name, name]

    def test_that_need_the_same_file_download_it_once(self, row, server, cache, process):
        server.answer = late
        children = [process(), process()]
        for child in children:
            wait_for_ready(child)
        for child in children:
            let_go(child)
        for child in children:
            output, _ = child.communicate(timeout=60)
            assert child.returncode == 0, output
        name = row.files[0].name
        assert server.requests == [name]
        assert files_in(cache) == {name}


class TestThreads:
    def test_that_need_the_same_file_download_it_once(self, row, server, cache):
        server.answer = late
        paths = []
        threads = [threading.Thread(target=lambda: paths.append(fetch(row))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert paths == [cache / row.files[0].name] * 2
        assert server.requests == [row.files[0].name]

    def test_leave_the_patience_of_others_as_it_was(self, serve, server):
        rows = [serve("CIFARResNet20", "cifar10"), serve("CIFARResNet32", "cifar10")]
        begun = {row.files[0].name: threading.Event() for row in rows}
        go_on = {row.files[0].name: threading.Event() for row in rows}

        def one_after_the_other(request, content):
            name = request.path.removeprefix("/")
            begun[name].set()
            go_on[name].wait()
            whole(request, content)

        server.answer = one_after_the_other
        threads = []
        try:
            for row in rows:
                threads.append(threading.Thread(target=fetch, args=(row,)))
                threads[-1].start()
                # Less than for ever: downloads may just as well wait for each other.
                begun[row.files[0].name].wait(1)
            for row, thread in zip(rows, threads, strict=True):
                go_on[row.files[0].name].set()
                thread.join()
            assert socket.getdefaulttimeout() is None
        finally:
            socket.setdefaulttimeout(None)


class TestFolders:
    def test_of_the_user_must_be_there(self, row, server, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_RESNET_WEIGHTS", str(tmp_path / "none"))
        with one_line_error("KERAS_RESNET_WEIGHTS=", str(tmp_path / "none"), "is not a folder"):
            fetch(row)
        with one_line_error("weights='cifar10'", "KERAS_RESNET_WEIGHTS="):
            keras_resnet.CIFARResNet(20, weights="cifar10")
        assert not server.requests

    def test_of_the_user_must_be_folders(self, row, folder, monkeypatch):
        path = put(folder, row.files[0].name, b"")
        monkeypatch.setenv("KERAS_RESNET_WEIGHTS", str(path))
        with one_line_error(f"KERAS_RESNET_WEIGHTS={str(path)!r}"):
            fetch(row)

    @pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
    def test_of_keras_are_in_the_home_of_the_user(self, row, tmp_path, monkeypatch, value):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        if value is None:
            monkeypatch.delenv("KERAS_HOME")
        else:
            monkeypatch.setenv("KERAS_HOME", value)
        assert fetch(row) == tmp_path / ".keras" / "models" / row.files[0].name

    def test_of_keras_may_begin_with_a_tilde(self, row, server, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        monkeypatch.setenv("KERAS_HOME", "~/keras")
        name = row.files[0].name
        # Where Keras itself would look.
        path = put(tmp_path / "keras" / "models", name, server.contents[name])
        assert fetch(row) == path
        assert not server.requests

    def test_of_keras_are_made(self, row, cache, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "not" / "yet"))
        assert fetch(row) == tmp_path / "not" / "yet" / "models" / row.files[0].name

    @pytest.mark.parametrize("name", ["keras", "keras/models"])
    def test_of_keras_that_cannot_be_made_are_named(
        self, row, server, cache, tmp_path, monkeypatch, name
    ):
        (tmp_path / "file").mkdir()
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file" / "keras"))
        obstacle = tmp_path / "file" / name
        obstacle.parent.mkdir(exist_ok=True)
        obstacle.touch()
        (file,) = row.files
        with helpful_os_error(file, tmp_path / "file" / "keras" / "models" / file.name):
            fetch(row)
        assert not server.requests

    @pytest.mark.parametrize("name", ["keras", "keras/models"])
    def test_of_keras_that_cannot_be_written_are_named(self, row, server, cache, tmp_path, name):
        (file,) = row.files
        if name == "keras":
            cache.rmdir()
        with read_only(tmp_path / name), helpful_os_error(file, cache / file.name):
            fetch(row)
        assert not server.requests

    def test_of_keras_that_cannot_be_written_can_be_read(self, row, server, cache):
        path = put(cache, row.files[0].name, server.contents[row.files[0].name])
        with read_only(cache):
            assert fetch(row) == path
        assert not server.requests

    def test_of_keras_that_cannot_be_mended_are_named(self, row, server, cache):
        (file,) = row.files
        path = put(cache, file.name, b"damaged")
        with read_only(cache), helpful_os_error(file, path):
            fetch(row)

    def test_of_keras_need_only_be_written_in_models(self, row, server, cache, tmp_path):
        seen = set()

        def watched(request, content):
            broken_off(request, content)
            deadline = time.monotonic() + 5
            while not seen and time.monotonic() < deadline:
                time.sleep(0.01)
                seen.update(files_in(cache))
            request.wfile.write(content[len(content) // 2 :])

        server.answer = watched
        with read_only(tmp_path / "keras"):
            assert fetch(row) == cache / row.files[0].name
        # Where it may not write, Keras would turn to a folder that is everybody's.
        assert seen


class TestTags:
    @pytest.mark.parametrize(
        ("tag", "suggestion"),
        [("cifar-1O", "cifar10"), ("imagnet", "imagenet"), ("caffe", "imagenet_caffe")],
    )
    def test_that_are_unknown_bring_the_nearest_to_mind(self, tag, suggestion):
        with one_line_error(f"weights {tag!r} is not known", f"Did you mean {suggestion}?"):
            keras_resnet.CIFARResNet(20, weights=tag)

    def test_that_a_model_has_not_are_answered_with_those_it_has(self):
        with one_line_error("weights='imagenet_v1': CIFARResNet20", "only 'cifar10'"):
            keras_resnet.CIFARResNet(20, weights="imagenet")
        with one_line_error("weights='cifar10': ResNet34", "only 'imagenet_v1'"):
            keras_resnet.ResNet34(weights="cifar10")
        with one_line_error(
            "weights='cifar10': ResNet50", "'imagenet_v1' and 'imagenet_v2' and 'imagenet_caffe'"
        ):
            keras_resnet.ResNet50(weights="cifar10")

    def test_of_other_depths_do_not_serve(self):
        with one_line_error("weights='cifar10': CIFARResNet14 has no such weights"):
            keras_resnet.CIFARResNet(14, weights="cifar10")

    def test_say_nothing_to_the_general_builder(self):
        with one_line_error("weights='imagenet_v1': a custom model"):
            keras_resnet.ResNet((3, 4, 6, 3), weights="imagenet")

    @pytest.mark.parametrize("tag", ["cifar10", "CIFAR-10"])
    def test_load_the_weights_that_they_name(self, served_net, net, server, tag):
        model = keras_resnet.CIFARResNet(20, weights=tag)
        assert_equal_weights(model.get_weights(), net.get_weights())
        assert len(server.requests) == 1

    def test_serve_a_model_that_is_there_already(self, served_net, net):
        model = keras_resnet.CIFARResNet(20)
        assert pretrained.load_weights(model, "cifar10") is model
        assert_equal_weights(model.get_weights(), net.get_weights())

    def test_serve_a_model_of_another_name_that_is_told(self, served_net, net):
        model = keras_resnet.CIFARResNet(20, name="mine")
        with one_line_error("weights='cifar10': ", "has no such weights"):
            pretrained.load_weights(model, "cifar10")
        pretrained.load_weights(model, "cifar10", architecture="CIFARResNet20")
        assert_equal_weights(model.get_weights(), net.get_weights())

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (dict(classes=-1), "classes=-1"),
            (dict(input_shape=(2, 2, 3)), "input_shape=(2, 2, 3)"),
            (dict(pooling="sum"), "pooling='sum'"),
            (dict(shortcut="E"), "shortcut='E'"),
            (dict(classifier_activation="hard"), "classifier_activation='hard'"),
            (
                dict(include_preprocessing=True, preprocessing="tf"),
                "weights='cifar10': these weights need preprocessing='torch'",
            ),
            (dict(shortcut="B"), "weights='cifar10': these weights need shortcut='A'"),
            # It has the same tensors: nothing but this check stands between it and nonsense.
            (dict(shortcut=None), "weights='cifar10': these weights need shortcut='A'"),
        ],
        ids=str,
    )
    def test_download_nothing_for_wrong_arguments(self, served_net, server, options, part):
        with one_line_error(part):
            keras_resnet.CIFARResNet(20, weights="cifar10", **options)
        assert not server.requests

    def test_tell_the_preprocessing(self, served_net, served_caffe):
        assert keras_resnet.CIFARResNet(20, weights="cifar10").preprocessing == "torch"
        model = keras_resnet.ResNet50(weights="imagenet_caffe", **NARROW)
        assert model.preprocessing == "caffe"
        assert not any(isinstance(x, keras_resnet.layers.Preprocessing) for x in model.layers)

    def test_tell_the_preprocessing_of_a_model_that_is_there_already(self, served_caffe):
        model = keras_resnet.ResNet50(weights=None, stride_in="1x1", **NARROW)
        assert model.preprocessing == "torch"
        assert pretrained.load_weights(model, "imagenet_caffe").preprocessing == "caffe"

    def test_bring_the_preprocessing_into_the_model(self, served_caffe):
        model = keras_resnet.ResNet50(
            weights="imagenet_caffe", include_preprocessing=True, **NARROW
        )
        assert model.get_layer("preprocessing").mode == model.preprocessing == "caffe"

    def test_bring_the_place_of_the_stride(self, served_caffe):
        model = keras_resnet.ResNet50(weights="imagenet_caffe", **NARROW)
        for stage in (3, 4, 5):
            assert model.get_layer(f"conv{stage}_block1_1_conv").strides == (2, 2)
            assert model.get_layer(f"conv{stage}_block1_2_conv").strides == (1, 1)

    def test_do_not_let_the_stride_be_moved(self, served_caffe, server):
        with one_line_error("weights='imagenet_caffe'", "stride_in='1x1'", "resnet50 has '3x3'"):
            keras_resnet.ResNet50(weights="imagenet_caffe", stride_in="3x3", **NARROW)
        model = keras_resnet.ResNet50(weights=None, **NARROW)
        with one_line_error("weights='imagenet_caffe'", "stride_in='1x1'", "resnet50 has '3x3'"):
            pretrained.load_weights(model, "imagenet_caffe")
        assert not server.requests

    @pytest.mark.parametrize("content", [b"0" * 8 + b"{}", b"", b"noise"], ids=repr)
    def test_of_a_damaged_file_name_it(self, serve, server, folder, content):
        serve("ResNet18", "imagenet_v1")
        # Without a published checksum, nothing but this error tells which file it is.
        path = put(folder, RESNET18_FILES[2], content)
        with one_line_error("weights='imagenet'", str(path)):
            keras_resnet.ResNet18(weights="imagenet", **NARROW)


class TestANewHead:
    def test_is_given_to_other_classes_and_logged(self, served_net, net, caplog):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            model = keras_resnet.CIFARResNet(20, classes=3, weights="cifar10")
        assert model.output_shape == (None, 3)
        assert_equal_weights(model.get_weights()[:-2], net.get_weights()[:-2])
        (record,) = logged(caplog)
        assert record.levelno == logging.INFO
        message = record.getMessage()
        assert all(part in message for part in ("10 classes", "cifar_resnet20", "3"))

    def test_is_logged_where_the_file_has_none(self, served_caffe, caplog):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            keras_resnet.ResNet50(classes=3, weights="imagenet_caffe", **NARROW)
        (record,) = logged(caplog)
        assert record.levelno == logging.INFO

    def test_is_not_given_to_the_same_classes(self, served_net, net, caplog):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            model = keras_resnet.CIFARResNet(20, classes=10, weights="cifar10")
        assert_equal_weights(model.get_weights(), net.get_weights())
        assert not logged(caplog)

    def test_has_to_be_asked_for_in_a_model_that_is_there_already(self, served_net, net):
        model = keras_resnet.CIFARResNet(20, classes=3)
        before = model.get_weights()
        with one_line_error("weights='cifar10'", "10 classes", "has 3", "new_head=True"):
            pretrained.load_weights(model, "cifar10")
        assert_equal_weights(model.get_weights(), before)
        pretrained.load_weights(model, "cifar10", new_head=True)
        assert_equal_weights(model.get_weights(), net.get_weights()[:-2] + before[-2:])


class TestDetectors:
    def test_are_downloaded_checked_and_loaded_by_their_tag(self, serve, server, cache):
        key = "FasterRCNN_ResNet50_C4", "coco_detectron2_3x"
        (file,) = registry.REGISTRY[key].files
        options = dict(stride_in="1x1", preprocessing="detectron2", include_top=False)
        backbone = keras_resnet.ResNet([1, 1, 1, 1], filters=(4, 4, 4, 4), **options)
        model = detection.FasterRCNN(
            backbone, 2, "c4", anchors_rounded=False, roi_aligned=True, roi_sampling_ratio=0
        )
        state = torchvision_state(model)
        theirs = as_detectron2(state, detection.Options.rpn_anchor_sizes)
        serve(*key, {file.name: as_arrays(theirs)})
        for _ in range(2):
            detection.load_weights(model, key[1], architecture=key[0])
        assert server.requests == [file.name]
        assert files_in(cache) == {file.name}
        kernel = detection.to_torch(model)["rpn.head.cls_logits.weight"]
        np.testing.assert_array_equal(kernel, state["rpn.head.cls_logits.weight"])

        (cache / file.name).unlink()
        server.answer = changed
        with one_line_error("removed the download", "Try again"):
            detection.load_weights(model, key[1], architecture=key[0])
        assert files_in(cache) == set()
