"""Videos to segments with a vector of three frames each, labels and a thumbnail, beside PyAV and ONNX Runtime with the same
weights."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import av
import numpy

from media import race
from media.samples import Samples
from media.vision import THUMBNAIL_SIDE, Eyes, save_thumbnail

VIDEOS = 8
SEGMENT_SECONDS = 10
FRAMES_OF_SEGMENT = 3
PARAMETERS = {"split_method": "time", "time_split_interval": SEGMENT_SECONDS, "key_frames": FRAMES_OF_SEGMENT}
TOLERANCE = 0.1


def run(bench):
    race.prepare(bench)
    files = Samples(bench).videos(VIDEOS + 1)
    # The last one warms up: the first is the longest.
    files = [files[-1], *files[:-1]]
    ratio = race.run(bench, race.Race(
        name="videos", unit="video seconds/s", kind="video", files=files, amount=sum(map(_seconds, files[1:])),
        extractor="multimodal_extractor", parameters=PARAMETERS, pipeline=Pipeline(), check=check,
    ))
    meaning = f"seconds of video a second to those of the Python pipeline, best of {race.ROUNDS} rounds; the goal is 1"
    bench.report.ratio(ratio, meaning)


def _seconds(path):
    with av.open(path) as film:
        return film.duration / av.time_base


class Pipeline:
    def __init__(self):
        self._eyes = Eyes()
        self._films = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def __call__(self, paths, folder):
        records = [record for film in self._films.map(lambda path: self._film(path, folder), paths) for record in film]
        (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
        return records

    def _film(self, path, folder):
        """A record for each segment."""
        segments = {}
        for seconds, image in frames(path):
            segments.setdefault(int(seconds // SEGMENT_SECONDS), []).append((image, self._eyes.look(image)))
        return [self._segment(path, at, seen, folder) for at, seen in segments.items()]

    def _segment(self, path, at, seen, folder):
        thumbnail = folder / f"{path.stem}-{at}.jpg"
        save_thumbnail(seen[len(seen) // 2][0], thumbnail)
        looks = [look for _, look in seen]
        vector = numpy.mean([in_words for _, in_words, _, _ in looks], axis=0)
        labels = self._eyes.labels(numpy.mean([logits for *_, logits in looks], axis=0))
        times = {"start": at * SEGMENT_SECONDS, "end": (at + 1) * SEGMENT_SECONDS}
        vector = (vector / numpy.linalg.norm(vector)).tolist()
        return {"file": path.name, **times, "labels": labels, "vector": vector, "thumbnail": str(thumbnail)}


def frames(path):
    """Frames at even distances with their seconds, as RGB of at most the size of a thumbnail."""
    with av.open(path) as film:
        (stream,) = film.streams.video
        stream.thread_type = "AUTO"
        scale = min(THUMBNAIL_SIDE / max(stream.width, stream.height), 1)
        width, height = round(stream.width * scale), round(stream.height * scale)
        step = SEGMENT_SECONDS / FRAMES_OF_SEGMENT
        wanted = step / 2
        for frame in film.decode(stream):
            if frame.time >= wanted:
                yield frame.time, frame.to_image(width=width, height=height, interpolation="BICUBIC")
                wanted += step


def check(documents, records):
    race.same("segments", len(documents), len(records), TOLERANCE)
    if not all(document["thumbnail_url"] and document["labels"] is not None for document in documents):
        raise RuntimeError("a segment has no thumbnail or no labels")
