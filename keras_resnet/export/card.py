"""What came out of an export: where it is, what it is, and how well it does."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import keras
import tensorflow as tf

import keras_resnet
from keras_resnet.export.comparison import Verification
from keras_resnet.export.detectors import DetectorInterface
from keras_resnet.export.folding import unfoldable
from keras_resnet.export.interface import Interface
from keras_resnet.files import json_text, write_text
from keras_resnet.layers.view import short

CARD_FILE = "model_card.json"
"""Where a card is kept, beside the model."""


@dataclass(frozen=True)
class Exported(os.PathLike):
    """An exported model, which can be used as its path.

    Parameters
    ----------
    path : pathlib.Path
        Where it is.
    card : dict
        Its model card: what it is, what it takes and returns, what made it, and its verification.
    verification : Verification, optional
        How it compares with the original; None if it was not verified.
    beside : dict of str to Verification, default {}
        How other files in its folder compare with the original, by name: the LiteRT file of a
        SavedModel.
    """

    path: Path
    card: dict
    verification: Verification | None
    beside: Mapping[str, Verification] = field(default_factory=dict)

    def __fspath__(self):
        return os.fspath(self.path)

    def __str__(self):
        lines = [f"{self.path}\n{self.verification or 'not verified'}"]
        lines += [f"{self.path / name}\n{each}" for name, each in self.beside.items()]
        return "\n".join(lines)


def model_card(
    model: keras.Model,
    interface: Interface | DetectorInterface,
    precision: str,
    verification: Verification | None,
) -> dict:
    """Collect the facts about an exported model.

    Parameters
    ----------
    model : keras.Model
        The original model.
    interface : Interface or DetectorInterface
        How clients call it.
    precision : str
        The precision that it computes in.
    verification : Verification, optional
        How the exported model compares with the original.

    Returns
    -------
    dict
        Of JSON values.
    """
    _, height, width, channels = model.inputs[0].shape
    return {
        "model": model.name,
        "parameters": model.count_params(),
        "input": [height, width, channels],
        "output": interface.output,
        "precision": precision,
        **dataclasses.asdict(interface),
        "image_size": short(interface.image_size),
        "not_folded": unfoldable(model),
        "verification": verification and dataclasses.asdict(verification),
        "made_with": {
            "keras_resnet": keras_resnet.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def with_facts(exported: Exported, **facts: object) -> Exported:
    """Add facts to the card of an exported model, and to the file that holds it.

    Parameters
    ----------
    exported : Exported
        The exported model.
    **facts
        JSON values by name, which replace those that the card has.

    Returns
    -------
    Exported
    """
    path, card = exported.path, {**exported.card, **facts}
    file = path / CARD_FILE if path.is_dir() else path.with_name(f"{path.name}.json")
    write_text(file, json_text(card) + "\n")
    return dataclasses.replace(exported, card=card)
