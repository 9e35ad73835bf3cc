"""Images in a page, without files of their own."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import PIL.Image
    from markupsafe import Markup

_SMALL = 64  # pixels of a side up to which an image is kept as it is
_QUALITY = 80


def picture(
    image: "np.ndarray | PIL.Image.Image", alt: str, *, side: int = 160, shown: int | None = None
) -> "Markup":
    """An image as an element of a page.

    Parameters
    ----------
    image : array of shape (height, width) or (height, width, 1, 3 or 4), or PIL.Image.Image
        The image, from 0 to 255.
    alt : str
        What it shows, for those who do not see it.
    side : int, default 160
        Pixels of its longer side at most: a larger image is made smaller.
    shown : int, optional
        Pixels that the longer side has on the page. Default: what is kept of the image. Where that
        is less than half of it, pixels stay squares.

    Returns
    -------
    markupsafe.Markup
    """
    from markupsafe import Markup

    image = _image(image)
    image.thumbnail((side, side))
    longer = max(image.size)
    factor = (shown or longer) / longer
    width, height = (max(1, round(factor * each)) for each in image.size)
    squares = Markup(' class="pixels"') if factor >= 2 else ""
    return Markup('<img src="{}" width="{}" height="{}" alt="{}"{}>').format(
        data_uri(image), width, height, alt, squares
    )


def data_uri(image: "np.ndarray | PIL.Image.Image") -> str:
    """An image as the address of itself: WebP, which small images lose nothing in.

    Parameters
    ----------
    image : array or PIL.Image.Image
        As for `picture`.

    Returns
    -------
    str
    """
    image, file = _image(image), io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, lossless=max(image.size) <= _SMALL)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _image(image):
    """A copy that WebP can hold."""
    import PIL.Image

    if not isinstance(image, PIL.Image.Image):
        pixels = np.clip(np.rint(np.asarray(image, "float32")), 0, 255).astype("uint8")
        if pixels.ndim == 3 and pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        image = PIL.Image.fromarray(pixels)
    with_alpha = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if with_alpha else "RGB")
