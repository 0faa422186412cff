"""A closed loop of HTTP requests: each client is a process with one keep-alive connection that sends prepared bytes and
reads whole answers, so that the load costs as little as Python can."""

import multiprocessing
import socket
import time
from dataclasses import dataclass

_fork = multiprocessing.get_context("fork")


@dataclass
class Run:
    latencies: list  # seconds
    wall: float  # seconds, from the first request to the last answer
    bodies: list  # in the order of the requests; empty unless they were to be kept

    @property
    def rate(self):
        return len(self.latencies) / self.wall


class Connection:
    def __init__(self, address):
        self._socket = socket.create_connection(address, timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request):
        """Sends the bytes of a request. Answers status and body."""
        self._socket.sendall(request)
        received = self._receive()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        parts = [received[end + 4 :]]
        missing = length - len(parts[0])
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        return int(head[9:12]), b"".join(parts)

    def _receive(self):
        received = self._socket.recv(1 << 18)
        if not received:
            raise ConnectionError("the server closed the connection")
        return received

    def close(self):
        self._socket.close()


def drive(address, count, request_of, clients, keep_bodies=False):
    """Sends `request_of(0)` to `request_of(count - 1)` from that many clients at once."""
    gate = _fork.Barrier(clients)
    workers = []
    for client in range(clients):
        ours, theirs = _fork.Pipe(duplex=False)
        work = (address, range(client, count, clients), request_of, keep_bodies, gate, theirs)
        process = _fork.Process(target=_client, args=work, daemon=True)
        process.start()
        theirs.close()
        workers.append((process, ours))
    bodies, latencies, begins, ends = {}, [], [], []
    for process, pipe in workers:
        outcome = pipe.recv()
        process.join()
        if isinstance(outcome, str):
            raise RuntimeError(outcome)
        own_latencies, own_bodies, begun, ended = outcome
        latencies += own_latencies
        bodies.update(own_bodies)
        begins.append(begun)
        ends.append(ended)
    return Run(latencies, max(ends) - min(begins), [bodies[number] for number in sorted(bodies)])


def _client(address, numbers, request_of, keep_bodies, gate, pipe):
    try:
        connection = Connection(address)
        gate.wait(timeout=60)
        latencies, bodies, begun = [], {}, time.monotonic()
        for number in numbers:
            request = request_of(number)
            sent = time.perf_counter()
            status, body = connection.exchange(request)
            latencies.append(time.perf_counter() - sent)
            if not 200 <= status < 300:
                raise RuntimeError(f"{request.partition(b' HTTP')[0].decode()} answered {status}: {body[:1000].decode()}")
            if keep_bodies:
                bodies[number] = body
        pipe.send((latencies, bodies, begun, time.monotonic()))
    except Exception as error:  # whatever it is, the parent tells it
        gate.abort()
        pipe.send(f"{type(error).__name__}: {error}")
