"""Videos that people send: onto the disk in pieces, under a name of our own, and off it when they are done with.

Nothing is opened here. FFmpeg sees an upload in a job's own process alone, by `capture/file.py`, which refuses
playlists and whatever else would lead it to further files or addresses.
"""

from __future__ import annotations

import errno
import re
import shutil
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from uuid import uuid4

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request

from fer_stream.errors import DiskFull, OutputError
from fer_stream.web.multipart import Form
from fer_stream.web.problems import Problem

_MB = 1 << 20
# The store writes to the same disk, and must not be the one that finds it full.
RESERVE_BYTES = 512 * _MB
_LOOK_BYTES = 16 * _MB
# What a form has around its file.
_FORM_BYTES = 64 * 1024
_SILENCE_S = 30.0
_NAME_BYTES = 100


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was sent: where it lies, what it may be called, and the fields that came with it."""

    path: Path
    name: str
    fields: dict[str, str]


class Uploads:
    """The uploads in `folder`, of `max_bytes` at the most each; `reserve_bytes` of the disk stay free."""

    def __init__(self, folder: Path, *, max_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes

    async def receive(self, request: Request) -> Upload:
        """Take the file of a multipart form. Raises `Problem` where there is none, or no room; nothing is left then.

        Raises `OutputError` where the disk fails.
        """
        form = Form.of(request.headers.get("content-type", ""))
        length = request.headers.get("content-length", "")
        claimed = int(length) if length.isdecimal() else 0
        if claimed > self._max_bytes + _FORM_BYTES:
            raise self._too_large()
        identity = uuid4().hex
        partial = self.folder / f".partial-{identity}"
        try:
            await self._write(request, form, partial, claimed)
            filename = form.filename()
            path = self.folder / f"{identity}{_suffix(filename)}"
            partial.rename(path)
        except OSError as error:
            raise _disk_error(error) from error
        except ClientDisconnect:
            raise Problem(400, "The upload ended early.", "Send the file again.") from None
        finally:
            partial.unlink(missing_ok=True)
        return Upload(path, display_name(filename), form.fields())

    def discard(self, path: Path) -> None:
        """Delete a file, if it is an upload."""
        if path.parent == self.folder:
            path.unlink(missing_ok=True)

    async def _write(self, request: Request, form: Form, partial: Path, claimed: int) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_room(claimed)
        written = looked_at = 0
        with partial.open("xb") as file:
            partial.chmod(0o600)
            async for chunk in _chunks(request):
                for piece in form.feed(chunk):
                    written += len(piece)
                    if written > self._max_bytes:
                        raise self._too_large()
                    await anyio.to_thread.run_sync(file.write, piece)
                if written - looked_at > _LOOK_BYTES:
                    looked_at = written
                    self._check_room(0)
        form.finish()

    def _check_room(self, needed: int) -> None:
        if shutil.disk_usage(self.folder).free < needed + self._reserve_bytes:
            raise DiskFull("There is no room for this upload: free some space on the disk of state_dir.")

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"The upload is larger than {self._max_bytes // _MB} MB.",
            "Shorten or shrink the video, or raise web.max_upload_mb.",
        )


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces, none of which may be long in coming."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(_SILENCE_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Problem(408, f"Nothing came for {_SILENCE_S:.0f} s.", "Send the file again.") from None
        if chunk is None:
            return
        yield chunk


def display_name(filename: str) -> str:
    """A plain name, without folder and ending, from whatever a client calls its file."""
    base = re.split(r"[\\/]", unicodedata.normalize("NFC", filename))[-1]
    plain = re.sub(r"[^\w() -]+", "-", PurePath(base).stem).strip(" -")
    return plain.encode()[:_NAME_BYTES].decode(errors="ignore").strip() or "video"


def _suffix(filename: str) -> str:
    """The ending, by which a still image is known; none where it is an odd one."""
    ending = PurePath(re.split(r"[\\/]", filename)[-1]).suffix.lower()
    return ending if re.fullmatch(r"\.[a-z0-9]{1,8}", ending) else ""


def _disk_error(error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("There is no room for this upload: free some space on the disk of state_dir.")
    return OutputError(f"The upload cannot be written: {error.strerror}. Check the rights of state_dir.")
