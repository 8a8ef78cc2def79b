"""Inserts as a client sent them to ClickHouse: recorded by a proxy, and sent again by nothing but a client.

Owns: the recorded bodies, in a folder, and the order in which they came. Invariant: a body is sent again byte for byte, as
it was compressed, with the parameters that it came with but for the database. Must not: record more than `BYTES_MAX`,
or stand in the way of a measured run.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from deployment import BenchError

# After ours: it says where the stack's modules are.
from clickhouse_wire import CHUNK_BYTES, Body

BYTES_MAX = 4 * 1024 ** 3
REQUEST_WAIT_S = 120
# Of one connection: the proxy and the engine speak for themselves.
HOP_HEADERS = frozenset(("connection", "content-length", "date", "host", "server", "transfer-encoding"))


@dataclass(frozen=True)
class Insert:
    """One request."""

    parameters: dict[str, str]
    body: Path

    @property
    def table(self) -> str:
        return self.parameters["query"].split()[2]


@dataclass
class Recording:
    """The inserts of one run, in the order in which they came."""

    folder: Path
    inserts: list[Insert] = field(default_factory=list)
    byte_count: int = 0
    # Inserts that were under way at one time.
    together_max: int = 0


@dataclass(frozen=True)
class Sent:
    """How a recording went."""

    first_at: float
    last_at: float
    # Rows acknowledged with the first insert, and with all, by table.
    first: Counter[str]
    rows: Counter[str]


class Proxy(ThreadingHTTPServer):
    """Passes every request on to `target`, and keeps the bodies of inserts."""

    daemon_threads = True

    def __init__(self, target: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target).netloc
        self.recording = Recording(folder)
        self.lock = threading.Lock()
        self.together = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away while it is answered, as the sink does in the end, is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @contextmanager
    def under_way(self, parameters: dict[str, str], body: bytes) -> Iterator[None]:
        """Keep an insert, and note how many there are at a time."""
        with self.lock:
            self.recording.byte_count += len(body)
            if self.recording.byte_count > BYTES_MAX:
                raise BenchError(f"the inserts are more than {BYTES_MAX} bytes: fewer --events")
            path = self.recording.folder / f"{len(self.recording.inserts):06}"
            self.recording.inserts.append(Insert(parameters, path))
            self.together += 1
            self.recording.together_max = max(self.recording.together_max, self.together)
        path.write_bytes(body)
        try:
            yield
        finally:
            with self.lock:
                self.together -= 1


class Handler(BaseHTTPRequestHandler):
    """One connection of the client, and one of its own to the engine."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.engine = HTTPConnection(self.server.target, timeout=REQUEST_WAIT_S)

    def finish(self) -> None:
        self.engine.close()
        super().finish()

    def do_POST(self) -> None:
        body = b"".join(iter(lambda stream=Body(self.rfile, self.headers): stream.read_some(CHUNK_BYTES), b""))
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if parameters.get("query", "").startswith("INSERT INTO "):
            with self.server.under_way(parameters, body):
                self.pass_on(body)
        else:
            self.pass_on(body)

    do_GET = do_POST

    def pass_on(self, body: bytes) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
        self.engine.request(self.command, self.path, body, headers)
        answer = self.engine.getresponse()
        result = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(result)))
        self.end_headers()
        self.wfile.write(result)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the client tells what went wrong."""


@contextmanager
def recorded(target: str, folder: Path) -> Iterator[Proxy]:
    """A proxy that records until the end."""
    proxy = Proxy(target, folder)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()


class Sender:
    """Sends a recording to a database: each connection takes the next insert as soon as its last one is acknowledged."""

    def __init__(self, target: str, database: str, recording: Recording) -> None:
        self.target, self.database = urlsplit(target).netloc, database
        self.waiting = deque(recording.inserts)
        self.lock = threading.Lock()
        self.acknowledged: list[tuple[float, str, int]] = []
        self.failed: list[BaseException] = []

    def send(self, connections: int) -> Sent:
        threads = [threading.Thread(target=self.send_each, daemon=True) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failed:
            raise BenchError(f"a recorded insert was not taken: {self.failed[0]}")
        rows: Counter[str] = Counter()
        for _, table, count in self.acknowledged:
            rows[table] += count
        first_at, table, count = self.acknowledged[0]
        return Sent(first_at, self.acknowledged[-1][0], Counter({table: count}), rows)

    def send_each(self) -> None:
        connection = HTTPConnection(self.target, timeout=REQUEST_WAIT_S)
        try:
            while not self.failed:
                with self.lock:
                    if not self.waiting:
                        return
                    insert = self.waiting.popleft()
                body = insert.body.read_bytes()
                connection.request("POST", "/?" + urlencode({**insert.parameters, "database": self.database}), body)
                rows = written_rows(connection.getresponse())
                with self.lock:
                    self.acknowledged.append((time.monotonic(), insert.table, rows))
        except (OSError, BenchError) as error:
            self.failed.append(error)
        finally:
            connection.close()


def written_rows(answer: HTTPResponse) -> int:
    text = answer.read()
    if answer.status != 200:
        raise BenchError(text.decode(errors="replace")[:500])
    summary = answer.getheader("X-ClickHouse-Summary")
    if summary is None:
        raise BenchError("ClickHouse does not say how many rows it wrote")
    return int(json.loads(summary)["written_rows"])
