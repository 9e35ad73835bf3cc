"""Classify images with TensorFlow Serving, over REST. Needs only the standard library.

    python rest_client.py cat.jpg dog.png [--url http://localhost:8501] [--model resnet50]

Prints the best label and its probability for every image. Exits with 1 if an image failed.
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def classify(url: str, model: str, contents: bytes, timeout: float) -> tuple[str, float]:
    """Return the best label of an image file, and its probability."""
    question = {
        "signature_name": "classify_bytes",
        "instances": [{"b64": base64.b64encode(contents).decode()}],
    }
    request = urllib.request.Request(
        f"{url}/v1/models/{model}:predict", json.dumps(question).encode()
    )
    with urllib.request.urlopen(request, timeout=timeout) as response:
        (answer,) = json.load(response)["predictions"]
    return answer["labels"][0], answer["probabilities"][0]


def reason(error: urllib.error.HTTPError) -> str:
    """Return the reason why the server refused a request, in one line."""
    body = error.read().decode(errors="replace")
    try:
        # The remaining lines only tell where in the graph it happened.
        return json.loads(body)["error"].partition("\n")[0]
    except (ValueError, LookupError, TypeError):
        return error.reason  # not from the server, maybe from a proxy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--model", default="resnet50", help="or resnet50/versions/1")
    parser.add_argument("--timeout", type=float, default=30, help="in seconds")
    arguments = parser.parse_args()
    failed = False
    for image in arguments.images:
        try:
            contents = image.read_bytes()
            label, probability = classify(
                arguments.url, arguments.model, contents, arguments.timeout
            )
            print(f"{image}: {label} {probability:.4f}")
        except urllib.error.HTTPError as error:
            print(f"{image}: {error.code}: {reason(error)}", file=sys.stderr)
            failed = True
        except OSError as error:
            print(error, file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
