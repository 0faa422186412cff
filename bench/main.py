"""Runs parts of the benchmark one after another. `bench/run` prepares what it needs and calls it."""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import tempfile

import audio
import creates
import images
import known
import many
import memory
import pages
import pipeline
import query
import runtimes
import start
import texts
import vectors
import video
from corpus import Corpus, read_entries
from loaded import load
from report import Report

# In this order whatever the order they are named in: `start` adds documents to those that the others search.
MEDIA = (images, audio, video, pages)
PARTS = {part.__name__: part.run for part in (creates, many, texts, *MEDIA, known, query, pipeline, vectors, memory, start, runtimes)}
# What runs where none is named.
USUAL = [name for name in PARTS if name != "runtimes"]


@dataclasses.dataclass
class Bench:
    """What the parts share."""

    strata: pathlib.Path
    embed_rate: pathlib.Path
    cache: pathlib.Path  # kept for later runs
    work: pathlib.Path  # removed after this one
    entries: list  # of the dictionary
    glosses: list  # their texts
    text_count: int
    document_count: int
    many_count: int
    report: Report

    @functools.cached_property
    def corpus(self):
        return Corpus(self.document_count)

    @functools.cached_property
    def loaded(self):
        """The data directory with all documents, made when it is first asked for."""
        return load(self)


def main():
    arguments = parse()
    entries = read_entries(arguments.glosses)
    report = Report(arguments)
    with tempfile.TemporaryDirectory(prefix="run-", dir=arguments.cache) as work:
        bench = Bench(
            strata=arguments.strata,
            embed_rate=arguments.embed_rate,
            cache=arguments.cache,
            work=pathlib.Path(work),
            entries=entries,
            glosses=[entry["text"] for entry in entries],
            text_count=arguments.texts,
            document_count=arguments.documents,
            many_count=arguments.many,
            report=report,
        )
        for name, run in PARTS.items():
            if name in (arguments.parts or USUAL):
                report.begin(name)
                run(bench)
    out = os.environ.get("STRATA_BENCH_OUT")
    if out:
        pathlib.Path(out).write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description="Runs benchmarks; see bench/README.md.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all but the last where none is named")
    parser.add_argument("--documents", type=int, default=100_000, help="documents that are searched (%(default)s)")
    parser.add_argument("--many", type=int, default=1_000_000, help="documents of the part `many` (%(default)s)")
    parser.add_argument("--texts", type=int, default=4_000, help="texts that are embedded (%(default)s)")
    parser.add_argument("--strata", type=pathlib.Path, required=True, help="the server")
    parser.add_argument("--embed-rate", type=pathlib.Path, required=True, help="the example that runs the model alone")
    parser.add_argument("--glosses", type=pathlib.Path, required=True, help="JSON lines with a `text` each")
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="for what is kept, and data directories")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"`{unknown[0]}` is not one of {', '.join(PARTS)}")
    return arguments


if __name__ == "__main__":
    main()
