"""The pickles of a run: written whole or not at all, with size and digest, and never loaded when those don't match.

Owns the files and their integrity. A file is a pickle and, behind it, the memory of the large arrays in it, out of band
as pickle protocol 5 has it, each from a page's start on: they can be read straight to where they are to be, or mapped.
All is one file, so that one rename puts it there and one digest is that of everything; where the arrays lie in it is
kept with the digest.

How code gets into a pickle is ``travel``'s, and how out of it ``arrival``'s; how arrays are read is ``apart``'s. All
three, and cloudpickle, are imported when a pickle needs them: a worker's start-up waits for this module.
"""

from __future__ import annotations

import errno
import io
import os
import sys

try:
    import _pickle as pickle  # what `pickle` gives its names to, after it has loaded `re`: as long as a small call
except ImportError:
    import pickle  # type: ignore[no-redef]

from localrun.errors import PayloadError, ResultUnavailableError
from localrun.model import trust
from localrun.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO, TypeVar

    from localrun.model.pickles.arrival import Arrival

    W = TypeVar("W", bound="_Writer | io.BytesIO")

Path = str | os.PathLike[str]

VERIFIED_AT_LOAD = 16 << 20
_PAGE = 4096
_HASHED_BESIDE = 1 << 20  # starting a thread costs 0.1 ms, hashing this much 0.7
# Modules whose classes and functions go by reference without asking whose they are, and without cloudpickle.
_PLAIN = frozenset({"_codecs", "builtins", "collections", "copyreg", "datetime", "numpy", "pathlib"})
_OURS = frozenset({"cloudpickle.cloudpickle", "localrun.model.pickles.carried"})


class Stored(NamedTuple):
    """What a file was when it was written: its size in bytes, its SHA-256 in hex, and where in it large arrays lie.

    ``apart`` holds an offset and a length in bytes for each of them, in the order in which the pickle asks for them.
    """

    size: int
    sha256: str
    apart: Sequence[Sequence[int]] = ()

    @classmethod
    def of(cls, data: bytes) -> Stored:
        """What a file with this content is."""
        return cls(len(data), _sha256(data))

    def to_record(self) -> dict[str, Any]:
        """The fields as a record has them; ``Stored(**fields)`` is what they mean."""
        apart = {"apart": [*map(list, self.apart)]} if self.apart else {}
        return {"size": self.size, "sha256": self.sha256, **apart}


def store(value: object, path: Path) -> Stored:
    """Pickle a value into a file, which is there completely or not at all; one that was there is replaced.

    Classes and functions of the user's project go by value, so that the file can be read without them. A large array
    is neither copied nor read again. The file is not synced: a power cut may lose it, which the digest then shows.

    Raises: PayloadError if it can't be pickled; OSError, such as for a full disk.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            writer = _pickle_into(lambda: _Writer(fd), value)
            writer.write_apart()
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # its folder is gone: the first error says more
        raise
    return Stored(writer.size, writer.hexdigest(), tuple(writer.apart))


def dumps(value: object) -> bytes:
    """The pickle of a value, as `store` would write it; PayloadError if it can't be pickled."""
    return _pickle_into(io.BytesIO, value).getvalue()


def dumps_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The pickle of a call's inputs, ``{"args": [...], "kwargs": {...}}``; PayloadError if they can't be pickled."""
    return dumps({"args": list(args), "kwargs": kwargs})


def loads(data: bytes) -> Any:
    """A function, or its inputs, in the process that calls it: code is as it was submitted, whatever the files now say.

    Modules that came along take their places in ``sys.modules``, ``__main__`` included, and stay there.
    """
    try:
        return _Unpickler(io.BytesIO(data), as_submitted=True).load()
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise _cannot_load("the pickle", error) from error


def load(path: Path, stored: Stored | None, *, mapped: bool = False, trusted: bool = False) -> Any:
    """The value in a file of a run folder, checked against what was stored: its size, and up to 16 MiB its digest.

    Unpickling executes code: unless the caller has decided that the run is ``trusted``, only what nobody else can have
    written is loaded.

    Classes that this process already has, by module and name, are used as they are, so that ``isinstance`` and
    ``except`` hold. Large arrays are read straight into their memory, and are writable; ``mapped``, they stay in the
    file, and are read-only.

    Raises: ResultUnavailableError if the file is missing, cut short or altered; PayloadError if the right bytes can't
    be unpickled here; UntrustedRunError if others can have written it.
    """
    with _open(path) as file:
        opened = os.fstat(file.fileno())
        if not trusted:
            trust.check_file(path, opened)
        size = opened.st_size
        _check_size(path, size, stored)
        source: BinaryIO
        if size <= VERIFIED_AT_LOAD:
            data = file.read()
            _check_digest(path, data, stored)
            source = io.BytesIO(data)
        else:
            source = io.BufferedReader(file)
        try:
            return _Unpickler(source, as_submitted=False, buffers=_buffers(file, stored, mapped)).load()
        except Exception as error:
            if stored is not None and size > VERIFIED_AT_LOAD:
                verify(path, stored)
            if stored is None and isinstance(error, EOFError | pickle.UnpicklingError):
                raise _unavailable(path, "is cut short or altered") from error
            if isinstance(error, MemoryError | OSError | ResultUnavailableError):
                raise
            raise _cannot_load(os.fspath(path), error) from error


def verify(path: Path, stored: Stored) -> None:
    """Read the whole file and compare; ResultUnavailableError if it is missing, cut short or altered."""
    import hashlib

    with _open(path) as file:
        _check_size(path, os.fstat(file.fileno()).st_size, stored)
        if hashlib.file_digest(file, "sha256").hexdigest() != stored.sha256:
            raise _unavailable(path, "has been altered")


def _buffers(file: BinaryIO, stored: Stored | None, mapped: bool) -> Iterator[memoryview] | None:
    if stored is None or not stored.apart:
        return None
    from localrun.model.pickles import apart

    return apart.mapped(file, stored.apart) if mapped else apart.read(file, stored.apart)


class _Unpickler(pickle.Unpickler):
    """Hands the making of functions, classes and modules to ``arrival``."""

    def __init__(self, file: BinaryIO, as_submitted: bool, buffers: Iterator[memoryview] | None = None) -> None:
        super().__init__(file, buffers=buffers)
        self._as_submitted = as_submitted
        self._arrival: Arrival | None = None

    def find_class(self, module: str, name: str) -> Any:
        if module not in _OURS:
            return super().find_class(module, name)
        if self._arrival is None:
            from localrun.model.pickles.arrival import Arrival

            self._arrival = Arrival(self._as_submitted)
        return self._arrival.find(name) or super().find_class(module, name)


class _PlainPickler(pickle.Pickler):
    """Gives up at the first class or function that could be the user's, which then is for ``travel``."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) or callable(obj):
            module = getattr(obj, "__module__", None)
            if not isinstance(module, str) or module.partition(".")[0] not in _PLAIN:
                raise pickle.PicklingError
        if type(obj).__name__ != "ndarray":
            return NotImplemented
        from localrun.model.pickles import apart

        return apart.reduced(obj)


