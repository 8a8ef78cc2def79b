"""The bytes between an HTTP client and the ClickHouse front.

Owns: request bodies (by length or chunked), multipart forms, ClickHouse's compressed blocks, the codes and HTTP
statuses of errors. Invariant: every read is bounded, and a body that ends early is an error, never a short result.
Must not: know the engine, users, or what a statement means.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from email.message import Message
from io import BufferedIOBase

import lz4.block
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

LINE_BYTES_MAX = 8 * 1024
BLOCK_BYTES_MAX = 1024 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024

# What ClickHouse calls the errors that the front itself raises.
NAMES = {
    32: "ATTEMPT_TO_READ_AFTER_EOF",
    36: "BAD_ARGUMENTS",
    40: "CHECKSUM_DOESNT_MATCH",
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    89: "UNKNOWN_COMPRESSION_METHOD",
    108: "TOO_LARGE_SIZE_COMPRESSED",
    115: "UNKNOWN_SETTING",
    164: "READONLY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    271: "CANNOT_DECOMPRESS",
    516: "AUTHENTICATION_FAILED",
    1000: "POCO_EXCEPTION",
    1001: "STD_EXCEPTION",
}

# The HTTP status that ClickHouse gives with a code; 500 for all others.
HTTP_STATUS = {
    **dict.fromkeys((26, 27, 33, 34, 36, 38, 41, 43, 44, 53, 62, 72, 117, 130, 456, 457), 400),
    **dict.fromkeys((16, 46, 47, 50, 56, 60, 73, 81, 115, 510), 404),
    **dict.fromkeys((192, 193, 497, 516), 403),
    159: 408,
    48: 501,
}


class ClickHouseError(Exception):
    """An error as ClickHouse tells it; `code` is ClickHouse's, `text` has no version in it."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.text = f"Code: {code}. DB::Exception: {message}. ({NAMES.get(code, 'UNKNOWN_EXCEPTION')})"
        super().__init__(self.text)

    @classmethod
    def from_engine(cls, error: BaseException) -> ClickHouseError:
        """The engine tells its errors as text; what has no code is an error of the binding."""
        text = str(error).strip()
        found = re.match(r"Code: (\d+)\. ", text)
        if found is None:
            return cls(1001, text)
        told = cls(int(found[1]), "")
        told.text = re.sub(r" \(version [^()]*\)", "", text)
        return told

    @property
    def http_status(self) -> int:
        return HTTP_STATUS.get(self.code, 500)


class BodyEnded(ConnectionError):
    """The client went away, or abandoned its insert, before the body was complete: nobody waits for an answer."""


class Body:
    """A request's body, read once from front to back. `complete` tells whether its end was reached."""

    def __init__(self, stream: BufferedIOBase, headers: Message) -> None:
        self._stream = stream
        self._chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
        length_text = headers.get("Content-Length", "0").strip()
        if not length_text.isdigit():
            raise ClickHouseError(36, f"Content-Length must be a number, not {length_text[:40]!r}")
        # Bytes left of the whole body, or of the present chunk.
        self._left = 0 if self._chunked else int(length_text)
        self.complete = not self._chunked and self._left == 0

    def read_some(self, limit: int) -> bytes:
        """At most `limit` bytes; empty only at the end of the body."""
        if self._chunked and self._left == 0 and not self.complete:
            self._next_chunk()
        if self.complete:
            return b""
        data = self._stream.read(min(limit, self._left))
        if not data:
            raise BodyEnded("the body ended early")
        self._left -= len(data)
        if self._left == 0:
            if self._chunked:
                self._line()  # the CRLF after a chunk
            else:
                self.complete = True
        return data

    def read_exactly(self, count: int) -> bytes:
        """`count` bytes, or fewer if the body ends before."""
        parts: list[bytes] = []
        while count > 0:
            part = self.read_some(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self, limit: int) -> None:
        """Read on to the end, so that a client still sending can hear the answer; gives up after `limit` bytes."""
        while not self.complete and limit > 0:
            limit -= len(self.read_some(min(limit, CHUNK_BYTES)))

    def _next_chunk(self) -> None:
        line = self._line()
        size_text = line.split(b";")[0].strip()
        if re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size_text) is None:
            raise BodyEnded(f"not the size of a chunk: {size_text[:40]!r}")
        self._left = int(size_text, 16)
        if self._left == 0:
            while self._line() not in (b"\r\n", b"\n"):
                pass  # trailers
            self.complete = True

    def _line(self) -> bytes:
        line = self._stream.readline(LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            raise BodyEnded("the body ended early")
        return line


def decompressed_blocks(body: Body) -> Iterator[bytes]:
    """ClickHouse's own compression: checksum (16) | method (1) | size with this header (4) | raw size (4) | data."""
    while True:
        header = body.read_exactly(25)
        if not header:
            return
        if len(header) < 25:
            raise ClickHouseError(32, "Cannot read the header of a compressed block: the body ended in it")
        method, size, raw_size = struct.unpack_from("<BII", header, 16)
        if not 9 <= size <= BLOCK_BYTES_MAX or raw_size > BLOCK_BYTES_MAX:
            raise ClickHouseError(108, f"Too large or too small a compressed block: {size} bytes, {raw_size} raw")
        data = body.read_exactly(size - 9)
        if len(data) < size - 9:
            raise ClickHouseError(32, f"Cannot read a compressed block: {len(data)} of {size - 9} bytes came")
        if _checksum(header[16:] + data) != header[:16]:
            raise ClickHouseError(40, "Checksum doesn't match: corrupted data. The block is not what was sent")
        yield _decompressed(method, data, raw_size)


def _checksum(data: bytes) -> bytes:
    """CityHash128 1.0.2; the low half is sent first, each half little-endian."""
    value = CityHash128(data)
    return struct.pack("<QQ", value >> 64, value & 0xFFFFFFFFFFFFFFFF)


def _decompressed(method: int, data: bytes, raw_size: int) -> bytes:
    raw: bytes
    try:
        if method == 0x82:
            raw = lz4.block.decompress(data, uncompressed_size=raw_size)
        elif method == 0x90:
            raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw_size)
        elif method == 0x02:
            raw = data
        else:
            raise ClickHouseError(89, f"Unknown compression method: 0x{method:02x}")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError) as error:
        raise ClickHouseError(271, f"Cannot decompress: {error}") from error
    if len(raw) != raw_size:
        raise ClickHouseError(271, f"Cannot decompress: {len(raw)} bytes came out where {raw_size} were announced")
    return raw


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """The text parts of a multipart/form-data body by name."""
    found = re.search(r'boundary="?([^";]{1,70})"?', content_type)
    if found is None:
        raise ClickHouseError(36, "multipart/form-data without a boundary")
    delimiter = b"\r\n--" + found[1].encode("latin-1")
    parts = (b"\r\n" + body).split(delimiter)
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise ClickHouseError(36, "multipart/form-data without its closing boundary")
    fields: dict[str, str] = {}
    for part in parts[1:-1]:
        head, separator, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'[;\s]name="([^"]*)"', head)
        if not separator or name is None:
            raise ClickHouseError(36, "a part of multipart/form-data has no name")
        fields[name[1].decode("utf-8", "replace")] = text_of(value)
    return fields


def text_of(data: bytes) -> str:
    """Statements are text: binary data goes with INSERT … FORMAT in `query`, and the data alone as the body."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClickHouseError(36, f"The statement is not UTF-8: {error}") from error
