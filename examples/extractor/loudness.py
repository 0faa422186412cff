#!/usr/bin/env python3
"""A custom extractor for Strata: how loud a WAV recording is, passage by passage. Python's standard library is enough.

    python3 loudness.py http://127.0.0.1:9100          # or unix:/run/loudness.sock
    strata serve --extractor-endpoint http://127.0.0.1:9100

README.md beside this file describes the protocol.
"""

import array
import base64
import http.server
import json
import math
import os
import socketserver
import sys
import wave

DESCRIPTION = {
    "protocol": 1,
    "name": "loudness",
    "version": "v1",
    # Strata derives anew what was made under another fingerprint, so it changes with everything that changes outputs.
    "fingerprint": os.environ.get("LOUDNESS_FINGERPRINT", "2026-11-27"),
    "description": "Measures how loud a WAV recording is, passage by passage.",
    "category": "audio",
    "inputs": {
        "sound": {"type": "audio", "required": True},
        "title": {"type": "string"},
    },
    "parameters": {
        "seconds": {"type": "number", "default": 2.0, "description": "Length of a passage."},
    },
    "fields": {
        "start_time": "float",
        "end_time": "float",
        "decibels": "float",
        "caption": "string",
    },
    "vectors": [
        # Made here: how the level moves within a passage. Searched with vectors of one's own.
        {"name": "envelope", "dimensions": 8},
        # Made by Strata, of a field, with a model that it has. Searched with words.
        {"name": "caption", "dimensions": 384, "model": "all_minilm_l6_v2_v1", "of": "caption"},
    ],
    "max_batch": 16,
    "timeout_seconds": 60,
}


def extract(item):
    """The documents of one input. What is raised as ValueError or wave.Error is told as the reason of its failure."""
    (sound,) = [file for file in item["files"] if file["input"] == "sound"]
    span = item.get("span") or {}
    title = item["values"].get("title") or sound["filename"] or "a recording"
    with wave.open(sound["path"], "rb") as recording:
        if recording.getsampwidth() != 2:
            raise ValueError(f"{title} has {8 * recording.getsampwidth()} bits a sample; 16 are read")
        rate = recording.getframerate() * recording.getnchannels()
        samples = array.array("h", recording.readframes(recording.getnframes()))
    if sys.byteorder == "big":
        samples.byteswap()
    first, last = (int((span.get(name) or 0) * rate) for name in ("start_time", "end_time"))
    step = max(int(item["parameters"]["seconds"] * rate), rate // 10)
    end = min(last or len(samples), len(samples))
    return [passage(samples[at : min(at + step, end)], at / rate, rate, title) for at in range(first, end, step)]


def passage(samples, start, rate, title):
    size = max(len(samples) // 8, 1)
    levels = [rms(samples[at : at + size]) for at in range(0, 8 * size, size)]
    length = math.hypot(*levels) or 1.0
    decibels = 20 * math.log10(max(rms(samples), 1e-5))
    kind = "loud" if decibels > -20 else "quiet" if decibels < -40 else "spoken"
    table = "".join(f"{start + n * size / rate:.2f} s\t{level:.4f}\n" for n, level in enumerate(levels))
    return {
        "fields": {
            "start_time": round(start, 3),
            "end_time": round(start + len(samples) / rate, 3),
            "decibels": round(decibels, 2),
            "caption": f"a {kind} passage of {title}",
        },
        "vectors": {"envelope": [level / length for level in levels]},
        "artifacts": [
            {"field": "levels", "filename": "levels.tsv", "base64": base64.b64encode(table.encode()).decode()},
        ],
        # A document keeps its id by this, though passages before it come or go.
        "key": f"{start:.3f}",
    }


def rms(samples):
    return math.sqrt(sum(s * s for s in samples) / max(len(samples), 1)) / 32768


def told(item):
    try:
        return {"documents": extract(item)}
    except (ValueError, wave.Error, EOFError) as error:
        return {"error": str(error) or "the recording ends too early"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(*((200, DESCRIPTION) if self.path == "/describe" else (404, {"error": "no such path"})))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/extract":
            return self.answer(404, {"error": "no such path"})
        print(f"{len(body['inputs'])} inputs", flush=True)
        outputs = [told(item) for item in body["inputs"]]
        self.answer(200, {"fingerprint": DESCRIPTION["fingerprint"], "outputs": outputs})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self):
        return "strata"  # a socket of this machine has no address

    def log_message(self, *_):
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main(endpoint):
    if endpoint.startswith("unix:"):
        path = endpoint.removeprefix("unix:")
        if os.path.exists(path):
            os.remove(path)
        server = UnixServer(path, Handler)
    else:
        host, port = endpoint.removeprefix("http://").split(":")
        server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
        endpoint = f"http://{host}:{server.server_port}"
    print(f"listening on {endpoint}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100")
