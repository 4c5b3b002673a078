"""Reads and writes PNGs of eight bits a channel, RGB or RGBA, not interlaced: what renderers write."""

import struct
import zlib
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Image(NamedTuple):
    width: int
    height: int
    pixels: bytes  # RGB, row by row.


def read(data):
    """The image of a PNG. Raises ValueError where it is none, or of another form."""
    if data[:8] != SIGNATURE:
        raise ValueError("this is no PNG")
    head, packed, at = None, b"", 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        (checked,) = struct.unpack_from(">I", data, at + 8 + length)
        if checked != zlib.crc32(kind + body):
            raise ValueError(f"the chunk {kind.decode()} is damaged")
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    width, height, depth, colour, _, _, interlaced = head
    if depth != 8 or colour not in (2, 6) or interlaced:
        raise ValueError(f"depth {depth}, colour type {colour}, interlaced {interlaced}: this form is not read here")
    channels = 3 if colour == 2 else 4
    pixels = unfilter(zlib.decompress(packed), width * channels, height, channels)
    if channels == 4:
        del pixels[3::4]
    return Image(width, height, bytes(pixels))


def unfilter(data, stride, height, channels):
    """Undoes the filter of each row (PNG specification, section 9)."""
    out, above = bytearray(), bytearray(stride)
    for y in range(height):
        kind = data[y * (stride + 1)]
        row = bytearray(data[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            left, corner = (row[x - channels], above[x - channels]) if x >= channels else (0, 0)
            guess = (0, left, above[x], (left + above[x]) // 2, paeth(left, above[x], corner))[kind]
            row[x] = (row[x] + guess) & 255
        out += row
        above = row
    return out


def paeth(left, above, corner):
    """Which of three neighbours is nearest to left + above - corner."""
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


def write(image):
    """The PNG of an image."""
    stride = image.width * 3
    rows = b"".join(b"\0" + image.pixels[at : at + stride] for at in range(0, len(image.pixels), stride))
    head = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def contact_sheet(images, columns, gap=8):
    """All images, of one size, on one dark sheet, in rows."""
    width, height = images[0].width, images[0].height
    rows = -(-len(images) // columns)
    sheet_width, sheet_height = gap + columns * (width + gap), gap + rows * (height + gap)
    sheet = bytearray(b"\x18" * (sheet_width * sheet_height * 3))
    for i, image in enumerate(images):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + gap)
        for y in range(height):
            at = ((top + y) * sheet_width + left) * 3
            sheet[at : at + width * 3] = image.pixels[y * width * 3 : (y + 1) * width * 3]
    return Image(sheet_width, sheet_height, bytes(sheet))
