"""A SavedModel as TensorFlow Serving runs it, and servers that speak its two languages.

As a script, `python serving.py SAVED_MODEL OUTPUTS` saves what the signatures answer to `ones` in a
process whose XLA is switched off.
"""

import base64
import contextlib
import ctypes
import http.server
import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

needs_switch = pytest.mark.skipif(
    sys.platform != "linux", reason="the switch is looked up in Linux' TensorFlow library"
)


def serve_without_xla(path, outputs_path):
    """Run this file as a script; gives the process, which has ended."""
    return subprocess.run(
        [sys.executable, __file__, str(path), str(outputs_path)], capture_output=True, text=True
    )


def switch_xla_off():
    """What TensorFlow Serving does when it starts."""
    library = Path(tf.__file__).with_name("libtensorflow_cc.so.2")
    ctypes.CDLL(str(library))["_ZN10tensorflow21DisableXlaCompilationEv"]()


class Served:
    """A SavedModel in a session, whose signatures are asked by name.

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


def code_of(error):
    """gRPC's status of an error of TensorFlow's, which has the same number."""
    return next(code for code in grpc.StatusCode if code.value[0] == error.error_code)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served):
        self._served = served

    def Predict(self, request, context):
        name = request.model_spec.signature_name or "serving_default"
        if request.model_spec.name != "resnet50":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        (value,) = request.inputs.values()
        try:
            outputs = self._served(name, tf.make_ndarray(value))
        except tf.errors.OpError as error:
            context.abort(code_of(error), error.message)
        response = predict_pb2.PredictResponse()
        for output, array in outputs.items():
            response.outputs[output].CopyFrom(tf.make_tensor_proto(array))
        return response


@contextlib.contextmanager
def grpc_server(served):
    """Serve it as "resnet50"; gives the address."""
    server = grpc.server(
        ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 2**31 - 1)]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(served), server
    )
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(served):
    """Serve it as "resnet50", by what is documented of the REST API; gives the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/v1/models/resnet50"
            status = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}]
            self._answer(*((200, {"model_version_status": status}) if found else _NOT_FOUND))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not re.fullmatch(r"/v1/models/resnet50(/versions/\d+)?:predict", self.path):
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

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
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


def ones(signature):
    """A request of two images or image files."""
    (tensor,) = signature.inputs.values()
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.dtype == tf.string.as_datatype_enum:
        return [tf.io.encode_png(tf.ones((32, 32, 3), "uint8")).numpy()] * 2
    sizes = [32 if size < 0 else size for size in shape[1:]]
    return np.ones((2, *sizes), tf.as_dtype(tensor.dtype).as_numpy_dtype)


def main(path, outputs_path):
    switch_xla_off()
    served = Served(path)
    np.savez(
        outputs_path,
        **{
            f"{name}.{output}": array.astype("S") if array.dtype == object else array
            for name, signature in served.signatures.items()
            for output, array in served(name, ones(signature)).items()
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
