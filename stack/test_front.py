"""Tests of the ClickHouse front, over real sockets and a real engine, on a free port and in a temporary folder.

Run: .stack/venv/bin/python stack/test_front.py   (after `stack.py install`; the stack itself need not run)
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import urlencode

import lz4.block
import lz4.frame
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

FRONT = Path(__file__).resolve().parent / "clickhouse_front.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Front:
    """A front of the test's own."""

    def __init__(self, data: Path, users: Path | None = None) -> None:
        self.port = free_port()
        self.command = [sys.executable, "-B", str(FRONT), "--data", str(data), "--port", str(self.port)]
        if users is not None:
            self.command += ["--users", str(users)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.get("/ping")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the front does not start")

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None,
            ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        # An iterable is sent in chunks.
        connection.request(method, path, body, headers or {})  # type: ignore[arg-type]
        answer = connection.getresponse()
        try:
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
        return self.ask("GET", path, None, headers)

    def post(self, sql: object, headers: dict[str, str] | None = None, **parameters: object,
             ) -> tuple[int, bytes, http.client.HTTPMessage]:
        return self.ask("POST", "/?" + urlencode(parameters), sql, headers)

    def value(self, sql: str, **parameters: object) -> str:
        status, body, _ = self.post(sql.encode(), **parameters)
        assert status == 200, body
        return body.decode().strip()


def block(raw: bytes, method: int = 0x82) -> bytes:
    """A compressed block as the clickhouse crate sends it."""
    data = {0x82: lambda: lz4.block.compress(raw, store_size=False),
            0x90: lambda: zstandard.ZstdCompressor().compress(raw), 0x02: lambda: raw}[method]()
    content = struct.pack("<BII", method, len(data) + 9, len(raw)) + data
    value = CityHash128(content)
    return struct.pack("<QQ", value >> 64, value & (2**64 - 1)) + content


def rows(first: int, count: int) -> bytes:
    """RowBinary of (UInt64, String)."""
    return b"".join(struct.pack("<Q", n) + bytes([len(str(n))]) + str(n).encode() for n in range(first, first + count))


class FrontTest(unittest.TestCase):
    front: Front
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        users = Path(cls.folder.name) / "users.json"
        users.write_text(json.dumps({"default": "", "ann": "secret"}))
        cls.front = Front(Path(cls.folder.name) / "data", users)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.front.end(signal.SIGTERM)
        cls.folder.cleanup()

    def setUp(self) -> None:
        self.front.post(b"CREATE OR REPLACE TABLE t (id UInt64, s String) ENGINE = MergeTree ORDER BY id")

    def assert_refused(self, answer: tuple[int, bytes, http.client.HTTPMessage], status: int, code: int) -> None:
        self.assertEqual(answer[2]["X-ClickHouse-Exception-Code"], str(code), answer[1])
        self.assertEqual(answer[0], status)
        self.assertRegex(answer[1].decode(), rf"^Code: {code}\. DB::Exception: (?s:.*) \([A-Z_]+\) \(version [\d.]+ .*")

    def test_get_and_post_of_a_plain_statement(self) -> None:
        self.assertEqual(self.front.get("/?query=SELECT+1")[1], b"1\n")
        self.assertEqual(self.front.post(b"SELECT 1\n")[1], b"1\n")
        self.assertEqual(self.front.post(b" + 1", query="SELECT 1")[1], b"2\n")
        self.assertEqual(self.front.get("/")[1], b"Ok.\n")
        self.assertRegex(self.front.value("SELECT version()"), r"^\d+\.\d+\.\d+")

    def test_the_format_of_the_statement_wins_over_the_default(self) -> None:
        self.assertEqual(self.front.value("SELECT 1 AS a", default_format="JSONEachRow"), '{"a":1}')
        self.assertEqual(self.front.value("SELECT 1 AS a FORMAT CSVWithNames", default_format="JSON"), '"a"\n1')

    def test_lz4_is_given_where_it_is_accepted(self) -> None:
        _, body, headers = self.front.post(b"SELECT number FROM numbers(100000)", {"Accept-Encoding": "lz4"})
        self.assertEqual(headers["Content-Encoding"], "lz4")
        self.assertEqual(lz4.frame.decompress(body).split()[-1], b"99999")
        self.assertIsNone(self.front.post(b"SELECT 1")[2]["Content-Encoding"])

    def test_parameters_by_url_and_by_form(self) -> None:
        sql = "SELECT {n:UInt8}, {s:String}"
        self.assertEqual(self.front.value(sql, param_n=7, param_s="a'b"), "7\ta\\'b")
        form = "".join(f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                       for name, value in (("query", sql), ("param_n", "7"), ("param_s", "a'b"))) + "--XX--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=XX"}
        self.assertEqual(self.front.post(form.encode(), headers)[1], b"7\ta\\'b\n")
        self.assert_refused(self.front.post(form.encode()[:40], headers), 400, 36)
        self.assert_refused(self.front.post(sql.encode(), param_n="-1", param_s=""), 400, 457)
        self.assert_refused(self.front.post(sql.encode(), param_n="1"), 400, 456)

    def test_settings_last_for_one_request(self) -> None:
        sql = "SELECT getSetting('max_threads'), currentDatabase()"
        before = self.front.value(sql)
        self.assertEqual(self.front.value(sql, max_threads=7, database="system"), "7\tsystem")
        self.assertEqual(self.front.value(sql), before)
        self.front.post(b"SET max_threads = 9")
        self.assertEqual(self.front.value(sql), before)
        self.assertEqual(self.front.value("SELECT 1", readonly=1), "1")
        self.assertEqual(self.front.post(b"INSERT INTO t VALUES (1, 'x')")[0], 200)

    def test_inserts_of_compressed_blocks(self) -> None:
        blocks = [block(rows(0, 1000)), block(rows(1000, 1000), 0x90), block(rows(2000, 10), 0x02)]
        answer = self.front.post(iter(blocks), query="INSERT INTO t(id, s) FORMAT RowBinary", decompress=1)
        self.assertEqual(answer[0], 200, answer[1])
        self.assertEqual(json.loads(answer[2]["X-ClickHouse-Summary"])["written_rows"], "2010")
        self.assertEqual(self.front.value("SELECT count(), sum(id = toUInt64(s)) FROM t"), "2010\t2010")

    def test_an_insert_with_a_broken_block_leaves_nothing(self) -> None:
        good, insert = block(rows(0, 1000)), {"query": "INSERT INTO t FORMAT RowBinary", "decompress": 1}
        broken = good[:-1] + bytes([good[-1] ^ 1])
        self.assert_refused(self.front.post(iter([good, broken]), None, **insert), 500, 40)
        self.assert_refused(self.front.post(iter([good, good[:-5]]), None, **insert), 500, 32)
        self.assert_refused(self.front.post(iter([good, b"\0" * 30]), None, **insert), 500, 108)
        self.assert_refused(self.front.post(iter([good, block(rows(0, 9)[:-1])]), None, **insert), 400, 33)
        self.assertEqual(self.front.value("SELECT count() FROM t"), "0")

    def test_an_abandoned_insert_leaves_nothing_and_frees_its_connection(self) -> None:
        head = (b"POST /?decompress=1&query=INSERT+INTO+t+FORMAT+RowBinary HTTP/1.1\r\nHost: x\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n")
        content = block(rows(0, 1000))
        for _ in range(40):  # more than there are connections
            with socket.create_connection(("127.0.0.1", self.front.port)) as client:
                client.sendall(head + b"%x\r\n" % len(content) + content + b"\r\n")
        time.sleep(0.3)
        self.assertEqual(self.front.value("SELECT count() FROM t"), "0")

    def test_inserts_as_curl_sends_them(self) -> None:
        lines = b'{"id":1,"s":"x"}\n{"id":2,"s":"; DROP TABLE t"}\n'
        self.assertEqual(self.front.post(lines, query="INSERT INTO t FORMAT JSONEachRow")[0], 200)
        self.assertEqual(self.front.post(b"INSERT INTO t FORMAT JSONEachRow " + lines)[0], 200)
        self.assertEqual(self.front.post(b"(3, 'y')", query="insert into t values")[0], 200)
        self.assertEqual(self.front.post(b"INSERT INTO t VALUES (4, 'z')")[0], 200)
        self.assertEqual(self.front.post(b"", query="INSERT INTO t SELECT 5, 'sel'")[0], 200)
        self.assertEqual(self.front.post(b"", query="INSERT INTO t FORMAT CSV")[0], 200)
        self.assertEqual(self.front.value("SELECT count() FROM t"), "7")

    def test_errors_carry_clickhouses_code_and_status(self) -> None:
        for sql, status, code in (("SELEC 1", 400, 62), ("SELECT 1; SELECT 2", 400, 62), ("", 400, 62),
                                  ("SELECT * FROM nope", 404, 60), ("SELECT throwIf(1)", 500, 395)):
            self.assert_refused(self.front.post(sql.encode()), status, code)
        self.assert_refused(self.front.post(b"SELECT 1", database="nope"), 404, 81)
        self.assert_refused(self.front.post(b"SELECT 1", nope=1), 404, 115)
        self.assert_refused(self.front.post(b"SELECT 1", None, **{"a b": 1}), 404, 115)
        self.assert_refused(self.front.post(b"SELECT 1", compress=1), 501, 48)
        self.assert_refused(self.front.post(b"SELECT '\xff'"), 400, 36)
        self.assert_refused(self.front.post(b"1", query="INSERT INTO t FORMAT Nope"), 404, 73)
        self.assert_refused(self.front.get("/?query=DROP+TABLE+t"), 500, 164)
        self.assert_refused(self.front.get("/nope"), 400, 36)

    def test_users_and_passwords(self) -> None:
        good = {"X-ClickHouse-User": "ann", "X-ClickHouse-Key": "secret"}
        self.assertEqual(self.front.post(b"SELECT 1", good)[0], 200)
        self.assertEqual(self.front.post(b"SELECT 1", user="ann", password="secret")[0], 200)
        self.assertEqual(self.front.post(b"SELECT 1", {"Authorization": "Basic YW5uOnNlY3JldA=="})[0], 200)
        self.assert_refused(self.front.post(b"SELECT 1", {**good, "X-ClickHouse-Key": "x"}), 403, 516)
        self.assert_refused(self.front.post(b"SELECT 1", user="ann"), 403, 516)
        self.assert_refused(self.front.post(b"SELECT 1", user="bob"), 403, 516)
        self.assert_refused(self.front.post(b"SELECT 1", {"Authorization": "Basic YW5uOng="}), 401, 516)

    def test_a_connection_serves_on_after_an_error(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.front.port, timeout=20)
        expected = ((b"SELEC", 400), (b"SELECT 1", 200), (b"SELECT 2", 200))
        for body, status in expected:
            connection.request("POST", "/", body)
            first = connection.sock
            answer = connection.getresponse()
            answer.read()
            self.assertEqual(answer.status, status)
            self.assertIs(connection.sock, first)
        connection.close()

    def test_statements_run_side_by_side(self) -> None:
        began = time.monotonic()
        threads = [threading.Thread(target=self.front.value, args=("SELECT sleep(1)",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLess(time.monotonic() - began, 4)


class PersistenceTest(unittest.TestCase):
    def test_what_was_acknowledged_is_there_after_kill_and_after_an_orderly_end(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            front = Front(Path(folder) / "data")
            front.post(b"CREATE TABLE t (id UInt64, s String) ENGINE = MergeTree ORDER BY id")
            acknowledged = 0
            for ended_by, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 0), (signal.SIGKILL, -9)):
                for _ in range(5):
                    body = rows(acknowledged, 1000)
                    self.assertEqual(front.post(body, query="INSERT INTO t FORMAT RowBinary")[0], 200)
                    acknowledged += 1000
                self.assertEqual(front.end(ended_by), code)
                front.start()
                self.assertEqual(front.value("SELECT count(), uniqExact(id) FROM t"),
                                 f"{acknowledged}\t{acknowledged}")
            self.assertEqual(front.end(signal.SIGTERM), 0)


if __name__ == "__main__":
    unittest.main()
