# SPDX-License-Identifier: Apache-2.0
"""Pictures that stand in a results file: a PNG as data URI, looked at before a page shows it."""

import base64
import binascii
import io
import warnings
from typing import Any

PREFIX = "data:image/png;base64,"
_MOST_CHARACTERS = 2**20
_MOST_SIDE = 1024


def checked_picture(uri: str) -> str:
    """The picture of a data URI, written anew from its pixels.

    Args:
        uri: ``data:image/png;base64,`` and a PNG of at most 1024 x 1024 pixels, 1 MiB in all.

    Returns:
        The same picture in the same form; nothing but pixels is taken over.

    Raises:
        ValueError: anything else.

    Example:
        >>> checked_picture("data:image/svg+xml,<svg onload='...'/>")
        Traceback (most recent call last):
        ValueError: picture must begin with data:image/png;base64,
    """
    if not uri.startswith(PREFIX):
        raise ValueError(f"picture must begin with {PREFIX}")
    if len(uri) > _MOST_CHARACTERS:
        raise ValueError(f"picture must be at most {_MOST_CHARACTERS} characters, got {len(uri)}")
    try:
        content = base64.b64decode(uri.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("picture is no base64") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of sizes that would fill the memory
            pixels = _decoded(content)
    except Exception as error:  # Pillow lets out whatever its parsers run into
        raise ValueError(f"picture is no PNG that can be used: {type(error).__name__}") from None
    buffer = io.BytesIO()
    pixels.save(buffer, format="PNG")
    return PREFIX + base64.b64encode(buffer.getvalue()).decode()


def _decoded(content: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if max(image.size) > _MOST_SIDE:
            raise ValueError
        image.load()
        plain = Image.new("RGB", image.size)
        plain.paste(image.convert("RGB"))
    return plain
