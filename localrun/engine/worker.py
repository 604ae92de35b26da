"""The process in which a function runs, executed by its file's path in the caller's interpreter and environment.

It only sees to what is imported from where. An interpreter compiles the file it executes each time, and keeps what it
imports compiled: what there is to do is in `calling`.
"""

from __future__ import annotations

import os
import sys

# The submitter's import path, before anything that isn't Python's own is imported. The user's children don't get it.
# An empty entry stands for what this interpreter itself finds: the packages of a virtual environment of the run's own.
_own, _given = sys.path[:], os.environ.pop("LOCALRUN_SYS_PATH", "").split("\n")
sys.path[:] = [found for entry in _given for found in ([entry] if entry else _own)]
# Where this file lies, if the submitter found localrun by an entry that means another folder by now.
sys.path += {os.path.abspath(f"{__file__}/../../..")}.difference(sys.path)

if __name__ == "__main__":
    from localrun.engine.calling import main

    main()
