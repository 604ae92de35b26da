"""Every path in a run folder, from one class. It computes paths; it neither creates nor reads anything."""

from __future__ import annotations

import os

# The two bytes of the lock file: who may change the record, and whether a supervisor is alive.
RECORD_BYTE = 0
SUPERVISOR_BYTE = 1
# The folder beside the runs in which deleted and replaced ones lie.
ARCHIVE = ".archive"
_FILES = {
    "config.json", "function.pkl", "inputs.pkl", "result.pkl", "exception.pkl", "parameters.yaml", "provenance.json",
    "export.json", "artifacts.jsonl",
}  # fmt: skip
_FOLDERS = {"logs", "telemetry", "work", "venv", "code"}


def is_own(path: str) -> bool:
    """True if what has that path inside a run's folder is the run's own, and not something that its program made."""
    first = path.partition("/")[0]
    of_rank = first.endswith(".pkl") and first.startswith(("result.", "exception."))
    return first in _FILES or first in _FOLDERS or of_rank or first.startswith(".")


def is_misshapen(path: str, *, is_folder: bool) -> bool:
    """True for a folder, or what is in one, that is called like one of the run's own files, or the other way round."""
    first, inside, _ = path.partition("/")
    return first in (_FILES if is_folder or inside else _FOLDERS)


def may_be_link(path: str) -> bool:
    """True if a program may have made a link there: in its working folder, too."""
    return not is_own(path) or path.startswith("work/")


class RunFolder:
    """The layout of one run folder. Paths are text: they are made on the hot path.

    ``uid``, if given, says which run's it is: whoever reads or changes the record there is told if it is another's.
    """

    __slots__ = ("path", "uid")

    def __init__(self, path: str | os.PathLike[str], uid: str | None = None) -> None:
        self.path = os.fspath(path)
        self.uid = uid

    @property
    def record(self) -> str:
        """The record, replaced atomically."""
        return f"{self.path}/config.json"

    @property
    def lock(self) -> str:
        """The lock file: ``RECORD_BYTE`` and ``SUPERVISOR_BYTE``."""
        return f"{self.path}/.lock"

    @property
    def function(self) -> str:
        """The cloudpickled function of a function run."""
        return f"{self.path}/function.pkl"

    @property
    def inputs(self) -> str:
        """The cloudpickled ``{"args": [...], "kwargs": {...}}`` of a function run."""
        return f"{self.path}/inputs.pkl"

    def stored(self, name: str) -> str:
        """One of the files of which the record says what they are: what the run was given, or returned."""
        return f"{self.path}/{name}"

    def result(self, rank: int | None = None) -> str:
        """The cloudpickled return value of a function run that completed; of one of its ranks, if it has several."""
        return f"{self.path}/result.pkl" if rank is None else f"{self.path}/result.rank_{rank}.pkl"

    def exception(self, rank: int | None = None) -> str:
        """The cloudpickled exception of a function run, or of a rank of it, that raised one which pickles."""
        return f"{self.path}/exception.pkl" if rank is None else f"{self.path}/exception.rank_{rank}.pkl"

    @property
    def parameters(self) -> str:
        """The config's ``parameters``; there only when some were given."""
        return f"{self.path}/parameters.yaml"

    @property
    def code(self) -> str:
        """The code of a run that came from elsewhere, as far as it was exported with it."""
        return f"{self.path}/code"

    @property
    def export(self) -> str:
        """What a run that came from elsewhere was exported from, when, and the digests of its files."""
        return f"{self.path}/export.json"

    @property
    def checkpoints(self) -> str:
        """The folder that survives resumptions."""
        return f"{self.path}/checkpoints"

    @property
    def work(self) -> str:
        """The working folder of a run with integrations: there lie the repositories."""
        return f"{self.path}/work"

    @property
    def venv(self) -> str:
        """The virtual environment of a run whose integrations install Python packages."""
        return f"{self.path}/venv"

    @property
    def artifacts(self) -> str:
        """What a run at work has read and made so far; if that isn't too much, its end takes it into the record."""
        return f"{self.path}/artifacts.jsonl"

    @property
    def untrusted(self) -> str:
        """There in the folder of a run that came from elsewhere and whose pickles nobody has said to trust."""
        return f"{self.path}/.untrusted"

    @property
    def provenance(self) -> str:
        """The code and the environment a run was submitted from, as JSON."""
        return f"{self.path}/provenance.json"

    @property
    def logs(self) -> str:
        """The folder with one folder of logs for each resumption."""
        return f"{self.path}/logs"

    @property
    def is_archived(self) -> bool:
        """True for the folder of a run that was deleted or replaced."""
        return os.path.basename(os.path.dirname(self.path)) == ARCHIVE

    def archived(self, uid: str) -> RunFolder:
        """Where the run of that uid lies once it is deleted or replaced; this folder if it is there."""
        parent, base = os.path.split(self.path)
        return self if self.is_archived else RunFolder(f"{parent}/{ARCHIVE}/{base}.{uid}", uid)

    def gate(self, resumption: int, rank: int) -> str:
        """The named pipe at which a rank in a container waits until all ranks are there; only until then."""
        return f"{self.path}/logs/{resumption}/rank_{rank}.gate"

    @property
    def connected(self) -> str:
        """There while somebody has connected to the run who must be ended with it; made under the record's lock."""
        return f"{self.path}/.connected"

    def resumption_logs(self, resumption: int) -> str:
        """The folder of one resumption's logs."""
        return f"{self.path}/logs/{resumption}"

    def telemetry(self, resumption: int) -> str:
        """The samples of what one resumption used, a JSON object a line."""
        return f"{self.path}/telemetry/{resumption}.jsonl"

    def stdout(self, resumption: int, rank: int) -> str:
        """The exact bytes one rank wrote to its standard output."""
        return f"{self.path}/logs/{resumption}/rank_{rank}.out"

    def stderr(self, resumption: int, rank: int) -> str:
        """The exact bytes one rank wrote to its standard error."""
        return f"{self.path}/logs/{resumption}/rank_{rank}.err"

    def log_times(self, resumption: int, rank: int) -> str:
        """When each of a rank's two logs had grown to which size: a line ``time stream size`` at each growth."""
        return f"{self.path}/logs/{resumption}/rank_{rank}.times"

    @property
    def log_source(self) -> str:
        """Where the output of a traced block inside another goes while it is open; see ``tracing.output.logslice``."""
        return f"{self.path}/logs/0/rank_0.source"

    def commands(self, resumption: int, rank: int) -> str:
        """How each of several commands ended, and which part of the logs is whose; see ``engine.sequence``."""
        return f"{self.path}/logs/{resumption}/rank_{rank}.commands"

    def outcome(self, resumption: int, rank: int) -> str:
        """What a worker says of its call, for the supervisor, which takes it into the record and removes it."""
        return f"{self.path}/logs/{resumption}/rank_{rank}.outcome"
