"""File types by their first bytes: names for the types that are not read, with the way out."""

from __future__ import annotations

import re

READ_TYPES = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and PPM are read."

_AS_JPEG = "Save it as JPEG or PNG."
_OF_IPHONE = (
    "Convert it to JPEG, e.g. with `heif-convert`; an iPhone takes JPEG itself with Settings, Camera, Formats, "
    "Most Compatible."
)
_UNREAD: tuple[tuple[bytes, str, str], ...] = (
    (rb".{4}ftyp(?:avif|avis)", "AVIF, which this installation's Pillow cannot read", "Install Pillow with AVIF."),
    (rb".{4}ftyp(?:heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|msf1)", "HEIC (HEIF)", _OF_IPHONE),
    (rb".{4}ftypcrx", "a camera's raw file (CR3)", "Develop it to JPEG or PNG."),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "a video", "Cut images of persons out of it."),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL", "Convert it to JPEG or PNG, e.g. with `djxl`."),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", _AS_JPEG),
    (rb"8BPS", "a Photoshop document (PSD)", _AS_JPEG),
    (rb"%PDF", "a PDF document", "Save its images as JPEG or PNG."),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)", _AS_JPEG),
    (rb"\x00\x00\x01\x00", "an icon (ICO)", _AS_JPEG),
    (rb"DDS |\x76\x2f\x31\x01|qoif|SIMPLE  =", "an image of a type that is not read", _AS_JPEG),
    (rb"\s*(?:<\?xml|<svg)", "a vector drawing (SVG) or another XML file", _AS_JPEG),
    (rb"\s*(?:<!doctype html|<html|<head)", "a web page", "Download the image itself."),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "Unpack it."),
)


def name_unread(start: bytes) -> tuple[str, str] | None:
    """Type and way out of a file that begins with these bytes (32 are enough) and is no image that we read.

    None where the type is not known.
    """
    for pattern, name, way_out in _UNREAD:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return name, way_out
    return None
