"""From the start of the process to the first 200, with all documents on disk: after a clean stop and after a kill."""

import os
import time

from load import drive
from loaded import create_request
from report import percentile

ROUNDS = 5
# Documents made right before each end, which a killed index has not written out.
LATE = 200
LIMIT = 1.0  # seconds


def run(bench):
    report = bench.report
    server = bench.loaded.server()
    longest = 0
    try:
        for how, end in (("a stop", server.stop), ("a kill", server.kill)):
            rounds = [_round(bench, server, end) for _ in range(ROUNDS)]
            for what, seconds in zip(("first 200", "first search answered"), zip(*rounds)):
                report.add(f"after {how}, {what}, p50", percentile(seconds, 50) * 1000, "ms")
                report.add(f"after {how}, {what}, longest", max(seconds) * 1000, "ms")
            longest = max(longest, *(started for started, _ in rounds))
    finally:
        server.kill()
    report.ratio(LIMIT / longest, f"{LIMIT:.0f} s to the longest start; the goal is 1")


def _round(bench, server, end):
    """Ends a server that has just written, and starts it again. Answers the seconds to the first 200 and to the answer of
    the search that follows."""
    collection = bench.loaded.collection
    late = [create_request(bench, server, collection, i % bench.document_count, False) for i in range(LATE)]
    query = {"inputs": {"query": bench.corpus.queries[0].tolist()}}
    server.start()
    drive(server.address, LATE, late.__getitem__, 1)
    end()
    _forget(server.data)
    began = time.perf_counter()
    started = server.start()
    server.call("POST", bench.loaded.by_vector, query)
    searched = time.perf_counter() - began
    server.stop()
    return started, searched


def _forget(directory):
    """Takes the directory's files out of the page cache, so that a start reads them from disk."""
    os.sync()
    for parent, _, names in os.walk(directory):
        for name in names:
            file = os.open(os.path.join(parent, name), os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
