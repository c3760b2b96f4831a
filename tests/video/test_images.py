"""Images that are not plain 8-bit pictures of one size, and what only bears the name of an image."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from tam_plugin.errors import InputError, TamNotice
from tam_plugin.video import probe_video, sample_frames
from tam_plugin.video.images import MAX_IMAGE_PIXELS

from .clips import picture

GREY = np.linspace(0, 255, 48 * 64).reshape(48, 64).round().astype(np.uint8)
"""uint8 ``[48, 64]``: the grey values that every image below holds, in its own way."""

GREY_16 = GREY.astype(np.uint16) << 8 | 0x5A


def write_png(path: Path, values: np.ndarray, colour: int, size: tuple[int, int] | None = None) -> None:
    """A 16-bit PNG, whose header may promise another (width, height)."""
    width, height = size or (values.shape[1], values.shape[0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (b"IHDR", struct.pack(">2I5B", width, height, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (*chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data)


def write_tiff(path: Path, data: bytes, bits: int, photometric: int = 1, sample_format: int = 1) -> None:
    """A little-endian TIFF of one uncompressed strip of one channel."""
    height, width = GREY.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = sorted({**tags, 339: sample_format}.items())
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + bytes(4))


def packed_12_bits(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2).astype(np.uint32)
    triples = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    return triples.astype(np.uint8).tobytes()


def with_transparency(image: Image.Image, value: int) -> Image.Image:
    image.putalpha(Image.fromarray(np.where(GREY % 3 == 0, value, 255).astype(np.uint8)))
    return image


PICTURE = Image.fromarray(GREY)

WRITERS = {
    "16 bits.png": lambda path: Image.fromarray(GREY_16).save(path),
    "16 bits.tif": lambda path: Image.fromarray(GREY_16).save(path),
    "16 bits big-endian.tif": lambda path: Image.fromarray(GREY_16.astype(">u2")).save(path),
    "16 bits white is zero.tif": lambda path: write_tiff(path, (65535 - GREY_16).tobytes(), 16, photometric=0),
    "16 bits signed.tif": lambda path: write_tiff(path, (GREY_16 >> 1).tobytes(), 16, sample_format=2),
    "12 bits.tif": lambda path: write_tiff(path, packed_12_bits(GREY_16 >> 4), 12),
    "16 in 32 bits.tif": lambda path: Image.fromarray(GREY_16.astype(np.int32)).save(path),
    "floats to 1.tif": lambda path: Image.fromarray(GREY.astype(np.float32) / 255).save(path),
    "floats to 255.tif": lambda path: Image.fromarray(GREY.astype(np.float32)).save(path),
    "floats white is zero.tif": lambda path: write_tiff(
        path, (1 - GREY / 255).astype(np.float32).tobytes(), 32, photometric=0, sample_format=3
    ),
    "16 bits colour.png": lambda path: write_png(path, np.repeat(GREY_16, 3, axis=1), 2, size=(64, 48)),
    "16 bits alpha.png": lambda path: write_png(path, np.repeat(GREY_16, 2, axis=1), 4, size=(64, 48)),
    "alpha.png": lambda path: with_transparency(PICTURE.convert("LA"), 0).save(path),
    "colour and alpha.webp": lambda path: with_transparency(PICTURE.convert("RGB"), 9).save(path, lossless=True),
    "palette and transparency.png": lambda path: PICTURE.convert("P").save(path, transparency=7),
    "cmyk.tif": lambda path: PICTURE.convert("RGB").convert("CMYK").save(path),
    "palette.bmp": lambda path: PICTURE.convert("P").save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_depth_and_mode_comes_out_as_8_bit_colour(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    frame = sample_frames(tmp_path, 1).frames[0].astype(int)
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame - GREY[..., None]).max() <= 1
    small = sample_frames(tmp_path, 1, size=(32, 24)).frames[0].astype(int)
    assert np.abs(small - np.asarray(PICTURE.resize((32, 24), Image.Resampling.BOX))[..., None]).max() <= 6


def test_one_scale_for_all_images_of_floats(tmp_path: Path) -> None:
    bright = GREY.astype(np.float32)
    dark = np.where(GREY > 250, np.float32(1), np.float32(0))  # by itself it would be black and white
    for name, values in (("1.tif", dark), ("2.tif", bright), ("3.tif", dark)):
        Image.fromarray(values).save(tmp_path / name)
    assert [int(frame.max()) for frame in sample_frames(tmp_path, 3).frames] == [1, 255, 1]
    assert sample_frames(tmp_path, 1).frames.max() == 255


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (GREY.astype(np.int32) << 20, "from 0 to 267386880; expected 0 to 65535"),
        (GREY.astype(np.int32) - 3, "from -3 to 252; expected 0 to 65535"),
        (GREY.astype(np.float32) * 9, "from 0 to 2295; expected 0 to 1 or 0 to 255"),
        (np.where(GREY == 8, np.float32("nan"), np.float32(0)), "from nan to nan; expected 0 to 1 or 0 to 255"),
    ],
)
def test_values_whose_white_is_not_known_are_refused(tmp_path: Path, values: np.ndarray, told: str) -> None:
    Image.fromarray(values).save(tmp_path / "1.tif")
    with pytest.raises(InputError, match=rf"1\.tif: grey values {told}"):
        sample_frames(tmp_path, 1)


def test_images_of_other_sizes_are_resized_to_the_first(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(picture(0, 60, 80)).save(tmp_path / "1.png")
    Image.fromarray(picture(1, 160, 96)).save(tmp_path / "2.png")
    Image.fromarray(picture(2, 160, 96)).save(tmp_path / "3.png", exif=exif)
    Image.fromarray(picture(3, 1, 1)).save(tmp_path / "4.png")
    shown = [picture(0, 60, 80), picture(1, 160, 96), np.rot90(picture(2, 160, 96), 3), picture(3, 1, 1)]
    for size, (width, height) in ((None, (60, 80)), (40, (40, 40)), ((100, 50), (60, 50))):
        sampled = sample_frames(tmp_path, 4, size=size)
        assert (sampled.info.width, sampled.info.height) == (60, 80)
        expected = [Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in shown]
        assert np.array_equal(sampled.frames, np.stack([np.asarray(image) for image in expected]))


@pytest.mark.parametrize("name", ["1.webp", "1.png", "1.tif"])
def test_of_several_pictures_the_first_is_taken_with_a_notice(tmp_path: Path, name: str) -> None:
    pages = [Image.new("RGB", (32, 24), (level,) * 3) for level in (10, 100, 200)]
    lossless = {"lossless": True} if name.endswith("webp") else {}
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **lossless)
    pages[1].save(tmp_path / "2.png")
    with pytest.warns(TamNotice, match=f"images with several pictures: 1 .such as {name}.; only the first") as told:
        sampled = sample_frames(tmp_path, 2)
    assert [each.filename for each in told] == [__file__]
    assert [set(frame.ravel().tolist()) for frame in sampled.frames] == [{10}, {100}]


def test_companion_pictures_of_a_photograph_are_no_animation(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (32, 24), (level,) * 3) for level in (10, 100)]
    pages[0].save(tmp_path / "1.jpg", format="MPO", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "1.jpg") as image:
        assert (image.format, image.is_animated) == ("MPO", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(int(sample_frames(tmp_path, 1).frames.mean()) - 10) <= 1


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill showpage\n%%EOF\n"


@pytest.mark.skipif(os.name != "posix", reason="stands in for Ghostscript with a shell script")
def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, programs, ran = tmp_path / "f", tmp_path / "bin", tmp_path / "ran"
    folder.mkdir()
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\necho run >> '{ran}'\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (folder / "1.png").write_bytes(POSTSCRIPT)
    for use in (lambda: probe_video(folder), lambda: sample_frames(folder, 1)):
        with pytest.raises(InputError, match=r"1\.png: cannot be read; expected a JPEG, PNG, WebP, BMP or TIFF image"):
            use()
    assert not ran.exists()
    with pytest.raises(OSError), Image.open(folder / "1.png") as image:  # what an open without our list of formats does
        image.load()
    assert ran.exists()


NO_FILES = {
    "link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "link to nothing": (lambda path: path.symlink_to("gone.png"), "a link to a file that does not exist"),
    "directory": (lambda path: path.mkdir(), "a directory"),
    "pipe": (os.mkfifo if hasattr(os, "mkfifo") else None, "a pipe"),
}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_named_by_the_command(tmp_path: Path, kind: str) -> None:
    make, told = NO_FILES[kind]
    PICTURE.save(tmp_path / "1.png")
    make(tmp_path / "2.png")
    with pytest.raises(InputError, match=rf"2\.png: not a file \({told}.*\); expected an image"):
        probe_video(tmp_path)


def test_the_command_ends_with_one_line_and_2(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("1.png")
    done = subprocess.run(
        [sys.executable, "-m", "tam_plugin.cli.main", "plan", str(tmp_path), "--query", "what is on the table?"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("size", [(17_800, 10_000), (1 << 20, 1 << 20), (MAX_IMAGE_PIXELS + 1, 1)])
def test_pixels_are_bounded_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    write_png(tmp_path / "1.png", GREY_16, 0, size=size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InputError, match=r"1\.png: .* pixels; expected at most 89478485 in all"):
            probe_video(tmp_path)


@pytest.mark.parametrize("name", ["2.png", "2.jpg", "2.bmp", "2.tif", "2.webp"])
def test_an_image_cut_short_is_refused_whatever_the_host_permits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as LLaVA-NeXT does when it is imported
    for each in ("1.png", name):
        Image.fromarray(picture(5)).save(tmp_path / each)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-900])
    with pytest.raises(InputError, match=rf"{name}: cannot be read"):
        sample_frames(tmp_path, 2)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_digits_that_are_no_numbers_sort_as_letters(tmp_path: Path) -> None:
    for name in ("a10.png", "a9.png", "²1.png", "٣2.png"):
        PICTURE.save(tmp_path / name)
    assert len(sample_frames(tmp_path, 4)) == 4
