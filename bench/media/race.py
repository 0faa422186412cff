"""Strata and a plain Python pipeline with the same weights over the same files, in turns."""

import os
import pathlib
import shutil
import subprocess
import time
from dataclasses import dataclass

from media.shelf import Shelf

# Of each side; the best counts.
ROUNDS = 3
ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ("media_tools", "conse_minilm_l6_v2", "whisper_tiny_en", "silero_vad")
FOLDERS = ("scikit-image", "pocketsphinx-testdata", "opencv-doc", "pdf")


@dataclass
class Race:
    name: str
    unit: str
    kind: str  # of the files, as buckets call it
    files: list  # paths; the first warms up and is not measured
    amount: float  # units in the files that are measured
    extractor: str
    parameters: dict
    pipeline: object  # takes paths and a folder for files of its own; answers a record for each document
    check: object  # takes documents and records; raises where they are not the same work


def prepare(bench):
    """Models and files that every race needs; what is there is not fetched again."""
    os.environ.setdefault("STRATA_TEST_FILES", str(bench.cache.parent / "test-files"))
    subprocess.run([bench.strata, "models", "pull", *MODELS], check=True, stdout=subprocess.DEVNULL)
    fetch = [ROOT / "scripts/fetch-test-files.sh", *FOLDERS]
    subprocess.run(fetch, check=True, stdout=subprocess.DEVNULL)


def run(bench, race):
    """Reports both rates, each that of the best round; answers ours by theirs."""
    race.pipeline(race.files[:1], _fresh(bench, race))
    ours, theirs = [], []
    for number in range(ROUNDS):
        seconds, documents = _strata(bench, race, number)
        ours.append(seconds)
        folder = _fresh(bench, race)
        begun = time.perf_counter()
        records = race.pipeline(race.files[1:], folder)
        theirs.append(time.perf_counter() - begun)
    race.check(documents, records)
    for side, seconds in (("strata", ours), ("python", theirs)):
        bench.report.add(f"{race.name}, {side}", race.amount / min(seconds), race.unit)
    return min(theirs) / min(ours)


def _strata(bench, race, number):
    """Seconds, and the documents that came of all files but the first."""
    with Shelf(bench, f"{race.name.replace(' ', '-')}{number}", race.kind, race.extractor, race.parameters) as shelf:
        objects = shelf.put(race.files)
        shelf.derive(objects[:1])
        seconds = shelf.derive(objects[1:])
        return seconds, [d for d in shelf.documents() if d["root_object_id"] != objects[0]]


def _fresh(bench, race):
    folder = bench.work / "python"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def same(what, ours, theirs, tolerance):
    """Raises where two numbers differ by more than a part of the larger."""
    if abs(ours - theirs) > tolerance * max(ours, theirs):
        raise RuntimeError(f"{what}: {ours:g} by Strata, {theirs:g} by Python")
