"""Resident memory of the server: fresh, with all documents, and under a load of text and vector searches."""

from corpus import DIMENSIONS, QUERIES, spread
from load import drive
from server import Server

CLIENTS = 8


def run(bench):
    report = bench.report
    with Server(bench.strata, bench.work / "memory") as fresh:
        fresh.wait_until_idle()
        _add(report, "fresh", fresh)
    loaded = bench.loaded
    with loaded.server() as server:
        server.wait_until_idle()
        _add(report, "started with documents", server)
        texts = [server.request("POST", loaded.by_text, {"skip_cache": True, "inputs": {"query": q}}) for q in spread(bench.glosses, QUERIES)]
        queries = bench.corpus.queries.tolist()
        vectors = [server.request("POST", loaded.by_vector, {"skip_cache": True, "inputs": {"query": query}}) for query in queries]
        requests = [request for pair in zip(texts, vectors) for request in pair]
        drive(server.address, 2, requests.__getitem__, 1)
        _add(report, "after the first searches", server)
        server.reset_peak_memory()
        drive(server.address, len(requests), requests.__getitem__, CLIENTS)
        peak = server.memory_mib("VmHWM")
        report.add(f"peak under {CLIENTS} clients", peak, "MiB")
        _add(report, "after the load", server)
    vectors_mib = bench.document_count * DIMENSIONS * 4 / 2**20
    report.add("size of the vectors alone", vectors_mib, "MiB")
    report.ratio(vectors_mib / peak, "the vectors alone to the peak under load")


def _add(report, name, server):
    report.add(f"{name}, resident", server.memory_mib("VmRSS"), "MiB")
    report.add(f"{name}, of it not from files", server.memory_mib("RssAnon"), "MiB")
