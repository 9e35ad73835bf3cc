"""Notes of a layer beside its weights in a .weights.h5 file, which has no configurations."""

import json

import numpy as np

NAME = "keras_resnet"
"""The HDF5 attribute of a layer's group that holds the note."""


def write(store, **facts) -> None:
    """Note facts about a layer in the `store` that its `save_own_variables` is given."""
    attributes = _attributes(store)
    if attributes is not None:
        attributes[NAME] = np.bytes_(json.dumps(facts))


def check(store, normalization: str | None) -> None:
    """Raise ValueError if the weights in a file are for images that are normalized differently.

    A file of Keras or of an earlier version of this package has no note, and passes.
    """
    note = (_attributes(store) or {}).get(NAME)
    if note is None or normalization is None:
        return
    noted = json.loads(bytes(note)).get("preprocessing")
    if noted not in (None, normalization):
        raise ValueError(
            f"these weights are for images that are normalized as {noted!r}, the model is for "
            f"{normalization!r}: build it with preprocessing={noted!r}."
        )


def _attributes(store):
    """The HDF5 attributes of a layer's group; None for a store that has none."""
    return getattr(getattr(store, "_h5_entry_group", None), "attrs", None)
