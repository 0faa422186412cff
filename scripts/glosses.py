"""Turns WordNet's data files into JSON lines: {"text": gloss, "lemma": word, "pos": part of speech, "synset": id}.

usage: glosses.py DIRECTORY COUNT, where COUNT is a number or `all`. A part of the entries is taken at even distances, so
that every letter and every part of speech is there.
"""

import json
import pathlib
import sys

PARTS = ["noun", "verb", "adj", "adv"]


def entries(directory):
    for part in PARTS:
        with open(directory / f"data.{part}", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("  "):  # the licence at the top of each file
                    continue
                head, _, gloss = line.partition("|")
                fields = head.split()
                lemma = fields[4].replace("_", " ").partition("(")[0]
                yield {"text": gloss.strip(), "lemma": lemma, "pos": part, "synset": f"{part}.{fields[0]}"}


def main():
    directory, count = pathlib.Path(sys.argv[1]), sys.argv[2]
    everything = list(entries(directory))
    wanted = len(everything) if count == "all" else min(int(count), len(everything))
    for index in range(wanted):
        entry = everything[index * len(everything) // wanted]
        print(json.dumps(entry, ensure_ascii=False))


main()
