"""keras_resnet against the alternatives: `python -m benchmarks [--quick]`.

Each contender runs in its own process, and each peer alternates with keras_resnet (A B A B) so that
both see the same machine conditions. Trust the ratios; absolute figures drift. Figures are medians
over all turns; the first call, which traces and compiles, is reported separately. Writes
`peers.json` and `peers.png` into the folder of this CPU in `results/cpus`, and `RESULTS.md`, with a
section for every CPU that has such a folder. If only some models or peers are measured, the others
keep their earlier results.
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import CONTENDERS, NETS
from benchmarks.machine import describe, matrix_product_rates, precisions, results_of
from benchmarks.measure import ROUNDS, measure, peers_of
from benchmarks.report import print_ratios, write_report

# The work for each model, in order, with batch sizes. Training comes first so that the peak memory
# read after it is that of training.
_STEPS = [("train", 8), ("train", 32), ("infer", 1), ("infer", 8), ("infer", 32)]
_LIFE = [("build", 1), ("save", 1), ("load", 1)]
WORK = {
    "ResNet-18": [*_STEPS, ("train_from_files", 32), *_LIFE],
    "ResNet-50": [*_STEPS, *_LIFE],
    "ResNeXt-50": [*_STEPS, *_LIFE],
    "CIFAR ResNet-20": [("train", 128), ("infer", 128), ("train_from_files", 128), *_LIFE],
    "ResNet-152": [("build", 1)],
}
WORK_KINDS = {kind for work in WORK.values() for kind, _ in work}
# The quick mode: image size and work.
QUICK = {
    "ResNet-50": (96, [("train", 8), ("infer", 8)]),
    "ResNeXt-50": (64, [("train", 4), ("infer", 4)]),
    "CIFAR ResNet-20": (32, [("train", 128), ("infer", 128)]),
}
QUICK_PEERS = {
    ("stock Keras twin", "float32"),
    ("keras.applications", precisions()[-1]),
    ("PyTorch channels_last", precisions()[-1]),
}


def merged(old: dict | None, new: dict) -> dict:
    """Add old measurements to a model's new ones: of other contenders, and of other work."""
    if old is None:
        return new

    def of(each):
        return each["contender"], each["precision"], each.get("work")

    parts = {}
    for part in ("windows", "starts"):
        again = {of(each) for each in new[part]}
        parts[part] = [each for each in old[part] if of(each) not in again] + new[part]
    return {**new, **parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="print ratios only, in three minutes")
    parser.add_argument(
        "--net", action="append", choices=list(WORK), help="measure this model only"
    )
    parser.add_argument(
        "--peer", action="append", choices=list(CONTENDERS), help="measure this peer only"
    )
    parser.add_argument(
        "--work", action="append", choices=sorted(WORK_KINDS), help="measure this work only"
    )
    parser.add_argument("--report", action="store_true", help="only rewrite RESULTS.md")
    options = parser.parse_args()
    if options.report:
        write_report()
        return

    plan = QUICK if options.quick else {net: (NETS[net].size, work) for net, work in WORK.items()}
    file = None if options.quick else results_of() / "peers.json"
    results = json.loads(file.read_text()) if file and file.exists() else {}
    results |= {"machine": describe(), "rates": matrix_product_rates()}
    for net, (size, work) in plan.items():
        if options.net and net not in options.net:
            continue
        peers = [
            peer
            for peer in peers_of(net)
            if (not options.peer or peer[0] in options.peer)
            and (not options.quick or peer in QUICK_PEERS)
        ]
        work = [each for each in work if not options.work or each[0] in options.work]
        found = measure(net, size, work, peers, 3 if options.quick else ROUNDS)
        nets = results.setdefault("nets", {})
        nets[net] = merged(nets.get(net), found)
        if file:
            file.write_text(json.dumps(results, indent=1))
    print_ratios(results)
    if file:
        write_report()


if __name__ == "__main__":
    main()
