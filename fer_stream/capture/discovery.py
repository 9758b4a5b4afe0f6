"""Expansion of command-line arguments to source files, and names of sources and outputs."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import itertools
import os
import re
import stat
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from fer_stream.errors import ConfigError, SourceNotFound, UnreadableSource
from fer_stream.formatting import pluralize
from fer_stream.log import redact_secrets

IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg",
    ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Suffixes of still and animated images in a folder."""

VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc",
    ".insv", ".ivf", ".lrv", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mod", ".mov",
    ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts",
    ".vob", ".webm", ".wmv", ".wtv", ".y4m",
})  # fmt: skip
"""Suffixes of videos in a folder. A file passed by name can have any suffix."""

_OWN_OUTPUTS = (".annotated.mp4", ".annotated.png", ".frames.csv", ".report.html", ".timeline.json", ".timeline.png")
_SOURCE_NAME_LENGTH = 63

# Number of kinds of skipped files that are named; of the others only the number is.
_MAX_KINDS = 6


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to analyse. Its results are called `name`, in the folder `folder` of the output folder.

    `folder` is the file's folder below the argument that selected it, `name` is its stem. Neither depends on other
    arguments, but if another video or image in the same folder has the same stem, `name` includes the suffix.
    """

    path: Path
    folder: PurePath
    name: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """Files selected by arguments, and the number of other files by kind in each folder that was searched."""

    files: tuple[FoundFile, ...]
    skipped: Mapping[Path, Counter[str]]

    def messages(self) -> Iterator[str]:
        """Describe the skipped files, one line per folder."""
        for folder, kinds in self.skipped.items():
            if kinds:
                yield (
                    f"{folder}: skipped {pluralize(kinds.total(), 'file')} ({_describe(kinds)}). To analyse files of "
                    "other types, pass them by name."
                )


def discover(arguments: Sequence[str | Path]) -> Discovery:
    """Return the files selected by `arguments`, in order and without duplicates.

    A file is used as given. A folder is searched recursively for videos and images, in natural order (`clip2` before
    `clip10`), without hidden files and outputs of fer-stream; symbolic links are followed, each folder is searched
    once. A pattern (`*`, `?`, `[…]`, `**`) is expanded unless a file with that name exists.

    Raises `ConfigError` for an empty argument and for two files whose results would have the same names,
    `SourceNotFound` if an argument selects no file, and `UnreadableSource` for a URL or a folder that may not be
    listed.
    """
    found: dict[str, FoundFile] = {}
    skipped: dict[Path, Counter[str]] = {}
    stems = cache(_stems)
    for argument in arguments:
        base, paths = _expand(str(argument), skipped)
        for path in paths:
            folder = path.relative_to(base).parent if base else PurePath()
            is_unique = stems(path.parent)[path.stem.casefold()] <= {path.name}
            found.setdefault(os.path.realpath(path), FoundFile(path, folder, path.stem if is_unique else path.name))
    _refuse_conflicts(found.values())
    return Discovery(tuple(found.values()), skipped)


def _stems(folder: Path) -> defaultdict[str, set[str]]:
    """Return the videos and images in a folder by their stem, regardless of case; none if it may not be listed."""
    names = defaultdict[str, set[str]](set)
    with suppress(OSError):
        for path in folder.iterdir():
            if _skipped_kind(path.name) is None:
                names[path.stem.casefold()].add(path.name)
    return names


def _refuse_conflicts(files: Iterable[FoundFile]) -> None:
    first: dict[PurePath, Path] = {}
    for file in files:
        other = first.setdefault(file.folder / file.name, file.path)
        if other != file.path:
            raise ConfigError(
                f"The results of {_safe_str(other)} and {_safe_str(file.path)} would have the same names "
                f"({file.folder / file.name}.*). Pass the folder that contains both, so that the results get its "
                "structure, or analyse them with different --out."
            )


def slugify(text: str) -> str:
    """Convert `text`, such as a file name, to a valid source name: `[a-z0-9][a-z0-9_-]{0,62}`.

    Accents are removed and other invalid characters replaced by a hyphen. If nothing is left, as of a Chinese name,
    the result contains a hash of the text, so that different files have different names.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:_SOURCE_NAME_LENGTH]
    return name or f"source-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def ensure_readable(path: Path) -> None:
    """Raise `SourceNotFound` or `UnreadableSource` unless `path` is a readable, non-empty regular file."""
    try:
        status = path.stat()
        # Opening a pipe would block, so only regular files are opened.
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(f"File not found: {_safe_str(path)}. Check the name and the folder.") from None
    except PermissionError:
        raise UnreadableSource(
            f"No permission to read {_safe_str(path)}. Change its permissions, or run as its owner."
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableSource(f"{_safe_str(path)} cannot be opened: {error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableSource(f"{_safe_str(path)} is a folder. Pass the files in it.")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableSource(f"{_safe_str(path)} is a pipe or a device. Save its contents to a file first.")
    if not status.st_size:
        raise UnreadableSource(f"{_safe_str(path)} is empty. Copy or download it again.")


def _expand(argument: str, skipped: dict[Path, Counter[str]]) -> tuple[Path | None, list[Path]]:
    """Return the files that an argument selects, and the folder whose structure their results get."""
    if not argument:
        raise ConfigError("A path is empty. If it comes from a shell variable, check that the variable is set.")
    path = Path(argument)
    if "://" in argument:
        raise UnreadableSource(
            f"{redact_secrets(argument)} is a URL, not a file. Download it first; for cameras use `fer-stream serve`."
        )
    if os.path.lexists(path):
        return (path, _files_in(path, skipped)) if path.is_dir() else (None, [path])
    if not glob.has_magic(argument):
        raise SourceNotFound(f"File or folder not found: {_safe_str(path)}. Check the name.")
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = sorted(_matching_paths(argument, base), key=_natural_key)
    if not matches:
        raise SourceNotFound(f"No file matches {_safe_str(path)}. Check the pattern and the folder.")
    return base, [path for match in matches for path in (_files_in(match, skipped) if match.is_dir() else [match])]


def _matching_paths(pattern: str, base: Path) -> Iterator[Path]:
    """Yield the paths that match `pattern`, whose constant part is `base`."""
    parts = Path(pattern).relative_to(base).parts
    if "**" not in parts:
        yield from map(Path, glob.glob(pattern))  # noqa: PTH207 - Path.glob does not accept absolute patterns
        return
    # Not glob: with links that form a loop, the number of paths that it visits grows exponentially.
    for folder, names in _folders(base) if base.is_dir() else ():
        if _matches(folder.relative_to(base).parts, parts):
            yield folder
        if not pattern.endswith("/"):
            file_parts = (*parts, "*") if parts[-1] == "**" else parts
            paths = (folder / name for name in names)
            yield from (path for path in paths if _matches(path.relative_to(base).parts, file_parts))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether the parts of a path match a pattern as in a shell: hidden ones only if it starts with a dot."""
    if not patterns:
        return not parts
    if patterns[0] == "**" and _matches(parts, patterns[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not patterns[0].startswith(".")):
        return False
    if patterns[0] == "**":
        return _matches(parts[1:], patterns)
    return fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _files_in(folder: Path, skipped: dict[Path, Counter[str]]) -> list[Path]:
    """Return the supported files below `folder` and count the others in `skipped`."""
    kinds = skipped[folder] = Counter[str]()
    found = []
    for path in _walk(folder):
        if kind := _skipped_kind(path.name):
            kinds[kind] += 1
        else:
            found.append(path)
    if not found:
        others = f" ({_describe(kinds)})" if kinds else ""
        raise SourceNotFound(
            f"{folder} contains no supported files{others}. Pass files with other extensions explicitly."
        )
    return sorted(found, key=_natural_key)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`, without hidden ones of other types than those analysed."""
    for parent, names in _folders(folder):
        yield from (parent / name for name in names if not name.startswith(".") or _is_supported(name))


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield `root` and each folder below it that is not hidden, with the names of its files.

    Symbolic links are followed, and each folder is visited once. Linked folders come last, so that a folder is found
    under its own path first.
    """

    def on_error(error: OSError) -> None:
        raise UnreadableSource(
            f"Cannot list folder {error.filename}: {error.strerror}. Change its permissions, or do not pass it."
        ) from error

    pending, visited = deque([root]), set[tuple[int, int]]()
    while pending:
        for parent, folders, files in os.walk(pending.popleft(), onerror=on_error):
            status = Path(parent).stat()
            if (status.st_dev, status.st_ino) in visited:
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            visible = sorted((Path(parent, name) for name in folders if not name.startswith(".")), key=_natural_key)
            pending.extend(path for path in visible if path.is_symlink())
            folders[:] = [path.name for path in visible if not path.is_symlink()]
            yield Path(parent), files


def _is_supported(name: str) -> bool:
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _skipped_kind(name: str) -> str | None:
    """Return the kind of a file that is skipped in a folder, or None if it is analysed."""
    if name.endswith(_OWN_OUTPUTS):
        return "results of fer-stream"
    if name.startswith("."):
        return "hidden"
    if _is_supported(name):
        return None
    suffix = PurePath(name).suffix.lower()
    return suffix if re.fullmatch(r"\.\w{1,8}", suffix) else "other"


def _describe(kinds: Counter[str]) -> str:
    named = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:_MAX_KINDS]
    others = kinds.total() - sum(number for _, number in named)
    return ", ".join(
        [f"{number} {kind}" for kind, number in named] + ([f"{others} of other types"] if others else [])
    )


def _natural_key(path: Path) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Sort key that compares paths by their parts, and digits in them as numbers."""
    return tuple(
        tuple((int(piece), "") if piece.isdecimal() else (-1, piece.casefold()) for piece in re.split(r"(\d+)", part))
        for part in path.parts
    )


def _safe_str(path: Path) -> str:
    # Path merges the slashes of a URL passed as a file; restored here, so that its password is redacted.
    return redact_secrets(re.sub(r"^(\w+):/(?=[^/])", r"\1://", str(path)))
