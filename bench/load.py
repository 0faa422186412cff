"""A closed loop of HTTP requests: each client is a keep-alive connection that sends prepared bytes and reads a whole answer
before it sends the next. One process has all clients, so that the load costs as little as Python can: with a process for
each, the switches between them cost more than the requests do."""

import multiprocessing
import select
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
        self.fileno = self._socket.fileno

    def send(self, request):
        self._received, self._whole = b"", 0
        self._socket.sendall(request)

    def receive(self):
        """Reads what has come, or waits for some. Answers status and body when the answer is whole, before that `None`."""
        received = self._socket.recv(1 << 16)
        if not received:
            raise ConnectionError("the server closed the connection")
        received = self._received = self._received + received if self._received else received
        if not self._whole:
            end = received.find(b"\r\n\r\n") + 4
            if end < 4:
                return None
            length = received.find(b"content-length:", 0, end) + 15  # as the server spells it
            self._head, self._whole = end, end + int(received[length : received.find(b"\r", length)])
        return None if len(received) < self._whole else (int(received[9:12]), received[self._head :])

    def exchange(self, request):
        """Sends the bytes of a request. Answers status and body."""
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        return answer

    def close(self):
        self._socket.close()


def drive(address, count, request_of, clients, keep_bodies=False, processes=1):
    """Sends `request_of(0)` to `request_of(count - 1)` from that many clients at once. More processes share the clients where
    it is the making of requests that costs."""
    processes = min(clients, processes)
    gate = _fork.Barrier(processes)
    workers = []
    for first in range(processes):
        ours, theirs = _fork.Pipe(duplex=False)
        own_clients = len(range(first, clients, processes))
        work = (address, range(first, count, processes), request_of, own_clients, keep_bodies, gate, theirs)
        process = _fork.Process(target=_process, args=work, daemon=True)
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


def _process(address, numbers, request_of, clients, keep_bodies, gate, pipe):
    try:
        connections = [Connection(address) for _ in range(clients)]
        gate.wait(timeout=60)
        begun = time.monotonic()
        latencies, bodies = _loop(connections, iter(numbers), request_of, keep_bodies)
        pipe.send((latencies, bodies, begun, time.monotonic()))
    except Exception as error:  # whatever it is, the parent tells it
        gate.abort()
        pipe.send(f"{type(error).__name__}: {error}")


def _loop(connections, numbers, request_of, keep_bodies):
    latencies, bodies = [], {}
    poll = select.poll()
    waiting = {}  # by descriptor: the connection, its request's number and bytes, and when they were sent

    def send(connection):
        number = next(numbers, None)
        if number is None:
            return poll.unregister(connection)
        request = request_of(number)
        waiting[connection.fileno()] = connection, number, request, time.perf_counter()
        connection.send(request)

    for connection in connections:
        poll.register(connection, select.POLLIN)
        send(connection)
    while waiting:
        for descriptor, _ in poll.poll():
            connection, number, request, sent = waiting[descriptor]
            answer = connection.receive()
            if answer is None:
                continue
            latencies.append(time.perf_counter() - sent)
            del waiting[descriptor]
            send(connection)
            status, body = answer
            if not 200 <= status < 300:
                raise RuntimeError(f"{request.partition(b' HTTP')[0].decode()} answered {status}: {body[:1000].decode()}")
            if keep_bodies:
                bodies[number] = body
    return latencies, bodies
