"""A collection of documents that carry their own vectors, made over HTTP."""

import json
import os
import pathlib
import time
from dataclasses import dataclass

from corpus import FIELDS, TOP_K
from load import drive
from server import Server

CLIENTS = 16
INDEX_TIMEOUT = 600  # seconds
PLAIN_BYTES = 500  # of a document without a vector, as JSON


@dataclass
class Collection:
    id: str
    vector: str  # name of its vector index
    feature_uri: str


@dataclass
class Loaded:
    """A stopped server's data directory with all documents of the corpus."""

    strata: pathlib.Path
    data: pathlib.Path
    namespace: str
    collection: Collection
    by_text: str  # path that executes a search by `query`, a text
    by_vector: str  # the same for a vector

    def server(self):
        return Server(self.strata, self.data, self.namespace)


def make_collection(server, declared=FIELDS):
    """A namespace with payload indexes, a bucket and a collection whose documents are searched by text."""
    indexes = [{"field_name": name, "type": "integer"} for name in declared]
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1"}
    namespace = {"namespace_name": "bench", "feature_extractors": [extractor], "payload_indexes": indexes}
    server.namespace = server.call("POST", "/v1/namespaces", namespace)["namespace_id"]
    schema = {"properties": {"text": {"type": "string"}}}
    bucket = server.call("POST", "/v1/buckets", {"bucket_name": "texts", "bucket_schema": schema})["bucket_id"]
    made = server.call("POST", "/v1/collections", {
        "collection_name": "texts",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": {**extractor, "input_mappings": {"text": "text"}},
    })
    index = made["vector_indexes"][0]
    return bucket, Collection(made["collection_id"], index["name"], index["feature_uri"])


def create_request(bench, server, collection, number, wait):
    """The request that creates a document of the corpus; with `wait` it is answered when searches see it."""
    document = fields_of(bench, number)
    document["vectors"] = {collection.vector: bench.corpus.vectors[number].astype(float).round(5).tolist()}
    path = f"/v1/collections/{collection.id}/documents?wait={str(wait).lower()}"
    return server.request("POST", path, document)


def plain_request(bench, server, collection, number):
    """The request that creates a document of about 500 bytes without a vector, answered when it is on disk."""
    document = fields_of(bench, number)
    filler = " ".join(bench.glosses[(number + i) % len(bench.glosses)] for i in range(8))
    document["text"] = filler[: PLAIN_BYTES - len(json.dumps(fields_of(bench, number) | {"text": ""}))]
    return server.request("POST", f"/v1/collections/{collection.id}/documents?wait=false", document)


def fields_of(bench, number):
    fields = {name: int(values[number]) for name, values in bench.corpus.fields.items()}
    return {"text": bench.glosses[number % len(bench.glosses)], "number": number, **fields}


def load(bench):
    server = Server(bench.strata, bench.work / "loaded")
    count = bench.document_count
    with server:
        _, collection = make_collection(server)
        run = drive(server.address, count, lambda i: create_request(bench, server, collection, i, False), CLIENTS, processes=os.cpu_count())
        sent = time.perf_counter()
        while server.indexed_points() < count:
            if time.perf_counter() - sent > INDEX_TIMEOUT:
                raise RuntimeError(f"the index holds {server.indexed_points():.0f} of {count} documents")
            time.sleep(0.5)
        server.wait_until_idle()
        print(f"loaded {count:,} documents in {run.wall:.0f} s, indexed {time.perf_counter() - sent:.0f} s later")
        by_text, by_vector = (_make_retriever(server, collection, mode) for mode in ("text", "vector"))
    return Loaded(bench.strata, server.data, server.namespace, collection, by_text, by_vector)


def _make_retriever(server, collection, input_mode):
    """A stored retriever with one search. Answers the path that executes it."""
    query = {"input_mode": input_mode, "value": "{{INPUT.query}}"}
    search = {"feature_uri": collection.feature_uri, "query": query, "top_k": TOP_K}
    parameters = {"searches": [search], "final_top_k": TOP_K}
    made = server.call("POST", "/v1/retrievers", {
        "retriever_name": f"by {input_mode}",
        "collection_identifiers": [collection.id],
        "stages": [{"stage_name": "search", "config": {"stage_id": "feature_search", "parameters": parameters}}],
    })
    return f"/v1/retrievers/{made['retriever_id']}/execute"
