"""Known items: the gloss of a WordNet lemma is searched by the lemma, by words, by vectors and by both.

A lemma that has several glosses counts as found at the best of them. Reciprocal ranks and recall are of the first ten hits.
"""

import json
import time

from load import drive
from loaded import make_collection
from server import Server
from texts import ENDED, OBJECTS_A_REQUEST, submit

TEXTS = 20_000
QUERIES = 1_000
TOP_K = 10


def run(bench):
    report = bench.report
    entries = bench.entries[:: len(bench.entries) // TEXTS][:TEXTS]
    server = Server(bench.strata, bench.work / "known")
    with server:
        collection = _ingest(server, [entry["text"] for entry in entries])
        searches = {
            "words": {"query": "{{INPUT.query}}", "lexical": True},
            "vectors": {"query": "{{INPUT.query}}", "feature_uri": collection.feature_uri},
            "hybrid": {"query": "{{INPUT.query}}"},
        }
        wanted = {}
        for entry in entries:
            wanted.setdefault(entry["lemma"], set()).add(entry["text"])
        lemmas = sorted(wanted)[:: len(wanted) // QUERIES][:QUERIES]
        found = {}
        for name, search in searches.items():
            path = _retriever(server, collection, name, search)
            requests = [server.request("POST", path, {"inputs": {"query": lemma}}) for lemma in lemmas]
            answers = drive(server.address, len(requests), requests.__getitem__, 2, keep_bodies=True).bodies
            ranks = [_rank(json.loads(answer), wanted[lemma]) for answer, lemma in zip(answers, lemmas)]
            found[name] = sum(1 / rank for rank in ranks if rank) / len(ranks)
            report.add(f"{name}, MRR@10", found[name], "")
            report.add(f"{name}, recall@10", sum(rank > 0 for rank in ranks) / len(ranks), "")
    best = max(found["words"], found["vectors"])
    report.ratio(found["hybrid"] / best, "MRR@10 of hybrid to the better of words and vectors; the goal is 1")


def _ingest(server, texts):
    bucket, collection = make_collection(server)
    objects = []
    for first in range(0, len(texts), OBJECTS_A_REQUEST):
        rows = [{"text": text} for text in texts[first : first + OBJECTS_A_REQUEST]]
        made = server.call("POST", f"/v1/buckets/{bucket}/objects/batch", {"objects": rows})
        objects += [row["object_id"] for row in made["succeeded"]]
    task = submit(server, bucket, collection, objects)
    while server.call("GET", f"/v1/tasks/{task}")["status"] not in ENDED:
        time.sleep(0.2)
    server.wait_until_idle()
    return collection


def _retriever(server, collection, name, search):
    """The path that executes it."""
    parameters = {"searches": [{**search, "top_k": 100}], "final_top_k": TOP_K}
    made = server.call("POST", "/v1/retrievers", {
        "retriever_name": name,
        "collection_identifiers": [collection.id],
        "stages": [{"stage_name": "search", "config": {"stage_id": "feature_search", "parameters": parameters}}],
    })
    return f"/v1/retrievers/{made['retriever_id']}/execute"


def _rank(answer, texts):
    """The place of the first of the texts, from 1; 0 where none is among the hits."""
    return next((place for place, hit in enumerate(answer["documents"], 1) if hit["text"] in texts), 0)
