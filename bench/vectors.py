"""Vector search over HTTP with and without filters, against LanceDB in process on the same data."""

import json
import subprocess
import sys

from corpus import CASES, QUERIES, WANTED
from load import drive
from report import percentile

CLIENTS = (1, 8)


def run(bench):
    report = bench.report
    ours = _strata(bench)
    theirs = _lancedb(bench)
    for name in CASES:
        for who, measured in (("strata", ours), ("LanceDB", theirs)):
            case = measured[name]
            report.add(f"{who}, {name}, recall@10", case["recall"] * 100, "%")
            for clients in CLIENTS:
                label = f"{who}, {name}, {clients} client{'s' if clients > 1 else ''}"
                report.add(f"{label}, rate", case["rates"][str(clients)], "queries/s")
                report.add_times(label, case["latencies"][str(clients)])
    ratios = {name: _median(theirs[name]) / _median(ours[name]) for name in CASES}
    for name, ratio in ratios.items():
        report.add(f"LanceDB's median to strata's, {name}", ratio, "times")
    report.ratio(min(ratios.values()), "LanceDB's median latency to strata's with 1 client, the least of all searches")


def _median(case):
    return percentile(case["latencies"]["1"], 50)


def _strata(bench):
    loaded, measured = bench.loaded, {}
    with loaded.server() as server:
        for name, field in CASES.items():
            filters = {"AND": [{"field": field, "operator": "eq", "value": WANTED}]} if field else {}
            requests = [
                server.request("POST", loaded.by_vector, {"skip_cache": True, "inputs": {"query": query}, "filters": filters})
                for query in bench.corpus.queries.astype(float).round(5).tolist()
            ]
            found = drive(server.address, QUERIES, requests.__getitem__, 1, keep_bodies=True).bodies
            numbers = [[hit["number"] for hit in json.loads(body)["documents"]] for body in found]
            case = measured[name] = {"recall": bench.corpus.recall(field, numbers), "rates": {}, "latencies": {}}
            for clients in CLIENTS:
                done = drive(server.address, QUERIES, requests.__getitem__, clients)
                case["rates"][str(clients)], case["latencies"][str(clients)] = done.rate, done.latencies
    return measured


def _lancedb(bench):
    """Runs the peer in a process of its own, since its threads do not outlive a fork."""
    command = [sys.executable, "bench/peer.py", str(bench.document_count), str(bench.work / "lancedb"), *map(str, CLIENTS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)
