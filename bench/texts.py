"""Texts from object to searchable document, against the rate of the model alone."""

import re
import statistics
import subprocess
import time
from itertools import pairwise

from corpus import spread, write_lines
from loaded import make_collection
from server import Server

ROUNDS = 5
OBJECTS_A_REQUEST = 100
OBJECTS_A_BATCH = 1_000
ENDED = ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")


def run(bench):
    report = bench.report
    texts = spread(bench.glosses, bench.text_count)
    # In turns, since other work on the machine comes and goes.
    alone, together = [_model_alone(bench, texts)], []
    for number in range(ROUNDS):
        together.append(_end_to_end(bench, texts, number))
        alone.append(_model_alone(bench, texts))
    beside = [(before["texts"] + after["texts"]) / 2 for before, after in pairwise(alone)]
    report.add("model alone", statistics.median(rates["texts"] for rates in alone), "texts/s")
    report.add("model alone, tokens", statistics.median(rates["tokens"] for rates in alone), "tokens/s")
    report.add("end to end", statistics.median(together), "texts/s")
    ratio = statistics.median(rate / model for rate, model in zip(together, beside))
    report.ratio(ratio, f"texts end to end to the model alone, median of {ROUNDS} rounds; the goal is 0.85")


def _model_alone(bench, texts):
    """Rates of the model over the texts: `texts` and `tokens` a second."""
    path = write_lines(bench.work / "texts.txt", texts)
    output = subprocess.run([bench.embed_rate, path], capture_output=True, text=True, check=True).stdout
    return {what: float(number) for number, what in re.findall(r"([\d.]+) (texts|tokens)/s", output)}


def _end_to_end(bench, texts, number):
    """Texts a second from the first object sent to the last batch done, sent and batched as `strata ingest` does."""
    server = Server(bench.strata, bench.work / f"texts{number}")
    with server:
        bucket, collection = make_collection(server)
        server.call("POST", "/v1/features/search", {"query": {"text": "loads the model"}})
        begun = time.perf_counter()
        tasks, waiting = [], []
        for first in range(0, len(texts), OBJECTS_A_REQUEST):
            objects = [{"text": text} for text in texts[first : first + OBJECTS_A_REQUEST]]
            made = server.call("POST", f"/v1/buckets/{bucket}/objects/batch", {"objects": objects})
            waiting += [row["object_id"] for row in made["succeeded"]]
            if len(waiting) >= OBJECTS_A_BATCH or first + OBJECTS_A_REQUEST >= len(texts):
                tasks.append(submit(server, bucket, collection, waiting))
                waiting = []
        while not all(server.call("GET", f"/v1/tasks/{task}")["status"] in ENDED for task in tasks):
            time.sleep(0.05)
        seconds = time.perf_counter() - begun
        made = server.call("GET", f"/v1/collections/{collection.id}/documents/count")["count"]
        if made != len(texts):
            raise RuntimeError(f"{len(texts)} texts became {made} documents")
    return len(texts) / seconds


def submit(server, bucket, collection, objects):
    """Makes a batch and submits it. Answers its task."""
    batch = {"object_ids": objects, "collection_ids": [collection.id]}
    batch_id = server.call("POST", f"/v1/buckets/{bucket}/batches", batch)["batch_id"]
    return server.call("POST", f"/v1/buckets/{bucket}/batches/{batch_id}/submit", {})["task_id"]
