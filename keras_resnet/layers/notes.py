"""What a layer notes in a .weights.h5 file beside its weights: a file has no configurations."""

import json

import numpy as np

NAME = "keras_resnet"
"""The HDF5 attribute of a layer's group that holds the note."""


def write(store, **facts) -> None:
    """Write a note on what a layer computes with; `store` is what `save_own_variables` is given."""
    attributes = _attributes(store)
    if attributes is not None:
        attributes[NAME] = np.bytes_(json.dumps(facts))


def check(store, normalization: str | None) -> None:
    """Raise ValueError if the weights in a file are for images that are normalized in another way.

    A file of Keras' own, or of an older version of this package, says nothing.
    """
    note = (_attributes(store) or {}).get(NAME)
    said = normalization if note is None else json.loads(bytes(note)).get("preprocessing")
    if None not in (said, normalization) and said != normalization:
        raise ValueError(
            f"these weights are for images that are normalized as {said!r}, the model is for "
            f"{normalization!r}: build it with preprocessing={said!r}."
        )


def _attributes(store):
    """The HDF5 attributes of a layer's group; None for a store that has none."""
    return getattr(getattr(store, "_h5_entry_group", None), "attrs", None)
