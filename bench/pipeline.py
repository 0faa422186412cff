"""What the stages after a search cost, and what an answer costs that is kept from an equal execution."""

import json

from load import drive
from report import percentile

WARM_UP = 20
QUERIES = 300
HITS = 100
OVERHEAD_LIMIT_MS = 1.0
KEPT_LIMIT_MS = 0.3

CHEAP = [
    ("attribute_filter", {"field": "number", "operator": "gte", "value": 0}),
    ("sort_attribute", {"field": "number"}),
    ("deduplicate", {"fields": ["number"]}),
    ("sort_relevance", {}),
    ("limit", {"limit": HITS}),
]


def run(bench):
    report = bench.report
    loaded = bench.loaded
    vectors = [vector.astype(float).round(5).tolist() for vector in bench.corpus.queries[: WARM_UP + QUERIES]]
    with loaded.server() as server:
        times = {}
        for name, stages in (("search alone", []), ("search and five stages", CHEAP)):
            path = _retriever(server, loaded.collection, name, stages)
            body = {"skip_cache": True, "limit": 10}
            requests = [server.request("POST", path, {**body, "inputs": {"query": vector}}) for vector in vectors]
            drive(server.address, WARM_UP, requests.__getitem__, 1)
            bodies = drive(server.address, len(requests), requests.__getitem__, 1, keep_bodies=True).bodies[WARM_UP:]
            times[name] = [_milliseconds(answer) for answer in bodies]
            report.add_times(name, [each / 1000 for each in times[name]])
        request = server.request("POST", path, {"inputs": {"query": vectors[0]}, "limit": 10})
        drive(server.address, WARM_UP, lambda _: request, 1)
        kept = drive(server.address, QUERIES, lambda _: request, 1, keep_bodies=True)
    answers = [json.loads(answer) for answer in kept.bodies]
    if not all(answer["cache_hit"] for answer in answers):
        raise RuntimeError("an equal execution was not answered from what is kept")
    inside = [answer["stage_statistics"]["total_time_ms"] for answer in answers]
    report.add_times("kept answer, execution", [each / 1000 for each in inside])
    report.add_times("kept answer, all over HTTP", kept.latencies)
    alone, piped = (percentile(times[name], 50) for name in times)
    overhead = max(piped - alone, 0.001)
    report.ratio(OVERHEAD_LIMIT_MS / overhead, f"{OVERHEAD_LIMIT_MS} ms to what five stages add over {HITS} hits; the goal is 1")
    report.ratio(KEPT_LIMIT_MS / percentile(inside, 50), f"{KEPT_LIMIT_MS} ms to the median of a kept answer; the goal is 1")


def _retriever(server, collection, name, stages):
    """The path that executes a search by a vector with these stages after it."""
    query = {"input_mode": "vector", "value": "{{INPUT.query}}"}
    search = {"searches": [{"feature_uri": collection.feature_uri, "query": query, "top_k": HITS}], "final_top_k": HITS}
    stages = [("feature_search", search), *stages]
    made = server.call("POST", "/v1/retrievers", {
        "retriever_name": name,
        "collection_identifiers": [collection.id],
        "stages": [{"stage_name": stage, "config": {"stage_id": stage, "parameters": parameters}} for stage, parameters in stages],
    })
    return f"/v1/retrievers/{made['retriever_id']}/execute"


def _milliseconds(answer):
    return json.loads(answer)["stage_statistics"]["total_time_ms"]
