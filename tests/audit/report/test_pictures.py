"""Pictures out of a stranger's file: looked at, and written anew, or refused."""

import base64
import io
import zlib

import pytest
from PIL import Image, PngImagePlugin

from d3fast.audit.report.pictures import PREFIX, checked_picture
from tests.audit.report.documents import png


def uri(content):
    return PREFIX + base64.b64encode(content).decode()


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text.removeprefix(PREFIX))))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "RGBA", "I;16"])
def test_a_png_of_any_kind_comes_back_as_one_in_colour(mode):
    found = opened(checked_picture(uri(saved(Image.new(mode, (7, 5))))))
    assert (found.format, found.mode, found.size) == ("PNG", "RGB", (7, 5))


def test_pixels_stay_as_they_are():
    assert opened(checked_picture(png(colour=(10, 200, 30)))).getpixel((3, 3)) == (10, 200, 30)


def test_nothing_but_pixels_is_taken_over():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "<script>alert(1)</script>")
    content = saved(Image.new("RGB", (4, 4)), pnginfo=notes) + b"<script>"
    assert b"script" in content
    assert b"script" not in base64.b64decode(checked_picture(uri(content)).removeprefix(PREFIX))


def bomb():
    """A PNG that says that it has 60000 x 60000 pixels."""
    content = bytearray(saved(Image.new("L", (4, 4))))
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("picture", "error_text"),
    [
        ("", "must begin with"),
        ("javascript:alert(1)", "must begin with"),
        ("http://example.org/x.png", "must begin with"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "must begin with"),
        (" " + png(), "must begin with"),
        (PREFIX + 'AAAA" onerror="alert(1)', "no base64"),
        (PREFIX + "AAAA AAAA", "no base64"),
        (PREFIX + "A", "no base64"),
        (PREFIX, "no PNG"),
        (uri(b"<html>"), "no PNG"),
        (uri(saved(Image.new("RGB", (4, 4)), "GIF")), "no PNG"),
        (uri(saved(Image.new("RGB", (4, 4)))[:40]), "no PNG"),
        (uri(saved(Image.new("L", (1025, 4)))), "no PNG"),
        (uri(bomb()), "no PNG"),
        (PREFIX + "A" * 2**20, "at most 1048576 characters"),
    ],
)
def test_anything_else_is_refused_in_one_line(picture, error_text):
    with pytest.raises(ValueError, match=error_text) as caught:
        checked_picture(picture)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120
