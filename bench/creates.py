"""Document creates over HTTP, acknowledged on disk, against SQLite committing rows of the same size on the same disk."""

import json
import sqlite3
import time

from corpus import FIELDS
from load import Run, drive
from loaded import create_request, fields_of, make_collection, plain_request
from server import Server

ALONE = 2_000
TOGETHER = 16_000
CLIENTS = 16
GOAL = 5_000  # creates/s of all clients on disk, each with a vector
PLAIN_GOAL = 8_000  # the same of 500 bytes without a vector


def run(bench):
    report = bench.report
    server = Server(bench.strata, bench.work / "creates")
    with server:
        _, collection = make_collection(server)
        ping = server.request("GET", "/v1/health/liveness")
        report.add("client's ceiling, 1 client", drive(server.address, ALONE, lambda _: ping, 1).rate, "requests/s")
        ceiling = drive(server.address, TOGETHER, lambda _: ping, CLIENTS)
        report.add(f"client's ceiling, {CLIENTS} clients", ceiling.rate, "requests/s")
        rates = {}
        for clients, count in ((1, ALONE), (CLIENTS, TOGETHER)):
            for what, wait in (("on disk", False), ("on disk and searchable", True)):
                requests = [create_request(bench, server, collection, i % bench.document_count, wait) for i in range(count)]
                server.wait_until_idle()
                made = drive(server.address, count, requests.__getitem__, clients)
                report.add_run(f"{what}, {clients} client{'s' if clients > 1 else ''}", made, "creates/s")
                rates[clients, wait] = made.rate
    report.add(f"to the goal of {GOAL:,}/s with a vector", rates[CLIENTS, False] / GOAL, "times")
    for declared in (FIELDS, ()):
        what = f"500 bytes without a vector, {len(declared)} fields indexed"
        rate = _create_plain(bench, declared, what)
        report.add(f"to the goal of {PLAIN_GOAL:,}/s, {len(declared)} fields indexed", rate / PLAIN_GOAL, "times")
    rows = [_row(bench, i % bench.document_count) for i in range(TOGETHER)]
    single = _sqlite(bench.work / "single.db", rows[:ALONE], 1)
    grouped = _sqlite(bench.work / "grouped.db", rows, CLIENTS)
    report.add_run("SQLite, 1 row a commit", single, "rows/s")
    report.add("SQLite, 16 rows a commit, rate", grouped.rate * CLIENTS, "rows/s")
    report.add_times("SQLite, 16 rows a commit", grouped.latencies)
    report.add("1 client to SQLite with 1 row a commit", rates[1, False] / single.rate, "times")
    ratio = rates[CLIENTS, False] / (grouped.rate * CLIENTS)
    report.ratio(ratio, f"creates on disk of {CLIENTS} clients to SQLite with {CLIENTS} rows a commit")


def _create_plain(bench, declared, what):
    """Documents without vectors, in a collection of their own. Answers creates a second."""
    with Server(bench.strata, bench.work / f"plain-{len(declared)}") as server:
        _, collection = make_collection(server, declared)
        requests = [plain_request(bench, server, collection, i) for i in range(TOGETHER)]
        made = drive(server.address, TOGETHER, requests.__getitem__, CLIENTS)
    bench.report.add_run(f"{what}, on disk, {CLIENTS} clients", made, "creates/s")
    return made.rate


def _row(bench, number):
    """What a document is as a row: its fields and its vector."""
    return json.dumps(fields_of(bench, number)), bench.corpus.vectors[number].tobytes()


def _sqlite(path, rows, rows_a_commit):
    """Commits rows, each commit synced. The run counts commits."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, fields TEXT, vector BLOB)")
    latencies, begun = [], time.perf_counter()
    for first in range(0, len(rows), rows_a_commit):
        sent = time.perf_counter()
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO documents (fields, vector) VALUES (?, ?)", rows[first : first + rows_a_commit])
        database.execute("COMMIT")
        latencies.append(time.perf_counter() - sent)
    wall = time.perf_counter() - begun
    database.close()
    return Run(latencies, wall, [])
