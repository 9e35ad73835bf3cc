"""A SavedModel as TensorFlow Serving runs it, and servers that speak its two languages.

As a script, `python serving.py SAVED_MODEL OUTPUTS` saves what the signatures answer to `ones` in a
process whose XLA is switched off.
"""

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from rest import Served, rest_server, switch_xla_off  # noqa: F401  what tests import from here
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

needs_switch = pytest.mark.skipif(
    sys.platform != "linux", reason="the switch is looked up in Linux' TensorFlow library"
)


def serve_without_xla(path, outputs_path):
    """Run this file as a script; gives the process, which has ended."""
    return subprocess.run(
        [sys.executable, __file__, str(path), str(outputs_path)], capture_output=True, text=True
    )


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
