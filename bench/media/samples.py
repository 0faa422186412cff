"""Real files in numbers that can be measured: made once out of the photos, recordings and videos that the tests read."""

import itertools
import os
import pathlib
import random
import subprocess

from PIL import Image

PHOTOS = (
    "astronaut.png brick.png camera.png chelsea.png clock_motion.png coffee.png coins.png grass.png gravel.png horse.png "
    "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png motorcycle_right.png page.png retina.jpg rocket.jpg"
).split()
# Pixels of the longer side of every fourth photo: what a camera makes. The others are as large as they are.
LARGE_SIDE = 2400
# So much is cut off at the sides, so that no photo is there twice.
MOST_CUT = 0.1

SPEECH = ("0870", "0880", "0890", "0920", "0930")
PAUSE_SECONDS = 0.6
# How fast it is spoken, so that no window is there twice.
TEMPOS = (0.9, 0.94, 0.98, 1.02, 1.06, 1.1)

VIDEOS = ("vtest.avi", "Megamind.avi", "Megamind_bugy.avi", "tree.avi")
MANUALS = ("R-FAQ", "R-intro", "R-data", "R-lang", "R-ints", "R-admin", "R-exts")


class Samples:
    """Files under `folder`. Each method answers paths in the same order in every run."""

    def __init__(self, bench):
        self._folder = bench.cache / "media"
        self._real = pathlib.Path(os.environ["STRATA_TEST_FILES"])
        self._ffmpeg = pathlib.Path(os.environ["STRATA_MODELS"]) / "ffmpeg" / "ffmpeg"

    def photos(self, count):
        """JPEGs, cut and compressed in different ways; every eighth is a PNG."""
        paths = [self._path("photos", f"{number:04}.{'png' if number % 8 == 5 else 'jpg'}") for number in range(count)]
        for number, path in enumerate(paths):
            if not path.exists():
                self._photo(number).save(path, quality=70 + number % 26)
        return paths

    def _photo(self, number):
        chance = random.Random(number)
        with Image.open(self._real / "scikit-image" / PHOTOS[number % len(PHOTOS)]) as image:
            image = image.convert("RGB")
        width, height = image.size
        left, top, right, bottom = (chance.random() * MOST_CUT / 2 for _ in range(4))
        box = (int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height))
        image = image.crop(box)
        if number % 4 == 3 and number % 8 != 5:
            scale = LARGE_SIDE / max(image.size)
            image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        return image

    def recordings(self, count):
        """MP3s of some 80 seconds: sentences of a novel read aloud, each in another order and at another speed."""
        orders = list(itertools.permutations(SPEECH))
        paths = [self._path("recordings", f"{number}.mp3") for number in range(count)]
        for number, path in enumerate(paths):
            if path.exists():
                continue
            names = [name for part in range(3) for name in orders[(number * 7 + part * 31) % len(orders)]]
            inputs = [self._real / "pocketsphinx-testdata/librivox" / f"sense_and_sensibility_01_austen_64kb-{n}.wav" for n in names]
            pad = "".join(f"[{at}:a]apad=pad_dur={PAUSE_SECONDS}[p{at}];" for at in range(len(inputs)))
            joined = "".join(f"[p{at}]" for at in range(len(inputs)))
            tempo = TEMPOS[number % len(TEMPOS)] + number // len(TEMPOS) / 500
            graph = f"{pad}{joined}concat=n={len(inputs)}:v=0:a=1,atempo={tempo}"
            self._convert(inputs, ["-filter_complex", graph, "-c:a", "libmp3lame", "-b:a", "96k"], path)
        return paths

    def videos(self, count):
        """H.264 of 720 lines and 25 frames a second, as cameras and sites have them."""
        paths = [self._path("videos", f"{number}.mp4") for number in range(count)]
        for number, path in enumerate(paths):
            if path.exists():
                continue
            name, round_ = VIDEOS[number % len(VIDEOS)], number // len(VIDEOS)
            scale = f"crop=iw-{4 * round_}:ih,scale=-2:720,fps=25,format=yuv420p"
            options = ["-map", "0:v:0", "-an", "-vf", scale, "-c:v", "libx264", "-preset", "fast", "-crf", str(22 + round_)]
            self._convert([self._real / "opencv-doc" / name], options, path)
        return paths

    def manuals(self):
        """PDFs of typeset text with code, tables and lists."""
        return [self._real / "pdf" / f"{name}.pdf" for name in MANUALS]

    def _path(self, folder, name):
        path = self._folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _convert(self, inputs, options, path):
        scratch = path.with_name(f"new-{path.name}")
        named = [argument for each in inputs for argument in ("-i", each)]
        subprocess.run([self._ffmpeg, "-y", "-loglevel", "error", *named, *options, scratch], check=True)
        scratch.rename(path)
