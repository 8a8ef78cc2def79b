"""The ClickHouse engine of PyPI's chdb-core behind ClickHouse's HTTP protocol, for local use and tests.

Owns: the engine's connections, users, and how a request becomes a statement. Invariant: a connection runs one
statement at a time and leaves no setting behind for the next request; an insert that does not end well is cancelled.
Must not: be reached from another machine (it has no TLS and no rights beyond passwords), nor be measured as if it
were a ClickHouse server.

Not here: sessions (`session_id` is passed over), KILL QUERY by `query_id`, `compress=1`, results sent while they are
computed (so no exception in the middle of a result), INSERT … SELECT FROM input().
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import lz4.frame
from chdb import _chdb

from clickhouse_wire import CHUNK_BYTES, Body, BodyEnded, ClickHouseError, decompressed_blocks, form_fields, text_of

CONNECTIONS_MAX = 32
CONNECTION_WAIT_S = 30
SOCKET_TIMEOUT_S = 300
SHUTDOWN_WAIT_S = 10
STATEMENT_BYTES_MAX = 256 * 1024 * 1024
DRAIN_BYTES_MAX = 256 * 1024 * 1024

# Parameters of the URL that are the protocol's. Whatever else comes is a setting of the engine.
PROTOCOL_PARAMETERS = frozenset(
    "query database default_format user password compress decompress query_id session_id session_timeout "
    "session_check role quota_key wait_end_of_query buffer_size client_protocol_version stacktrace".split()
)
IS_INSERT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*INSERT\b", re.IGNORECASE | re.DOTALL)
INSERT_FORMAT = re.compile(r"\s(?:FORMAT\s+(?P<format>\w+)|(?P<values>VALUES))\s*;?\s*\Z", re.IGNORECASE)
SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Connection:
    """One connection of the engine, and what it has been set to."""

    def __init__(self, path: str) -> None:
        self.engine = _chdb.connect(path)
        # chDB reads `1 + 1` as `SELECT 1 + 1`; a ClickHouse server does not.
        self.engine.query("SET implicit_select = 0")
        self._database = "default"
        self._settings: dict[str, str] = {}

    def prepare(self, database: str, settings: dict[str, str]) -> None:
        """Make it as new but for `database` and `settings`. After an exception the connection is to be dropped."""
        gone = [name for name in self._settings if name not in settings]
        if gone:
            self.engine.query("SET " + ", ".join(f"{name} = DEFAULT" for name in gone))
        if database != self._database:
            self.engine.query("USE `" + database.replace("\\", "\\\\").replace("`", "\\`") + "`")
        new = {name: value for name, value in settings.items() if self._settings.get(name) != value}
        if new:
            self.engine.query("SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in new.items()))
        self._database, self._settings = database, dict(settings)


class Engine:
    """The pool of connections. One is kept open for ever, for the engine ends with its last connection."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._keeper = _chdb.connect(path)
        self.version: str = self._keeper.query("SELECT version()", "TabSeparated").bytes().decode().strip()
        self._keeper_lock = threading.Lock()
        self._idle: list[Connection] = []
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)

    @contextmanager
    def connection(self, database: str, settings: dict[str, str], keep: bool) -> Iterator[Any]:
        """A connection for one statement. It is dropped instead of kept after anything but an orderly end."""
        if not self._slots.acquire(timeout=CONNECTION_WAIT_S):
            raise ClickHouseError(202, f"Too many simultaneous queries. Maximum: {CONNECTIONS_MAX}")
        connection: Connection | None = None
        orderly = False
        try:
            connection = self._take_idle(database, settings)
            if connection is None:
                connection = Connection(self._path)
                connection.prepare(database, settings)
            yield connection.engine
            orderly = True
        except RuntimeError as error:
            raise ClickHouseError.from_engine(error) from error
        finally:
            if connection is not None and orderly and keep:
                self._idle.append(connection)
            elif connection is not None:
                connection.engine.close()
            self._slots.release()

    def _take_idle(self, database: str, settings: dict[str, str]) -> Connection | None:
        """A used connection, prepared; None if there is none, or if it does not come back from its last use
        (`readonly=1` cannot be unset). A wrong setting of this request fails on a new one again, and is told then."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        try:
            connection.prepare(database, settings)
        except RuntimeError:
            connection.engine.close()
            return None
        return connection

    def classify(self, sql: str) -> tuple[str, int]:
        """What a statement would do (READ_ONLY, MUTATING, CONTROL, UNKNOWN), and how many statements there are."""
        with self._keeper_lock:
            told = self._keeper.classify_query(sql)
        return told["query_class"].name, told["statement_count"]

    def close(self) -> None:
        """Wait for running statements, a while; then close, so that the engine ends in order."""
        deadline = time.monotonic() + SHUTDOWN_WAIT_S
        for _ in range(CONNECTIONS_MAX):
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))
        for connection in self._idle:
            connection.engine.close()
        self._keeper.close()


class Server(ThreadingHTTPServer):
    """Takes the requests, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], engine: Engine, users: dict[str, str]) -> None:
        self.engine = engine
        self.users = users
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Request:
    """What a client asked, put together from URL, headers and body."""

    def __init__(self, handler: Handler) -> None:
        url = urlsplit(handler.path)
        self.url_path = url.path
        self.parameters = dict(parse_qsl(url.query, keep_blank_values=True, max_num_fields=1000))
        self.body = Body(handler.rfile, handler.headers)
        self.headers = handler.headers
        self.is_get = handler.command != "POST"

    @property
    def settings(self) -> dict[str, str]:
        found = {}
        for name, value in self.parameters.items():
            if name in PROTOCOL_PARAMETERS or name.startswith("param_"):
                continue
            if SETTING_NAME.fullmatch(name) is None:
                raise ClickHouseError(115, f"Setting {name[:100]!r} is neither a builtin setting nor a parameter")
            found[name] = value
        return found

    @property
    def statement_parameters(self) -> dict[str, str]:
        return {name[6:]: value for name, value in self.parameters.items() if name.startswith("param_")}

    @property
    def database(self) -> str:
        return self.parameters.get("database") or self.headers.get("X-ClickHouse-Database") or "default"

    def data(self) -> Iterable[bytes]:
        """The body, decompressed if the client says that it is compressed."""
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding != "identity" or self.parameters.get("compress", "0") not in ("0", "false"):
            raise ClickHouseError(48, "Content-Encoding of requests and compress=1 are not implemented by this front")
        if self.parameters.get("decompress", "0") not in ("0", "false"):
            return decompressed_blocks(self.body)
        return iter(lambda: self.body.read_some(CHUNK_BYTES), b"")

    def whole_body(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in self.data():
            parts.append(part)
            size += len(part)
            if size > STATEMENT_BYTES_MAX:
                raise ClickHouseError(36, f"The statement is longer than {STATEMENT_BYTES_MAX} bytes")
        return b"".join(parts)

    def credentials(self) -> tuple[str, str, bool]:
        """User, password, and whether they came as HTTP basic authentication."""
        authorization = self.headers.get("Authorization", "")
        if authorization.lower().startswith("basic "):
            try:
                user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            except ValueError as error:
                raise ClickHouseError(516, "Invalid authentication: basic credentials cannot be read") from error
            return user, password, True
        user = self.headers.get("X-ClickHouse-User") or self.parameters.get("user") or "default"
        password = self.headers.get("X-ClickHouse-Key") or self.parameters.get("password") or ""
        return user, password, False


class Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 256 * 1024
    wbufsize = 64 * 1024
    timeout = SOCKET_TIMEOUT_S
    server: Server

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_HEAD = do_GET

    def _serve(self) -> None:
        request: Request | None = None
        try:
            request = Request(self)
            result = self._answer(request)
        except BodyEnded:
            self.close_connection = True
            return
        except ClickHouseError as error:
            self._send_error(error, request)
            return
        # After the statement, a body that was not asked for must not be taken for the next request.
        request.body.drain(DRAIN_BYTES_MAX)
        self._send_result(request, *result)

    def _answer(self, request: Request) -> tuple[bytes, dict[str, str]]:
        if request.url_path in ("/ping", "/replicas_status"):
            return b"Ok.\n", {}
        if request.url_path != "/":
            raise ClickHouseError(36, f"There is no handle {request.url_path[:100]}. Use / with a query, or /ping")
        self._authenticate(request)
        sql = request.parameters.get("query", "")
        insert = INSERT_FORMAT.search(sql) if IS_INSERT.match(sql) else None
        if insert is not None and not request.is_get:
            return self._insert(request, sql[: insert.start()], insert["format"] or "Values")
        content_type = request.headers.get("Content-Type", "")
        body = request.whole_body()
        if content_type.startswith("multipart/form-data"):
            request.parameters.update(form_fields(content_type, body))
            sql = request.parameters.get("query", "")
        elif body:
            sql = f"{sql}\n{text_of(body)}" if sql else text_of(body)
        if not sql.strip():
            if request.is_get and not request.parameters:
                return b"Ok.\n", {}
            raise ClickHouseError(62, "Syntax error: the query is empty")
        return self._execute(request, sql)

    def _authenticate(self, request: Request) -> None:
        user, password, is_basic = request.credentials()
        expected = self.server.users.get(user)
        if expected is None or not hmac.compare_digest(expected.encode(), password.encode()):
            message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name"
            error = ClickHouseError(516, message)
            error.wants_basic = is_basic  # type: ignore[attr-defined]
            raise error

    def _execute(self, request: Request, sql: str) -> tuple[bytes, dict[str, str]]:
        kind, statements = self.server.engine.classify(sql)
        if request.is_get and kind not in ("READ_ONLY", "UNKNOWN"):
            raise ClickHouseError(164, "Cannot execute query in readonly mode. For queries over HTTP, method GET "
                                       "implies readonly. You should use method POST for modifying queries")
        if statements > 1:
            raise ClickHouseError(62, "Syntax error: Multi-statements are not allowed")
        output = request.parameters.get("default_format") or request.headers.get("X-ClickHouse-Format")
        # SET, USE and temporary tables live with the connection; a request has no session to keep them.
        with self.server.engine.connection(request.database, request.settings, keep=kind != "CONTROL") as engine:
            result = engine.query(sql, output or "TabSeparated", params=request.statement_parameters)
            return result.bytes(), self._summary(result)

    def _insert(self, request: Request, sql: str, data_format: str) -> tuple[bytes, dict[str, str]]:
        with self.server.engine.connection(request.database, request.settings, keep=True) as engine:
            stream = engine.send_insert(sql, data_format)
            done = False
            try:
                for part in request.data():
                    # Smaller pieces let the engine parse while the next one is on its way.
                    for start in range(0, len(part), CHUNK_BYTES):
                        engine.insert_append(stream, part[start : start + CHUNK_BYTES])
                result = engine.insert_done(stream)
                done = True
            finally:
                if not done:
                    engine.insert_cancel(stream)
            return b"", self._summary(result)

    @staticmethod
    def _summary(result: Any) -> dict[str, str]:
        told = {
            "read_rows": str(result.rows_read()),
            "read_bytes": str(result.bytes_read()),
            "written_rows": str(result.rows_written()),
            "written_bytes": str(result.bytes_written()),
            "elapsed_ns": str(int(result.elapsed() * 1e9)),
        }
        return {"X-ClickHouse-Summary": json.dumps(told)}

    def _send_result(self, request: Request, result: bytes, headers: dict[str, str]) -> None:
        headers["X-ClickHouse-Query-Id"] = request.parameters.get("query_id") or str(uuid.uuid4())
        if result and "lz4" in request.headers.get("Accept-Encoding", ""):
            result = lz4.frame.compress(result)
            headers["Content-Encoding"] = "lz4"
        self._send(200, result, headers)

    def _send_error(self, error: ClickHouseError, request: Request | None) -> None:
        text = f"{error.text} (version {self.server.engine.version} (official build))\n"
        print(f"{self.command} refused: {text[:500].strip()}", file=sys.stderr, flush=True)
        headers = {"X-ClickHouse-Exception-Code": str(error.code)}
        status = error.http_status
        if getattr(error, "wants_basic", False):
            status = 401
            headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        try:
            if request is not None:
                request.body.drain(DRAIN_BYTES_MAX)
        except (BodyEnded, OSError):
            pass
        if request is None or not request.body.complete:
            self.close_connection = True
            headers["Connection"] = "close"
        self._send(status, text.encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        for name, value in headers.items():
            self.send_header(name, re.sub(r"[\r\n]", " ", value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


def read_users(path: str | None) -> dict[str, str]:
    """A JSON object of user → password. Without a file: `default`, with no password, as ClickHouse has it."""
    if path is None:
        return {"default": ""}
    users = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(users, dict) or not all(isinstance(value, str) for value in users.values()):
        raise SystemExit(f"{path}: expected a JSON object of user names and passwords")
    return users


def main() -> None:
    parser = argparse.ArgumentParser(description="ClickHouse's engine behind its HTTP protocol, on 127.0.0.1.")
    parser.add_argument("--data", required=True, help="the folder of the engine's data")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--users", help="a JSON file of user → password")
    options = parser.parse_args()
    os.environ.setdefault("TZ", "UTC")
    time.tzset()
    users = read_users(options.users)
    _chdb.reset_signal_handlers()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        engine = Engine(options.data)
    except RuntimeError as error:
        raise SystemExit(f"the engine does not open {options.data}: {error}") from error
    server = Server(("127.0.0.1", options.port), engine, users)
    threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
    print(f"ClickHouse {engine.version} at http://127.0.0.1:{options.port}", file=sys.stderr, flush=True)
    stop.wait()
    server.shutdown()
    server.server_close()
    engine.close()
    print("stopped", file=sys.stderr, flush=True)
    # Threads of clients that keep their connection open must not hold up the end.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
