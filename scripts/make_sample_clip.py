"""Draw and encode the sample clip that ships with the package: 14 s of a small drawn world, the same every time.

    python scripts/make_sample_clip.py [FILE]

0–4 s    a sign that says WELCOME, a red ball that rolls in from the left, a lamp that is off
4–9 s    the ball passes a green box, the lamp flashes four times
9–14 s   another scene: a night sky, a yellow boat that sails from right to left, then the word END
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 25, 14
SCENE_CHANGE_S = 9.0
FLASHES_S = (4.5, 5.5, 6.5, 7.5)
FLASH_LENGTH_S = 0.4
DEFAULT = Path(__file__).resolve().parent.parent / "tam_plugin" / "assets" / "sample.mp4"


def draw_room(draw: ImageDraw.ImageDraw, time_s: float) -> None:
    """A yard by day: sign, lamp, green box, rolling red ball."""
    draw.rectangle((0, 0, WIDTH, 250), fill=(168, 208, 236))
    draw.rectangle((0, 250, WIDTH, HEIGHT), fill=(120, 160, 96))
    draw.rectangle((110, 120, 118, 262), fill=(104, 76, 52))
    draw.rounded_rectangle((24, 56, 204, 126), 8, fill=(250, 246, 228), outline=(104, 76, 52), width=4)
    draw.text((114, 91), "WELCOME", (32, 48, 88), ImageFont.load_default(34), anchor="mm")
    lit = any(start <= time_s < start + FLASH_LENGTH_S for start in FLASHES_S)
    draw.rectangle((536, 110, 544, 270), fill=(70, 70, 78))
    if lit:
        draw.ellipse((476, 26, 604, 154), fill=(255, 246, 178))
    draw.ellipse((516, 66, 564, 114), fill=(255, 226, 60) if lit else (96, 96, 104), outline=(60, 60, 66), width=3)
    draw.rectangle((300, 206, 364, 270), fill=(36, 140, 70), outline=(20, 84, 42), width=3)
    x = -40 + 720 * min(1.0, time_s / 8.5)
    y, radius, turn = 296, 28, time_s * 5
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(214, 40, 40), outline=(130, 16, 16), width=3)
    spot = (x + 14 * math.cos(turn), y + 14 * math.sin(turn))
    draw.ellipse((spot[0] - 6, spot[1] - 6, spot[0] + 6, spot[1] + 6), fill=(255, 220, 220))


def draw_sea(draw: ImageDraw.ImageDraw, time_s: float) -> None:
    """A sea by night: moon, stars, a yellow boat that sails from right to left, and the word END."""
    draw.rectangle((0, 0, WIDTH, 220), fill=(18, 22, 54))
    draw.rectangle((0, 220, WIDTH, HEIGHT), fill=(16, 54, 92))
    for number in range(24):
        x, y = (number * 197 + 31) % WIDTH, (number * 83 + 17) % 190
        draw.ellipse((x, y, x + 3, y + 3), fill=(230, 230, 250))
    draw.ellipse((60, 34, 124, 98), fill=(240, 238, 214))
    since = time_s - SCENE_CHANGE_S
    x, y = 600 - 100 * since, 236 + 5 * math.sin(since * 3)
    draw.polygon(((x - 60, y), (x + 60, y), (x + 38, y + 34), (x - 38, y + 34)), fill=(240, 196, 40))
    draw.rectangle((x - 3, y - 84, x + 3, y), fill=(120, 90, 60))
    draw.polygon(((x + 6, y - 82), (x + 6, y - 12), (x + 56, y - 12)), fill=(244, 244, 244))
    for number in range(8):
        left = (number * 90 + 30 * since) % (WIDTH + 60) - 60
        draw.arc((left, 290, left + 60, 320), 200, 340, fill=(70, 130, 180), width=3)
    if since >= 3.5:
        draw.text((WIDTH / 2, 120), "END", (255, 255, 255), ImageFont.load_default(72), anchor="mm")


def frame_at(time_s: float) -> Image.Image:
    """The picture that is shown at ``time_s``."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    (draw_room if time_s < SCENE_CHANGE_S else draw_sea)(draw, time_s)
    return image


def main(path: Path) -> None:
    """Encode the clip to ``path`` as H.264 in MP4, on one thread so that the bytes do not depend on the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "bitexact"}) as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", 50
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "slow", "crf": "26", "flags": "bitexact"}
        for number in range(FPS * SECONDS):
            frame = av.VideoFrame.from_image(frame_at(number / FPS))
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {SECONDS} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