def _pickle_into(start: Callable[[], W], value: object) -> W:
    """Pickle a value into the new, or emptied, file that ``start`` gives; give that file back."""
    file = start()
    try:
        _PlainPickler(file, protocol=5, buffer_callback=getattr(file, "keeps_in_pickle", None)).dump(value)
        return file
    except (OSError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - not plain data, or not picklable at all
        from localrun.model.pickles.travel import pickle_into

        return pickle_into(start, value)


class _Writer:
    """Writes to a file from its start and hashes what it writes, large parts in a thread beside the writing."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0
        self.apart: list[tuple[int, int]] = []
        self._waiting: list[memoryview] = []
        self._small: list[bytes] = []
        self._digest: Any = None
        os.lseek(fd, 0, os.SEEK_SET)
        os.ftruncate(fd, 0)

    def write(self, data: Any) -> None:
        """Write all of a buffer; OSError if that isn't possible."""
        view = pickle.PickleBuffer(data).raw()
        self.size += view.nbytes
        hashing = None
        if self.size < _HASHED_BESIDE:
            self._small.append(bytes(view))
        else:
            hashing = self._hash_beside(view)
        try:
            self._write_all(view)
        finally:
            if hashing is not None:
                hashing.join()

    def keeps_in_pickle(self, buffer: pickle.PickleBuffer) -> bool:
        """What a pickler asks for each buffer; one that is large is noted, to be written behind the pickle."""
        from localrun.model.pickles.apart import SET_APART

        try:
            memory = buffer.raw()
        except BufferError:  # in pieces: the pickler will say so
            return True
        if memory.nbytes < SET_APART:
            return True
        self._waiting.append(memory)
        return False

    def write_apart(self) -> None:
        """Write what was noted, each from a page's start on: what maps the file finds it aligned."""
        for memory in self._waiting:
            self.write(bytes(-self.size % _PAGE))
            self.apart.append((self.size, memory.nbytes))
            self.write(memory)

    def hexdigest(self) -> str:
        """The SHA-256 of all that was written."""
        if self._digest is None:
            return _small_sha256(b"".join(self._small))
        return str(self._digest.hexdigest())

    def _hash_beside(self, view: memoryview) -> threading.Thread | None:
        import hashlib
        import threading

        if self._digest is None:
            self._digest = hashlib.sha256(b"".join(self._small))
        if view.nbytes >= _HASHED_BESIDE:
            thread = threading.Thread(target=self._digest.update, args=(view,), name="localrun-digest")
            try:
                thread.start()
                return thread
            except RuntimeError:  # no more threads to be had
                pass
        self._digest.update(view)
        return None

    def _write_all(self, view: memoryview) -> None:
        written = 0
        while written < view.nbytes:
            written += os.write(self._fd, view[written:])


def _sha256(data: bytes) -> str:
    if len(data) < _HASHED_BESIDE:
        return _small_sha256(data)
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _small_sha256(data: bytes) -> str:
    """A digest by the interpreter's own code: ``hashlib`` loads OpenSSL first, which takes longer than a small call."""
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:
        from hashlib import sha256
    return str(sha256(data).hexdigest())


def _open(path: Path) -> io.FileIO:
    try:
        return open(path, "rb", buffering=0, opener=_without_following)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _unavailable(path, "is missing") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unavailable(path, "is a symbolic link") from error
        raise


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_size(path: Path, size: int, stored: Stored | None) -> None:
    if stored is not None and size < stored.size:
        raise _unavailable(path, f"is cut short: {size} of {stored.size} bytes")
    if stored is not None and size > stored.size:
        raise _unavailable(path, f"has been altered: {size} bytes instead of {stored.size}")


def _check_digest(path: Path, data: bytes, stored: Stored | None) -> None:
    if stored is not None and _sha256(data) != stored.sha256:
        raise _unavailable(path, "has been altered")


def _unavailable(path: Path, what: str) -> ResultUnavailableError:
    return ResultUnavailableError(f"{os.fspath(path)} {what}; it was not loaded")


def _cannot_load(what: str, error: Exception) -> PayloadError:
    """The error for right bytes that can't be unpickled here."""
    if isinstance(error, ModuleNotFoundError):
        return PayloadError(f"{what} needs the module {error.name!r}, which is not installed here")
    text = " ".join(str(error).split())
    return PayloadError(f"{what} can't be unpickled here: {type(error).__name__}: {text}")
