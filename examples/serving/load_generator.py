"""Measure TensorFlow Serving under load from many clients, over gRPC.

    python load_generator.py photographs/*.jpg --clients 32 --seconds 30

Every client sends an image, waits for the answer, and sends the next one. Latencies include only
requests that succeeded. Exits with 1 if none did.
"""

import argparse
import itertools
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
from grpc_client import OPTIONS, question
from tensorflow_serving.apis import prediction_service_pb2_grpc

# Give every client its own connection, as if they were on separate machines.
OPTIONS = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]


def client(address, requests, turns, until, timeout, milliseconds, errors):
    """Send requests until the turns or the time run out."""
    with grpc.insecure_channel(address, OPTIONS) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for turn in turns:
            start = time.perf_counter()
            if start >= until:
                break
            try:
                service.Predict(requests[turn % len(requests)], timeout=timeout)
                milliseconds.append(1000 * (time.perf_counter() - start))
            except grpc.RpcError as error:
                errors.append(error.code().name)


def percentile(ordered, percent):
    """Return the smallest value that at least `percent` percent of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="localhost:8500")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=30, help="per request, in seconds")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=10)
    length.add_argument("--requests", type=int, help="total number, in place of --seconds")
    arguments = parser.parse_args()

    try:
        requests = [question(arguments.model, image.read_bytes()) for image in arguments.images]
    except OSError as error:
        parser.error(str(error))
    turns = itertools.count() if arguments.requests is None else iter(range(arguments.requests))
    start = time.perf_counter()
    until = start + arguments.seconds if arguments.requests is None else float("inf")
    # Threads can share these: appending to a list and advancing an iterator are atomic.
    milliseconds, errors = [], []
    threads = [
        threading.Thread(
            target=client,
            args=(arguments.address, requests, turns, until, arguments.timeout),
            kwargs={"milliseconds": milliseconds, "errors": errors},
        )
        for _ in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start

    answers = len(milliseconds)
    print(f"{answers} answers in {seconds:.1f} s, {answers / seconds:.1f} a second")
    if milliseconds:
        milliseconds.sort()
        times = (f"p{each} {percentile(milliseconds, each):.1f} ms" for each in (50, 95, 99))
        print(", ".join(times))
    for code, count in Counter(errors).most_common():
        print(f"{code}: {count}")
    return int(not milliseconds)


if __name__ == "__main__":
    sys.exit(main())
