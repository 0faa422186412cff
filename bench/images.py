"""Photos to documents with two vectors, labels and a thumbnail, beside Pillow and ONNX Runtime with the same weights."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy

from media import race
from media.samples import Samples
from media.vision import Eyes, open_rgb, save_thumbnail

PHOTOS = 256
# The part of the photos that both sides call alike first; they scale a little differently.
LEAST_ALIKE = 0.9


def run(bench):
    race.prepare(bench)
    files = Samples(bench).photos(PHOTOS + 1)
    pipeline = Pipeline()
    ratio = race.run(bench, race.Race(
        name="photos", unit="images/s", kind="image", files=files, amount=PHOTOS,
        extractor="image_extractor", parameters={}, pipeline=pipeline, check=check,
    ))
    bench.report.ratio(ratio, f"images a second to those of the Python pipeline, best of {race.ROUNDS} rounds; the goal is 1")


class Pipeline:
    def __init__(self):
        self._eyes = Eyes()
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def __call__(self, paths, folder):
        records = list(self._threads.map(lambda path: self._one(path, folder), paths))
        numpy.save(folder / "likeness.npy", [record.pop("likeness") for record in records])
        numpy.save(folder / "in_words.npy", [record.pop("in_words") for record in records])
        (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
        return records

    def _one(self, path, folder):
        image = open_rgb(path)
        likeness, in_words, labels, _ = self._eyes.look(image)
        thumbnail = folder / f"{path.stem}.jpg"
        save_thumbnail(image, thumbnail)
        size = {"width": image.width, "height": image.height}
        return {"file": path.name, "labels": labels, "likeness": likeness, "in_words": in_words, "thumbnail": str(thumbnail), **size}


def check(documents, records):
    by_name = {d["document_blobs"][0]["filename"].rpartition(".")[0]: d for d in documents}
    if len(by_name) != len(records):
        raise RuntimeError(f"{len(records)} photos became {len(documents)} documents")
    pairs = [(by_name[record["file"].rpartition(".")[0]], record) for record in records]
    if any((ours["width"], ours["height"]) != (theirs["width"], theirs["height"]) for ours, theirs in pairs):
        raise RuntimeError("both sides see photos of other sizes")
    alike = sum(ours["labels"][:1] == theirs["labels"][:1] for ours, theirs in pairs) / len(pairs)
    if alike < LEAST_ALIKE:
        raise RuntimeError(f"only {alike:.0%} of the photos are called the same by both sides")
