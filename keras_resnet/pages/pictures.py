"""Images embedded in a page."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import PIL.Image
    from markupsafe import Markup

_SMALL = 64  # pixels of the longer side up to which compression is lossless
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
        What it shows, for those who cannot see it.
    side : int, default 160
        Most pixels that its longer side may have: a larger image is scaled down.
    shown : int, optional
        Pixels of the longer side on the page. Default: as many as the scaled image has. At twice
        that or more, pixels are shown as squares.

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
    """An image as a data URI, in WebP, which is lossless for small images.

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
