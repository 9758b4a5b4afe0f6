"""A `multipart/form-data` body with one file in it, taken apart as it comes (python-multipart).

The framework's own form parsing would put the whole file into a temporary folder first, without a limit.
"""

from __future__ import annotations

from typing import Self

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from fer_stream.web.problems import Problem

_FIELD_BYTES = 256
_PARTS = 8
_HOW = "Send multipart/form-data with the video as `file`, as `curl -F file=@talk.mp4` does."


class Form:
    """Feed it the body; it gives back the bytes of the file, and keeps the short fields beside it."""

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )
        self._header = (bytearray(), bytearray())
        self._fields: dict[str, bytearray] = {}
        self._field: bytearray | None = None
        self._pieces: list[bytes] = []
        self._filename: str | None = None
        self._disposition = b""
        self._parts = 0
        self._bytes = 0
        self._whole = False

    @classmethod
    def of(cls, content_type: str) -> Self:
        """For a body of this Content-Type. Raises `Problem` where it is no form."""
        kind, parameters = parse_options_header(content_type)
        boundary = parameters.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
            raise Problem(415, "This is no form with a file.", _HOW)
        return cls(boundary)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The bytes of the file in this piece of the body. Raises `Problem` where the body is broken."""
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise Problem(400, "The form is broken.", _HOW) from None
        pieces, self._pieces = self._pieces, []
        self._bytes += sum(map(len, pieces))
        return pieces

    def finish(self) -> None:
        """Check that all is there. Raises `Problem`."""
        if not self._whole:
            raise Problem(400, "The form ends early.", _HOW)
        if self._filename is None or not self._bytes:
            raise Problem(422, "There is no file in the form, or it is empty.", _HOW)

    def filename(self) -> str:
        """What the client calls its file; to be trusted in nothing."""
        return self._filename or ""

    def fields(self) -> dict[str, str]:
        """The fields that are no file."""
        return {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise Problem(422, "The form has too many parts.", _HOW)
        self._disposition = b""
        self._field = None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name != "file":
            self._field = self._fields.setdefault(name, bytearray())
        elif self._filename is not None:
            raise Problem(422, "The form has more than one file.", "Send one job for each.")
        else:
            self._filename = parameters.get(b"filename", b"").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._pieces.append(data[start:end])
            return
        self._field.extend(data[start:end])
        if len(self._field) > _FIELD_BYTES:
            raise Problem(422, "A field of the form is too long.", _HOW)

    def _end(self) -> None:
        self._whole = True
