"""The server as a child process on a data directory and a free port, and calls to it."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from load import Connection

KEY = "sk_test_0123456789abcdef0123456789abcdef0123456789abcdef"
START_TIMEOUT = 120  # seconds


class Server:
    """Runs between `start` and `stop` or `kill`; as a context manager, while the context lasts."""

    def __init__(self, strata, data, namespace=None):
        self._strata = strata
        self._log = data.with_suffix(".log")
        self._process = None
        self.data = data
        self.namespace = namespace
        self.address = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Starts it and waits until it answers. Answers the seconds from the start to the first 200."""
        self.address = ("127.0.0.1", _free_port())
        listen = f"127.0.0.1:{self.address[1]}"
        own = {name: value for name, value in os.environ.items() if name not in ("STRATA_CONFIG", "STRATA_WORKERS")}
        own.update(STRATA_BOOTSTRAP_KEY=KEY, STRATA_LOG="warn")
        began = time.perf_counter()
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [self._strata, "serve", "--data", self.data, "--listen", listen],
                env=own, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - began > START_TIMEOUT:
                self.kill()
                raise RuntimeError(f"the server did not start:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.001)
        return time.perf_counter() - began

    def _answers(self):
        try:
            connection = Connection(self.address)
        except OSError:
            return False
        try:
            return connection.exchange(self.request("GET", "/v1/health"))[0] == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self):
        """Lets it finish in order."""
        self._end(signal.SIGTERM)

    def kill(self):
        """Ends it at once, as a power failure would."""
        self._end(signal.SIGKILL)

    def _end(self, how):
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(timeout=120)

    def request(self, method, path, body=None):
        """The bytes of a request."""
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {
            "Host": "localhost",
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Content-Length": len(content),
        }
        if self.namespace:
            headers["X-Namespace"] = self.namespace
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content

    def call(self, method, path, body=None):
        """The JSON of a success."""
        status, answer = self._exchange(self.request(method, path, body))
        if not 200 <= status < 300:
            raise RuntimeError(f"{method} {path} answered {status}: {answer.decode()}")
        return json.loads(answer)

    def _exchange(self, request):
        connection = Connection(self.address)
        try:
            return connection.exchange(request)
        finally:
            connection.close()

    def indexed_points(self):
        """How many documents the open indexes hold."""
        text = self._exchange(self.request("GET", "/metrics"))[1].decode()
        values = [line.split()[1] for line in text.splitlines() if line.startswith("strata_index_points ")]
        return float(values[0]) if values else 0.0

    def wait_until_idle(self):
        """Waits until it used less than a twentieth of a processor for three seconds: background work has ended."""
        tick, quiet = os.sysconf("SC_CLK_TCK"), 0
        used = self._processor_ticks()
        while quiet < 3:
            time.sleep(1)
            before, used = used, self._processor_ticks()
            quiet = quiet + 1 if used - before < tick / 20 else 0

    def _processor_ticks(self):
        fields = self._proc("stat").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def memory_mib(self, field):
        """A field of its status such as `VmRSS` or `VmHWM`."""
        line = next(line for line in self._proc("status").splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) / 1024

    def reset_peak_memory(self):
        """Makes `VmHWM` count from now on."""
        pathlib.Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="ascii")

    def _proc(self, file):
        return pathlib.Path(f"/proc/{self._process.pid}/{file}").read_text(encoding="utf-8")


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
