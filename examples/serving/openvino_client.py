"""Classify images with OpenVINO Model Server, over gRPC.

    python openvino_client.py CARD cat.jpg dog.png [--address localhost:8500] [--model resnet50]

CARD is the model card that was written beside the model, resnet50.xml.json: it says how to prepare
images and what the classes are called. Prints the best label and its probability for every image.
Exits with 1 if an image failed.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def shown(file: Path, card: dict) -> np.ndarray:
    """Crop and resize an image as in evaluation, and normalize it if the model does not."""
    with PIL.Image.open(file) as image:
        image = PIL.ImageOps.exif_transpose(image).convert("RGB" if card["input"][-1] == 3 else "L")
    height, width = np.broadcast_to(card["image_size"], 2)
    scale = card["crop"] * min(image.width / width, image.height / height)
    window = [max(1, round(scale * side)) for side in (width, height)]
    left, top = ((size - side) // 2 for size, side in zip(image.size, window, strict=True))
    box = (left, top, left + window[0], top + window[1])
    kind = PIL.Image.Resampling[card["interpolation"].upper()]
    pixels = np.asarray(image.resize((width, height), kind, box), "float32")
    pixels = pixels.reshape(1, height, width, -1)
    if card["preprocessing"] == "raw":
        return pixels
    from keras_resnet import preprocess_input

    return np.asarray(preprocess_input(pixels, card["preprocessing"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("card", type=Path)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="localhost:8500")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--timeout", type=float, default=30, help="in seconds")
    arguments = parser.parse_args()
    card = json.loads(arguments.card.read_text(encoding="utf-8"))
    if card["preprocessing"] is None:
        parser.error(f"{arguments.card} does not say how images are normalized")
    failed = False
    with grpc.insecure_channel(arguments.address) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for image in arguments.images:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = arguments.model
            try:
                request.inputs["images"].CopyFrom(tf.make_tensor_proto(shown(image, card)))
                answer = service.Predict(request, timeout=arguments.timeout)
            except OSError as error:
                print(error, file=sys.stderr)
                failed = True
                continue
            except grpc.RpcError as error:
                print(f"{image}: {error.code().name}: {error.details()}", file=sys.stderr)
                failed = True
                continue
            (outputs,) = tf.make_ndarray(answer.outputs[card["output"]])
            best = int(outputs.argmax())
            label = card["labels"][best] if card["labels"] else best
            print(f"{image}: {label} {outputs[best]:.4f}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
