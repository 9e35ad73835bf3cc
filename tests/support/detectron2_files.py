"""State dicts of detectors, as torchvision names them and as detectron2 does."""

import itertools
import re

import numpy as np

from keras_resnet import detection

RATIOS = (0.5, 1.0, 2.0)


def drawn(shapes, seed=0):
    """Parameters that are all different, with variances above 0."""
    draw = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        low, high = (0.5, 1.5) if name.endswith(("running_var", "norm.weight")) else (-0.1, 0.1)
        state[name] = draw.uniform(low, high, shape).astype("float32")
    return state


def torchvision_state(model, *, counters=True):
    """A state dict of torchvision's for a detector, drawn."""
    shapes = {name: each.shape for name, each in detection.to_torch(model).items()}
    counted = {name: np.array(9) for name in shapes if name.endswith("num_batches_tracked")}
    state = drawn({name: shape for name, shape in shapes.items() if name not in counted})
    return state | counted if counters else state


# detectron2's names for torchvision's: what a user of both would write.
TO_DETECTRON2 = [
    (r"num_batches_tracked$", None),
    (r"^roi_heads\.box_head\.layer4\.", "roi_heads.res5."),
    (r"^backbone\.body\.", "backbone.bottom_up."),
    (r"layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"^(backbone\.(?:bottom_up\.)?)conv1\.", r"\1stem.conv1."),
    (r"^(backbone\.(?:bottom_up\.)?)bn1\.", r"\1stem.conv1.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"fpn\.inner_blocks\.(\d)\.0\.", lambda match: f"fpn_lateral{int(match[1]) + 2}."),
    (r"fpn\.layer_blocks\.(\d)\.0\.", lambda match: f"fpn_output{int(match[1]) + 2}."),
    (r"^rpn\.head\.conv\.0\.0\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"box_head\.fc6\.", "box_head.fc1."),
    (r"box_head\.fc7\.", "box_head.fc2."),
]


def as_detectron2(state, sizes):
    """The same network in detectron2's names and orders."""
    # One anchor after another, in the loops of either library.
    theirs = [*itertools.product(sizes, RATIOS)]
    ours = [(size, ratio) for ratio in RATIOS for size in sizes]
    order = [ours.index(anchor) for anchor in theirs]
    found = {}
    for name, tensor in state.items():
        if name.startswith("rpn.head.cls_logits"):
            tensor = np.stack([tensor[index] for index in order])
        elif name.startswith("rpn.head.bbox_pred"):
            tensor = np.concatenate([tensor[4 * index : 4 * index + 4] for index in order])
        elif "cls_score" in name:
            tensor = np.concatenate([tensor[1:], tensor[:1]])
        elif "box_predictor.bbox_pred" in name:
            tensor = tensor[4:]
        for pattern, new in TO_DETECTRON2:
            if re.search(pattern, name):
                name = new and re.sub(pattern, new, name)
            if name is None:
                break
        else:
            found[name] = tensor
    return found


def cell_anchors(sizes):
    """The anchors of a place, as detectron2 has saved them at times."""
    found = []
    for size, ratio in itertools.product(sizes, RATIOS):
        width = (size**2 / ratio) ** 0.5
        found.append([-width / 2, -width * ratio / 2, width / 2, width * ratio / 2])
    return np.array(found, "float32")
