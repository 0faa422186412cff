"""A text query to its hits over all documents: what embedding, search and the rest take."""

import json

from corpus import QUERIES, spread
from load import drive
from report import percentile

WARM_UP = 20
WORDS = 8
LIMIT_MS = 2.0


def run(bench):
    report = bench.report
    loaded = bench.loaded
    queries = spread((" ".join(gloss.split()[:WORDS]) for gloss in bench.glosses), WARM_UP + QUERIES)
    with loaded.server() as server:
        requests = [server.request("POST", loaded.by_text, {"inputs": {"query": query}}) for query in queries]
        drive(server.address, WARM_UP, requests.__getitem__, 1)
        measured = requests[WARM_UP:]
        new = drive(server.address, QUERIES, measured.__getitem__, 1, keep_bodies=True)
        known = drive(server.address, QUERIES, measured.__getitem__, 1)
    parts = [_parts(wall, body) for wall, body in zip(new.latencies, new.bodies)]
    for name, seconds in zip(("embedding", "search", "rest"), zip(*parts)):
        report.add_times(f"new queries, {name}", seconds)
    report.add_times("new queries, all", new.latencies)
    report.add_times("queries asked before, all", known.latencies)
    rest_ms = percentile([rest for _, _, rest in parts], 50) * 1000
    report.ratio(LIMIT_MS / rest_ms, f"{LIMIT_MS} ms to the median of the rest; the goal is 1")


def _parts(wall, body):
    """Seconds of embedding, search and the rest: HTTP, planning, reading the documents, writing the answer."""
    said = json.loads(body)["stage_statistics"]["stages"]["search"]["metadata"]
    embedding, search = said["embedding_ms"] / 1000, said["search_ms"] / 1000
    return embedding, search, wall - embedding - search
