"""What `localrun --help` and `import localrun` cost beside `python -c pass`.

    python tests/benchmarks/startup.py [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys

from rounds import interleaved, report


def run(*code: str) -> None:
    """One fresh interpreter."""
    subprocess.run([sys.executable, *code], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    """Measure in the same rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 31
    program = "import sys; sys.argv = ['localrun', '--help']; from localrun.cli.main import main; sys.exit(main())"
    medians = interleaved(
        rounds,
        python=lambda: run("-c", "pass"),
        help=lambda: run("-c", program),
        import_localrun=lambda: run("-c", "import localrun"),
    )
    report(f"start-up, {rounds} rounds", medians, "python", 4)


if __name__ == "__main__":
    main()
