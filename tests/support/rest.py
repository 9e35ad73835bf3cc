"""A SavedModel behind TensorFlow Serving's REST API, with only TensorFlow and NumPy.

As a script, `python rest.py SAVED_MODEL NAME PORT` serves it until it is ended.
"""

import base64
import contextlib
import ctypes
import http.server
import json
import re
import sys
import threading
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2


def switch_xla_off():
    """What TensorFlow Serving does when it starts."""
    library = Path(tf.__file__).with_name("libtensorflow_cc.so.2")
    ctypes.CDLL(str(library))["_ZN10tensorflow21DisableXlaCompilationEv"]()


class Served:
    """A SavedModel in a session, whose signatures are called by name.

    Like the server, and unlike `tf.saved_model.load`, it checks nothing before the graph runs: what
    is wrong with a request is for the graph to find.
    """

    def __init__(self, path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        self.signatures = {
            name: signature for name, signature in loaded.signature_def.items() if signature.inputs
        }
        self._callables = {name: self._callable(each) for name, each in self.signatures.items()}

    def _callable(self, signature):
        names = [
            [each.name for each in ends.values()] for ends in (signature.inputs, signature.outputs)
        ]
        options = config_pb2.CallableOptions(feed=names[0], fetch=names[1])
        return self._session._make_callable_from_options(options)

    def __call__(self, name, inputs):
        """The outputs of a signature, for the one input that all signatures have."""
        if isinstance(inputs, list):
            inputs = np.array(inputs, object)  # NumPy's strings lose the zeros at their ends
        return dict(zip(self.signatures[name].outputs, self._callables[name](inputs), strict=True))


@contextlib.contextmanager
def rest_server(served, model="resnet50", port=0):
    """Serve it under a name, as the REST API is documented; yields the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == f"/v1/models/{model}"
            status = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}]
            self._answer(*((200, {"model_version_status": status}) if found else _NOT_FOUND))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not re.fullmatch(rf"/v1/models/{model}(/versions/\d+)?:predict", self.path):
                return self._answer(*_NOT_FOUND)
            try:
                question = json.loads(body)
                name = question.get("signature_name", "serving_default")
                outputs = served(name, _from_json(question["instances"]))
            except (ValueError, LookupError) as error:
                return self._answer(400, {"error": f"JSON Parse error: {error}"})
            except tf.errors.InvalidArgumentError as error:
                return self._answer(400, {"error": error.message})
            rows = [
                dict(zip(outputs, row, strict=True))
                for row in zip(*map(_to_json, outputs.values()), strict=True)
            ]
            if len(outputs) == 1:
                rows = [value for row in rows for value in row.values()]
            return self._answer(200, {"predictions": rows})

        def _answer(self, status, content):
            body = json.dumps(content, indent=2).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


_NOT_FOUND = 404, {"error": "Servable not found for request"}


def _from_json(instances):
    if all(isinstance(each, dict) for each in instances):
        return [base64.b64decode(each["b64"], validate=True) for each in instances]
    return np.array(instances, "float32")


def _to_json(array):
    return np.char.decode(array.astype("S")).tolist() if array.dtype == object else array.tolist()


if __name__ == "__main__":
    folder, name, port = sys.argv[1:]
    if sys.platform == "linux":
        switch_xla_off()
    with rest_server(Served(folder), name, int(port)):
        threading.Event().wait()
