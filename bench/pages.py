"""Pages of PDFs to blocks with text, box, kind and headings, beside pypdfium2, which is the same PDFium."""

import json
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor

import pypdfium2

from media import race
from media.samples import Samples

BLOCKS = {"generate_thumbnails": False, "run_text_embedding": False}
PICTURES = {"thumbnail_mode": "full_page", "run_text_embedding": False}
# Points between lines of a block, and between their left edges, at most; as Strata's defaults.
VERTICAL, HORIZONTAL = 15, 50
LEAST_CHARACTERS = 20
THUMBNAIL_SIDE = 640
THUMBNAIL_QUALITY = 82
# Both find as many characters, but for this part.
TOLERANCE = 0.05


def run(bench):
    race.prepare(bench)
    files = Samples(bench).manuals()
    pages = sum(map(_page_count, files[1:]))
    ratios = []
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(_page_count, files[:1] * cores))
        for name, parameters in (("text and blocks", BLOCKS), ("with pictures of pages", PICTURES)):
            pipeline = Pipeline(processes, draws=parameters is PICTURES)
            ratios.append(race.run(bench, race.Race(
                name=name, unit="pages/s", kind="pdf", files=files, amount=pages,
                extractor="document_graph_extractor", parameters=parameters, pipeline=pipeline, check=check,
            )))
    meaning = f"pages a second to those of the Python pipeline, the lower of both, best of {race.ROUNDS} rounds; the goal is 1"
    bench.report.ratio(min(ratios), meaning)


def _page_count(path):
    return len(pypdfium2.PdfDocument(path))


class Pipeline:
    """A process for each core, since PDFium may not be used by several threads; the longest files go first."""

    def __init__(self, processes, draws):
        self._processes = processes
        self._draws = draws

    def __call__(self, paths, folder):
        longest_first = sorted(paths, key=lambda path: -path.stat().st_size)
        count = len(paths)
        made = self._processes.map(read_file, longest_first, [folder] * count, [self._draws] * count)
        return [record for records in made for record in records]


def read_file(path, folder, draws):
    """Records of the blocks of a file."""
    document = pypdfium2.PdfDocument(path)
    pages = [(page, list(lines_of(page))) for page in document]
    sizes = [line["size"] for _, lines in pages for line in lines for _ in line["text"]]
    body = statistics.median(sizes) if sizes else 10
    headings, records = [], []
    for number, (page, lines) in enumerate(pages, 1):
        width, height = page.get_size()
        picture = draw(page, folder / f"{path.stem}-{number}.jpg") if draws else None
        for block in blocks_of(lines):
            kind = kind_of(block, body, height)
            if kind == "heading":
                while headings and headings[-1][0] <= block["size"] * 1.05:
                    headings.pop()
                headings.append((block["size"], block["text"]))
            elif len(block["text"].strip()) < LEAST_CHARACTERS:
                continue
            records.append({
                "file": path.name, "page": number, "width": width, "height": height, "kind": kind, "text": block["text"],
                "box": block["box"], "headings": [title for _, title in headings], "picture": picture,
            })
    (folder / f"{path.stem}.json").write_text(json.dumps(records), encoding="utf-8")
    return records


def lines_of(page):
    """Runs of characters that PDFium puts together, those on the same height joined: text, box from the top, size of type."""
    height = page.get_height()
    text = page.get_textpage()
    line = None
    for at in range(text.count_rects()):
        left, bottom, right, top = text.get_rect(at)
        words = text.get_text_bounded(left, bottom, right, top)
        box = [left, height - top, right, height - bottom]
        middle = (box[1] + box[3]) / 2
        if line and line["box"][1] < middle < line["box"][3] and 0 <= left - line["box"][2] + 2 < 2 * line["size"] + 2:
            line["text"] += words
            line["box"] = _around(line["box"], box)
            continue
        if line:
            yield line
        line = {"text": words, "box": box, "size": top - bottom}
    if line:
        yield line


def blocks_of(lines):
    """Lines below each other with near left edges and like sizes, joined."""
    block = None
    for line in lines:
        (left, top, *_), size = line["box"], line["size"]
        near = block and 0 <= top - block["box"][3] + size <= VERTICAL + size and abs(left - block["left"]) <= HORIZONTAL
        if near and max(size, block["size"]) <= 1.2 * min(size, block["size"]):
            block["text"] += "\n" + line["text"]
            block["box"] = _around(block["box"], line["box"])
            block["count"] += 1
            continue
        if block:
            yield block
        block = {**line, "left": left, "count": 1}
    if block:
        yield block


def kind_of(block, body, height):
    (_, top, _, bottom), text = block["box"], block["text"]
    if block["count"] <= 2 and bottom < height * 0.085:
        return "header"
    if block["count"] <= 2 and top > height * 0.915:
        return "footer"
    if block["size"] >= 1.15 * body and len(text) <= 200:
        return "heading"
    return "list" if text.lstrip()[:1] in "•-*" else "paragraph"


def draw(page, path):
    """The page as a JPEG of at most the size of a thumbnail."""
    picture = page.render(scale=1).to_pil().convert("RGB")
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    picture.save(path, quality=THUMBNAIL_QUALITY)
    return str(path)


def _around(a, b):
    return [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]


def check(documents, records):
    characters = [sum(len("".join(row["text"].split())) for row in rows if row.get("text")) for rows in (documents, records)]
    race.same("characters", *characters, TOLERANCE)
