"""Folders of images, one of them tampered with: it is refused, or read as some picture, and the others stay right."""

from __future__ import annotations

import json
import random
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from tam_plugin.video import probe_video, sample_frames
from tests.fuzz.harness import Limits, Result, main, right, wrong
from tests.fuzz.mutations import BLIND
from tests.video.clips import picture

SIZE = (64, 48)

_MODES = {
    ".png": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    ".jpg": ("RGB", "L", "CMYK"),
    ".webp": ("RGB", "RGBA"),
    ".bmp": ("RGB", "L", "P", "1"),
    ".tif": ("RGB", "RGBA", "L", "LA", "CMYK", "YCbCr", "LAB", "F", "I;16"),
}


class ImageFuzzer:
    """Folders of images, one of them tampered with: it is refused, or read as some picture, the others stay right."""

    name = "images"
    columns = ("Pillow",)
    limits = Limits(wall_s=20, cpu_s=40, memory_bytes=2 << 30)

    def make(self, number: int, rng: random.Random, folder: Path) -> str:
        """Three images as ``images/N.…``; the second may be tampered with."""
        (folder / "images").mkdir()
        kinds = []
        for place in range(3):
            suffix = rng.choice(list(_MODES))
            mode = rng.choice(_MODES[suffix])
            _write(folder / "images" / f"{place}{suffix}", mode, place, rng)
            kinds.append(f"{mode} in {suffix[1:]}")
        done = "whole"
        whole = rng.random() < 0.1
        if not whole:
            path = next((folder / "images").glob("1.*"))
            data = bytearray(path.read_bytes())
            done = ", ".join(rng.choice(BLIND)(data, rng) for _ in range(rng.choice((1, 1, 2))))
            path.write_bytes(data)
        (folder / "input.json").write_text(json.dumps({"whole": whole}) + "\n")
        return f"{', '.join(kinds)}: {done}"

    def check(self, folder: Path, column: str) -> Result:
        """Probe and sample the folder, at its own size and a smaller one."""
        whole = json.loads((folder / "input.json").read_text())["whole"]
        warnings.simplefilter("ignore")
        for size in (None, 32):
            info = probe_video(folder / "images")
            video = sample_frames(folder / "images", 3, size=size)
            width, height = SIZE if size is None else (size, size)
            if (info.width, info.height, video.frames.shape) != (*SIZE, (3, height, width, 3)):
                return wrong(f"{info}, frames of {video.frames.shape}")
            for place in (0, 1, 2) if whole else (0, 2):
                expected = Image.fromarray(_grey(place)).resize((width, height), Image.Resampling.BOX)
                difference = np.abs(video.frames[place].mean(-1) - np.asarray(expected, float)).mean()
                if difference > 12:
                    return wrong(f"image {place} differs from what was written by a mean of {difference:.1f}")
        return right()


def _grey(place: int) -> np.ndarray:
    """uint8 ``[H, W]``: black and white blocks, which every mode can hold."""
    smooth = picture(place, 8, 6)[..., 2] > 120 + 30 * place
    return np.kron(smooth, np.ones((8, 8), np.uint8)).astype(np.uint8) * 255


def _write(path: Path, mode: str, place: int, rng: random.Random) -> None:
    grey = _grey(place)
    if mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(Image.fromarray(grey).convert("RGB"), *profiles, outputMode="LAB")
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    settings = {"quality": 95} if path.suffix in (".jpg", ".webp") else {}
    if path.suffix == ".tif" and mode in ("RGB", "L", "I;16"):
        settings["compression"] = rng.choice((None, "tiff_lzw", "tiff_deflate", "packbits"))
    if rng.random() < 0.3 and path.suffix in (".jpg", ".png", ".webp"):
        exif = Image.Exif()
        exif[0x010E] = "made for a test"
        settings["exif"] = exif
    image.save(path, **settings)


if __name__ == "__main__":
    sys.exit(main(ImageFuzzer()))
