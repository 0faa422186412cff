"""Computes what the ColBERT of tests/support/colbert.rs makes of some texts, from the published description of the model
and with nothing but Python's own numbers, and writes late_interaction.json, which late_interaction.rs compares with.

    python3 crates/infer/tests/late_interaction.py
"""

import json
import math
import pathlib
import re

HIDDEN, INTERMEDIATE, LAYERS, HEADS, PLACES, DIMENSIONS, QUERY_TOKENS = 32, 64, 2, 4, 48, 8, 32
SPECIAL = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "a the river ##s flow into sea violin has four string bread is baked from flour and yeast of water . , ! ?"
).split()
ID = {word: number for number, word in enumerate(SPECIAL + WORDS)}

QUERIES = ["The rivers", "", "four strings!", "a river of water and bread " * 10]
DOCUMENTS = ["The rivers flow into the sea.", "Bread, water!", "", "unheard words", "a river of water " * 20]


def made(dimensions=DIMENSIONS):
    """All weights by name: matrices as lists of rows."""
    state = 1

    def number():
        nonlocal state
        state = (state * 1664525 + 1013904223) % 2**32
        return (state >> 8) / 2**24 - 0.5

    weights = {}

    def add(name, *shape):
        middle = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        row = lambda length: [middle + number() for _ in range(length)]
        weights[name] = row(shape[0]) if len(shape) == 1 else [row(shape[1]) for _ in range(shape[0])]

    for name, rows in [("word", len(ID)), ("position", PLACES), ("token_type", 2)]:
        add(f"bert.embeddings.{name}_embeddings.weight", rows, HIDDEN)
    add("bert.embeddings.LayerNorm.weight", HIDDEN)
    add("bert.embeddings.LayerNorm.bias", HIDDEN)
    for layer in range(LAYERS):
        for part, *shape in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("attention.output.LayerNorm", HIDDEN),
            ("intermediate.dense", INTERMEDIATE, HIDDEN),
            ("output.dense", HIDDEN, INTERMEDIATE),
            ("output.LayerNorm", HIDDEN),
        ]:
            add(f"bert.encoder.layer.{layer}.{part}.weight", *shape)
            add(f"bert.encoder.layer.{layer}.{part}.bias", shape[0])
    add("linear.weight", dimensions, HIDDEN)
    return weights


def tokens(text):
    """The numbers of the pieces of a text, longest first."""
    found = []
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in ID), None)
            if end is None:
                pieces = [ID["[UNK]"]]
                break
            pieces.append(ID[prefix + word[start:end]])
            start = end
        found += pieces
    return found


def linear(weights, name, rows, bias=True):
    add = weights[f"{name}.bias"] if bias else [0.0] * len(weights[f"{name}.weight"])
    return [[b + sum(x * w for x, w in zip(row, line)) for line, b in zip(weights[f"{name}.weight"], add)] for row in rows]


def normalised(weights, name, rows):
    out = []
    for row in rows:
        mean = sum(row) / len(row)
        variance = sum((x - mean) ** 2 for x in row) / len(row)
        scaled = [(x - mean) / math.sqrt(variance + 1e-12) for x in row]
        out.append([x * w + b for x, w, b in zip(scaled, weights[f"{name}.weight"], weights[f"{name}.bias"])])
    return out


def plus(a, b):
    return [[x + y for x, y in zip(one, other)] for one, other in zip(a, b)]


def attended(queries, keys, values, seen):
    """Each token's mean of the values of those that are seen, head by head."""
    size = HIDDEN // HEADS
    out = [[] for _ in queries]
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for place, query in enumerate(queries):
            scores = [sum(x * y for x, y in zip(query[part], key[part])) / math.sqrt(size) for key in keys]
            most = max(score for score, is_seen in zip(scores, seen) if is_seen)
            shares = [math.exp(score - most) if is_seen else 0.0 for score, is_seen in zip(scores, seen)]
            total = sum(shares)
            out[place] += [
                sum(share * value[part][n] for share, value in zip(shares, values)) / total for n in range(size)
            ]
    return out


def forward(weights, ids, seen):
    """The vectors of all tokens, of length 1."""
    word, position, kind = (
        weights[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    rows = [[a + b + c for a, b, c in zip(word[id], position[n], kind[0])] for n, id in enumerate(ids)]
    rows = normalised(weights, "bert.embeddings.LayerNorm", rows)
    for layer in range(LAYERS):
        at = f"bert.encoder.layer.{layer}"
        heads = attended(*(linear(weights, f"{at}.attention.self.{part}", rows) for part in ("query", "key", "value")), seen)
        rows = normalised(
            weights, f"{at}.attention.output.LayerNorm", plus(rows, linear(weights, f"{at}.attention.output.dense", heads))
        )
        wide = linear(weights, f"{at}.intermediate.dense", rows)
        wide = [[0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in row] for row in wide]
        rows = normalised(weights, f"{at}.output.LayerNorm", plus(rows, linear(weights, f"{at}.output.dense", wide)))
    vectors = linear(weights, "linear", rows, bias=False)
    return [[x / math.sqrt(sum(y * y for y in vector)) for x in vector] for vector in vectors]


def query(weights, text):
    ids = [ID["[CLS]"], ID["[unused0]"], *tokens(text)[: QUERY_TOKENS - 3], ID["[SEP]"]]
    filled = QUERY_TOKENS - len(ids)
    return forward(weights, ids + [ID["[MASK]"]] * filled, [True] * len(ids) + [False] * filled)


def document(weights, text):
    ids = [ID["[CLS]"], ID["[unused1]"], *tokens(text)[: PLACES - 3], ID["[SEP]"]]
    vectors = forward(weights, ids, [True] * len(ids))
    return [vector for vector, id in zip(vectors, ids) if id not in {ID[sign] for sign in ".,!?"}]


def maxsim(asked, rows):
    return sum(max(sum(x * y for x, y in zip(one, row)) for row in rows) for one in asked)


def main():
    weights = made()
    told = lambda texts, read: [
        {"text": text, "vectors": [[round(x, 6) for x in vector] for vector in read(weights, text)]} for text in texts
    ]
    lines = {"queries": told(QUERIES, query), "documents": told(DOCUMENTS, document)}
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(lines, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
