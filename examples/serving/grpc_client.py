"""Classify images with TensorFlow Serving, over gRPC.

    python grpc_client.py cat.jpg dog.png [--address localhost:8500] [--model resnet50]

Prints the best label and its probability for every image. Exits with 1 if an image failed.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# gRPC's default limit of 4 MiB is too small for large photographs.
LARGEST_MESSAGE = 64 * 2**20
OPTIONS = [
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
]


def question(model: str, contents: bytes) -> predict_pb2.PredictRequest:
    """Make the request that classifies one image file."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "classify_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([contents]))
    return request


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="localhost:8500")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--timeout", type=float, default=30, help="in seconds")
    arguments = parser.parse_args()
    failed = False
    with grpc.insecure_channel(arguments.address, OPTIONS) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for image in arguments.images:
            try:
                request = question(arguments.model, image.read_bytes())
                outputs = service.Predict(request, timeout=arguments.timeout).outputs
                label = tf.make_ndarray(outputs["labels"])[0, 0].decode()
                probability = tf.make_ndarray(outputs["probabilities"])[0, 0]
                print(f"{image}: {label} {probability:.4f}")
            except OSError as error:
                print(error, file=sys.stderr)
                failed = True
            except grpc.RpcError as error:
                # The remaining lines only tell where in the graph it happened.
                reason = error.details().partition("\n")[0]
                print(f"{image}: {error.code().name}: {reason}", file=sys.stderr)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
