"""The view of an image that a model wants to be shown, as its layers save it."""

from keras_resnet.checks import check_choice, check_positive, check_range, is_within

INTERPOLATIONS = ("bilinear", "bicubic")
VIEW = ("crop", "image_size", "interpolation")


def sides(image_size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """Height and width of an image size.

    Parameters
    ----------
    image_size : int or pair of int
        One number for both, or (height, width).

    Returns
    -------
    tuple of (int, int)

    Raises
    ------
    ValueError
        For anything else, and for numbers below 1.

    Examples
    --------
    >>> from keras_resnet.layers.view import sides
    >>> sides(224), sides((96, 160))
    ((224, 224), (96, 160))
    """
    pair = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(pair) != 2 or not all(is_within("count", side) for side in pair):
        raise ValueError(
            f"image_size={image_size!r} must be a whole number of at least 1, or (height, width)."
        )
    height, width = map(int, pair)
    return height, width


def short(image_size: tuple[int, int]) -> int | list[int]:
    """Height and width for JSON: one number if they are equal."""
    height, width = image_size
    return height if height == width else [height, width]


def checked_view(crop, image_size, interpolation):
    """The attributes of a layer that hold its view; ValueError for a wrong argument."""
    check_range("crop", crop=crop)
    check_choice(INTERPOLATIONS, interpolation=interpolation)
    if image_size is not None:
        try:
            height, width = image_size
        except (TypeError, ValueError):
            raise ValueError(
                f"image_size={image_size!r} must be (height, width), or None for any."
            ) from None
        check_positive(height=height, width=width)
        image_size = int(height), int(width)
    return {"crop": float(crop), "image_size": image_size, "interpolation": interpolation}


def view_config(layer):
    """The part of a layer's config that `checked_view` takes."""
    size = layer.image_size
    return {
        "crop": layer.crop,
        "image_size": None if size is None else [*size],  # Keras writes tuples in a way of its own
        "interpolation": layer.interpolation,
    }


def noted(config) -> dict:
    """What files of weights record of a layer's config of a view: the crop, and no defaults."""
    view = {name: config[name] for name in VIEW if name in config}
    return {name: value for name, value in view.items() if value not in (None, "bilinear")}
