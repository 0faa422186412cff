"""The data: dictionary glosses, and vectors with fields to filter on. The same numbers in every run."""

import functools
import json

import numpy

DIMENSIONS = 384
QUERIES = 500
TOP_K = 10
# Field to the number of its values: a condition on one of them lets a tenth, a hundredth, a thousandth through.
FIELDS = {"tenth": 10, "hundredth": 100, "thousandth": 1000}
# What the filtered searches look for in such a field.
WANTED = 3
# Names of the searches that are measured; `None` filters nothing.
CASES = {"no filter": None, "filter 10 %": "tenth", "filter 1 %": "hundredth", "filter 0.1 %": "thousandth"}


class Corpus:
    """Unit vectors in clusters of about a hundred, and query vectors from the same clusters."""

    def __init__(self, count):
        random = numpy.random.default_rng(384)
        centres = _unit(random.standard_normal((max(count // 100, 1), DIMENSIONS)))
        chosen = centres[random.integers(0, len(centres), count + QUERIES)]
        # Noise as long as the centre: members of a cluster have a cosine of about a half.
        noise = random.standard_normal(chosen.shape) / numpy.sqrt(DIMENSIONS)
        # Few digits, so that all who store them as text or as binary store the same.
        everything = _unit(chosen + noise).round(5)
        self.vectors, self.queries = everything[:count].astype(numpy.float32), everything[count:].astype(numpy.float32)
        self.fields = {name: random.integers(0, size, count) for name, size in FIELDS.items()}

    @functools.cache
    def nearest(self, field):
        """For each query the numbers of its nearest vectors among those that a filter on `field` lets through."""
        allowed = numpy.arange(len(self.vectors)) if field is None else numpy.flatnonzero(self.fields[field] == WANTED)
        unit = _unit(self.vectors[allowed])
        scores = self.queries @ unit.T
        best = numpy.argsort(-scores, axis=1)[:, :TOP_K]
        return [set(allowed[row].tolist()) for row in best]

    def recall(self, field, found):
        """Which part of the nearest is in `found`, the numbers found for each query."""
        pairs = [(len(nearest & set(numbers)), len(nearest)) for nearest, numbers in zip(self.nearest(field), found)]
        return sum(hits for hits, _ in pairs) / max(sum(size for _, size in pairs), 1)


def _unit(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def read_entries(path):
    """The dictionary: `text`, a gloss, and `lemma`, one of the words that it explains."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def spread(items, count):
    """`count` distinct ones at even distances, so that all parts of the dictionary are there."""
    distinct = list(dict.fromkeys(items))
    if count > len(distinct):
        raise ValueError(f"there are {len(distinct)} distinct texts, not {count}")
    return [distinct[number * len(distinct) // count] for number in range(count)]


def write_lines(path, texts):
    path.write_text("\n".join(texts), encoding="utf-8")
    return path
