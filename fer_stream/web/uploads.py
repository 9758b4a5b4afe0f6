"""Uploads: streamed to disk in chunks under a random name, and deleted when no job needs them any more.

The web process does not open uploads. Only the process of the job does, with `capture/file.py`, which refuses
playlists and other formats that refer to further files or addresses.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import anyio
import anyio.to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from fer_stream.errors import DiskFull, OutputError
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import DISK_FULL_ERRNOS
from fer_stream.web.schemas import Problem

if TYPE_CHECKING:
    from fer_stream.jobs.job import JobInfo

_log = get_logger(__name__)

_MB = 1 << 20
RESERVE_BYTES = 512 * _MB
"""Free disk space that uploads must not use: the store writes to the same disk."""
_DISK_CHECK_BYTES = 16 * _MB
# Allowance for headers, boundaries and fields around the file.
_MAX_FORM_OVERHEAD_BYTES = 64 * 1024
_MAX_FIELD_BYTES = 256
_MAX_PARTS = 8
_CHUNK_TIMEOUT_S = 30.0
_MAX_NAME_BYTES = 100
# An upload is submitted as soon as it is complete, so one without a job after this time never gets one.
_ORPHAN_RETENTION_S = 3600.0
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_FORM_HINT = "Send multipart/form-data with the video as `file`, for example with `curl -F file=@talk.mp4`."
_DISK_FULL = "The disk is too full for this upload: free space on the disk of state_dir."


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file: its path, its sanitised display name, and the other fields of the form."""

    path: Path
    name: str
    fields: dict[str, str]


