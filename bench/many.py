"""One collection with very many documents: what the catalog answers, each beside its limit."""

import json
import os
import random

from load import drive
from report import percentile
from server import Server

CLIENTS = 4
REQUEST_DOCUMENTS = 1_000
PAGE = 20
QUERIES = 200  # of each kind; of those that look at every document SLOW_QUERIES
SLOW_QUERIES = 10
# How many different values a field has. The first two and `price` are declared as payload indexes, `shade` is not.
VALUES = {"category": 100, "brand": 10_000, "shade": 1_000}
PRICES = 1_000_000
DECLARED = {"category": "keyword", "brand": "keyword", "price": "float"}
DOCUMENT_BYTES = 500


def run(bench):
    report, count = bench.report, bench.many_count
    chance = random.Random(500)
    server = Server(bench.strata, bench.work / "many")
    with server:
        collection = _make_collection(server)
        requests = [_upsert(bench, server, collection, first, count) for first in range(0, min(count, 8_000), REQUEST_DOCUMENTS)]
        request_of = lambda i: requests[i] if i < len(requests) else _upsert(bench, server, collection, i * REQUEST_DOCUMENTS, count)
        loaded = drive(server.address, -(-count // REQUEST_DOCUMENTS), request_of, CLIENTS, processes=os.cpu_count())
        report.add("documents", count, "documents")
        report.add("loading, acknowledged on disk", count / loaded.wall, "documents/s")
        server.wait_until_idle()
        root = f"/v1/collections/{collection}/documents"

        def one(number):
            return server.request("GET", f"{root}/{_id(number)}")

        def page(body):
            return server.request("POST", f"{root}/list?limit={PAGE}", body)

        def cheap(_):
            return chance.randrange(PRICES)

        cases = {
            "get by id": (1, QUERIES, lambda: one(chance.randrange(count))),
            "page: 1 % by a declared field, sorted by another": (10, QUERIES, lambda: page(_sorted(_is("category", chance.randrange(100))))),
            "page: 0.01 % by a declared field, sorted by another": (10, QUERIES, lambda: page(_sorted(_is("brand", chance.randrange(10_000))))),
            "page: a range of a declared field, sorted by it": (10, QUERIES, lambda: page(_sorted(_from(cheap(None))))),
            "page: all, sorted by a declared field": (10, QUERIES, lambda: page(_sorted(None))),
            "page: 0.1 % by a field without an index": (1_500, SLOW_QUERIES, lambda: page({"filters": _is("shade", chance.randrange(1_000))})),
            "page: 1 of a million by a field without an index": (1_500, SLOW_QUERIES, lambda: page({"filters": _equal("number", chance.randrange(count))})),
            "count: by a field without an index": (1_500, SLOW_QUERIES, lambda: server.request("GET", f"{root}/count?filters={_query(_is('shade', chance.randrange(1_000)))}")),
            "count": (50, QUERIES, lambda: server.request("GET", f"{root}/count")),
            "count: 1 % by a declared field": (50, QUERIES, lambda: server.request("GET", f"{root}/count?filters={_query(_is('category', chance.randrange(100)))}")),
        }
        shares = []
        for name, (limit_ms, queries, request) in cases.items():
            prepared = [request() for _ in range(queries)]
            measured = drive(server.address, queries, prepared.__getitem__, 1)
            report.add_times(name, measured.latencies)
            shares.append(limit_ms / (percentile(measured.latencies, 50) * 1000))
        report.add("resident memory", server.memory_mib("VmRSS"), "MiB")
    report.ratio(min(shares), "the limit to the median where it is nearest: 1 ms by id, 10 ms a page by declared fields, 1,500 ms without, 50 ms a count")


def _make_collection(server):
    indexes = [{"field_name": name, "type": kind} for name, kind in DECLARED.items()]
    server.namespace = server.call("POST", "/v1/namespaces", {"namespace_name": "many", "payload_indexes": indexes})["namespace_id"]
    bucket = server.call("POST", "/v1/buckets", {"bucket_name": "none", "bucket_schema": {"properties": {}}})["bucket_id"]
    made = server.call("POST", "/v1/collections", {
        "collection_name": "many",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": {"feature_extractor_name": "passthrough_extractor", "version": "v1"},
    })
    return made["collection_id"]


def _upsert(bench, server, collection, first, count):
    documents = [_document(bench, number) for number in range(first, min(first + REQUEST_DOCUMENTS, count))]
    body = {"collection_id": collection, "documents": documents}
    return server.request("POST", f"/v1/namespaces/{server.namespace}/documents/upsert", body)


def _document(bench, number):
    chance = random.Random(number)
    fields = {name: f"{name}-{chance.randrange(values)}" for name, values in VALUES.items()}
    fields |= {"price": chance.randrange(PRICES) / 100, "number": number}
    filler = " ".join(bench.glosses[(number + i) % len(bench.glosses)] for i in range(8))
    fields["text"] = filler[: DOCUMENT_BYTES - len(json.dumps(fields | {"text": ""}))]
    return {"document_id": _id(number), "payload": fields}


def _id(number):
    return f"doc-{number:09}"


def _is(field, value):
    return _equal(field, f"{field}-{value}")


def _equal(field, value):
    return {"AND": [{"field": field, "operator": "eq", "value": value}]}


def _from(price):
    return {"AND": [{"field": "price", "operator": "gte", "value": price / 100}]}


def _sorted(filters):
    return {"filters": filters, "sort": {"field": "price", "direction": "asc"}}


def _query(filters):
    return json.dumps(filters, separators=(",", ":")).replace('"', "%22").replace(" ", "%20").replace("{", "%7B").replace("}", "%7D")
