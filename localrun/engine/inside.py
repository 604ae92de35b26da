"""A function's worker in a container, executed by this file's path in whatever Python the image has.

It does what nothing else can do there: goes over to the Python that the function needs, waits until the run is to
begin, sends its output to the run's logs, refuses a Python in which the function can't be loaded, and says from where
to import. Old Pythons must understand it: its syntax
is plain, and it imports nothing of localrun before it knows the version.
"""

import os
import sys


def main() -> None:
    """Do what the first arguments say, and leave the others to `calling`."""
    umask, gate, out, err, outcome, version, path = sys.argv[1:8]
    found = ".".join(map(str, sys.version_info[:2]))
    if found != version:
        execute_other("python" + version)
    del sys.argv[1:8]
    os.umask(int(umask, 8))
    with open(gate) as go:
        if not go.readline():
            sys.exit(125)  # its supervisor was killed
    for log, number in ((out, 1), (err, 2)):
        fd = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(fd, number)
        os.close(fd)
    if found != version:
        refuse(outcome, f"its image has Python {found}, and the function needs {version}: use an image with that")
    # In the place of this file's own folder: localrun as it is outside, then what lies in the run's working folder.
    sys.path[:1] = [os.path.abspath(f"{__file__}/../../.."), *filter(None, path.split("\n"))]
    from localrun.engine.calling import main as call

    call()


def execute_other(name: str) -> None:
    """Begin anew in the Python of that name, if the image has it, too."""
    for folder in os.get_exec_path():
        program = os.path.join(folder, name)
        if os.access(program, os.X_OK) and os.path.basename(sys.executable) != name:
            os.execv(program, [program, *sys.argv])


def refuse(outcome: str, message: str) -> None:
    """Tell the supervisor, and the log, why nothing is called."""
    import json

    sys.stderr.write(f"localrun: {message}\n")
    with open(outcome, "w") as file:
        json.dump({"reason": "FailedToStart", "message": message, "error": None, "traceback": None}, file)
    sys.exit(1)


if __name__ == "__main__":
    main()