class Uploads:
    """Uploads in `directory`, at most `max_bytes` each; `reserve_bytes` of the disk stay free."""

    def __init__(self, directory: Path, *, max_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes

    async def receive(self, request: Request) -> Upload:
        """Receive the file of a multipart form. A failed upload leaves no file.

        Raises `Problem` if the form is invalid or too large, `DiskFull`, and `OutputError` for other disk errors.
        """
        form = MultipartForm.of(request.headers.get("content-type", ""))
        length = request.headers.get("content-length", "")
        declared_bytes = int(length) if length.isdecimal() else 0
        if declared_bytes > self._max_bytes + _MAX_FORM_OVERHEAD_BYTES:
            raise self._too_large()
        upload_id = uuid4().hex
        partial = self.directory / f".partial-{upload_id}"
        try:
            await self._write(request, form, partial, declared_bytes)
            filename = form.filename()
            path = self.directory / f"{upload_id}{_suffix(filename)}"
            partial.rename(path)
        except OSError as error:
            raise _disk_error(error) from error
        except ClientDisconnect:
            raise Problem(400, "The upload was interrupted.", "Send the file again.") from None
        finally:
            partial.unlink(missing_ok=True)
        return Upload(path, display_name(filename), form.fields())

    def discard(self, path: Path) -> None:
        """Delete a file if it is an upload."""
        if path.parent == self.directory:
            path.unlink(missing_ok=True)

    async def _write(self, request: Request, form: MultipartForm, partial: Path, declared_bytes: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_free_space(declared_bytes)
        written = checked_at = 0
        with partial.open("xb") as file:
            partial.chmod(0o600)
            async for body in _body(request):
                for chunk in form.feed(body):
                    written += len(chunk)
                    if written > self._max_bytes:
                        raise self._too_large()
                    await anyio.to_thread.run_sync(file.write, chunk)
                if written - checked_at > _DISK_CHECK_BYTES:
                    checked_at = written
                    self._check_free_space(0)
        form.finish()

    def _check_free_space(self, needed_bytes: int) -> None:
        if shutil.disk_usage(self.directory).free < needed_bytes + self._reserve_bytes:
            raise DiskFull(_DISK_FULL)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"The upload is larger than {self._max_bytes // _MB} MB.",
            "Shorten or compress the video, or increase web.max_upload_mb.",
        )


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body in chunks. Raises `Problem` (408) if a chunk takes longer than the timeout."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(_CHUNK_TIMEOUT_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Problem(408, f"No data received for {_CHUNK_TIMEOUT_S:.0f} s.", "Send the file again.") from None
        if chunk is None:
            return
        yield chunk


def display_name(filename: str) -> str:
    """Return a plain name without directory and suffix for the untrusted file name of a client."""
    base = re.split(r"[\\/]", unicodedata.normalize("NFC", filename))[-1]
    plain = re.sub(r"[^\w() -]+", "-", PurePath(base).stem).strip(" -")
    return plain.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip() or "video"


def _suffix(filename: str) -> str:
    """Return the lower-case suffix, which identifies still images, or an empty string if it is unusual."""
    suffix = PurePath(re.split(r"[\\/]", filename)[-1]).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""


def _disk_error(error: OSError) -> OutputError:
    if error.errno in DISK_FULL_ERRNOS:
        return DiskFull(_DISK_FULL)
    return OutputError(f"Cannot write the upload: {error.strerror}. Check the permissions of state_dir.")


class MultipartForm:
    """Incremental parser of a `multipart/form-data` body with one file and a few short fields (python-multipart).

    The form parser of the framework would write the whole file to a temporary directory first, without a limit.
    """

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_end,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
        )
        self._header = (bytearray(), bytearray())
        self._fields: dict[str, bytearray] = {}
        self._field: bytearray | None = None
        self._chunks: list[bytes] = []
        self._filename: str | None = None
        self._disposition = b""
        self._parts = 0
        self._bytes = 0
        self._complete = False

    @classmethod
    def of(cls, content_type: str) -> Self:
        """Create a parser for a body of this Content-Type. Raises `Problem` (415) for other types."""
        kind, parameters = parse_options_header(content_type)
        boundary = parameters.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
            raise Problem(415, "The request is not a multipart form.", _FORM_HINT)
        return cls(boundary)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Parse the next bytes of the body; return the contained bytes of the file.

        Raises `Problem` (400, 422) if the body is malformed.
        """
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise Problem(400, "The form is malformed.", _FORM_HINT) from None
        chunks, self._chunks = self._chunks, []
        self._bytes += sum(map(len, chunks))
        return chunks

    def finish(self) -> None:
        """Check that the form is complete and has a file. Raises `Problem` (400, 422)."""
        if not self._complete:
            raise Problem(400, "The form is incomplete.", _FORM_HINT)
        if self._filename is None or not self._bytes:
            raise Problem(422, "The form has no file, or the file is empty.", _FORM_HINT)

    def filename(self) -> str:
        """Return the file name given by the client (untrusted)."""
        return self._filename or ""

    def fields(self) -> dict[str, str]:
        """Return the fields other than the file."""
        return {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise Problem(422, "The form has too many parts.", _FORM_HINT)
        self._disposition = b""
        self._field = None

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (bytearray(), bytearray())

    def _on_headers_end(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name != "file":
            self._field = self._fields.setdefault(name, bytearray())
        elif self._filename is not None:
            raise Problem(422, "The form has more than one file.", "Submit one job per file.")
        else:
            self._filename = parameters.get(b"filename", b"").decode("utf-8", "replace")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._chunks.append(data[start:end])
            return
        self._field.extend(data[start:end])
        if len(self._field) > _MAX_FIELD_BYTES:
            raise Problem(422, "A field of the form is too long.", _FORM_HINT)

    def _on_end(self) -> None:
        self._complete = True


def is_web_upload(job: JobInfo, results_dir: Path) -> bool:
    """Return whether the job was submitted over HTTP, so that no other job writes to its output directory."""
    return job.out.parent == results_dir and _UPLOAD_ID.fullmatch(job.out.name) is not None


def delete_unused(
    jobs: Sequence[JobInfo],
    uploads_dir: Path,
    results_dir: Path,
    *,
    now: float,
    upload_retention_s: float,
    result_retention_s: float,
) -> None:
    """Delete uploads and results that none of `jobs`, which must be all jobs, needs. `now` is Unix time in seconds.

    An upload is deleted when its job is done; if the job failed or was cancelled, after `upload_retention_s`, so that
    it can be retried. Results are deleted if they are older than `result_retention_s` and have no job record.
    """
    by_path = {job.path: job for job in jobs}
    for path in uploads_dir.glob("*"):
        if _is_expired(path, by_path.get(path), now, upload_retention_s):
            path.unlink(missing_ok=True)
            _log.info("upload_deleted", upload=path.stem)
    in_use = {job.out for job in jobs}
    for directory in results_dir.glob("*"):
        expired = now - directory.stat().st_mtime > result_retention_s
        if _UPLOAD_ID.fullmatch(directory.name) and directory not in in_use and expired:
            shutil.rmtree(directory, ignore_errors=True)
            _log.info("upload_results_deleted", upload=directory.name)


def _is_expired(upload: Path, job: JobInfo | None, now: float, retention_s: float) -> bool:
    if job is None:
        return now - upload.stat().st_mtime > _ORPHAN_RETENTION_S
    if job.state == "done":
        return True
    return job.ended_at is not None and now - job.ended_at > retention_s
