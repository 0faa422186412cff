"""The same searches in LanceDB, in process: peer.py DOCUMENTS DIRECTORY CLIENTS…, figures as JSON on standard output.

One HNSW graph with scalar quantization, bitmap indexes on the filtered fields, filters applied before the search. Each
search takes the cheapest of `SETTINGS` that reaches the recall.
"""

import concurrent.futures
import json
import sys
import time

import lancedb
import pyarrow
from lancedb.index import Bitmap, HnswSq

from corpus import CASES, DIMENSIONS, FIELDS, QUERIES, TOP_K, WANTED, Corpus

RECALL = 0.95
# How far the graph is searched, and how many times the hits are read and scored again without quantization.
SETTINGS = [(20, None), (64, None), (64, 2), (256, 4)]


def main():
    corpus = Corpus(int(sys.argv[1]))
    table = _load(corpus, sys.argv[2])
    measured = {}
    for name, field in CASES.items():
        for setting in SETTINGS:
            found = [_search(table, query, field, setting) for query in corpus.queries]
            recall = corpus.recall(field, found)
            if recall >= RECALL:
                break
        case = measured[name] = {"recall": recall, "setting": setting, "rates": {}, "latencies": {}}
        for clients in sys.argv[3:]:
            case["rates"][clients], case["latencies"][clients] = _drive(table, corpus, field, setting, int(clients))
    json.dump(measured, sys.stdout)


def _load(corpus, directory):
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(corpus.vectors.ravel()), DIMENSIONS)
    columns = {name: pyarrow.array(values) for name, values in corpus.fields.items()}
    rows = pyarrow.table({"number": pyarrow.array(range(len(corpus.vectors))), "vector": vectors, **columns})
    table = lancedb.connect(directory).create_table("documents", rows)
    table.create_index("vector", config=HnswSq(distance_type="cosine", num_partitions=1))
    for name in FIELDS:
        table.create_index(name, config=Bitmap())
    return table


def _search(table, query, field, setting):
    breadth, refine = setting
    search = table.search(query).distance_type("cosine").nprobes(1).ef(breadth).limit(TOP_K).select(["number", "_distance"])
    if refine:
        search = search.refine_factor(refine)
    if field:
        search = search.where(f"{field} = {WANTED}", prefilter=True)
    return search.to_arrow()["number"].to_pylist()


def _drive(table, corpus, field, setting, clients):
    """Queries a second and the latency of each, from that many threads."""

    def timed(query):
        sent = time.perf_counter()
        _search(table, query, field, setting)
        return time.perf_counter() - sent

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        latencies = list(pool.map(timed, corpus.queries))
        return QUERIES / (time.perf_counter() - begun), latencies


if __name__ == "__main__":
    main()
