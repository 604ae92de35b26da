"""A block of a program as a run: its output is kept, and found again by name."""

import statistics
import subprocess
import sys

import localrun


def main() -> None:
    with localrun.run(name="prep"):
        numbers = [n * n for n in range(10)]
        print("mean of the squares:", statistics.mean(numbers))
        subprocess.run([sys.executable, "-c", "print('and a subprocess')"], check=True)

    prep = localrun.run(name="prep")
    print(f"{prep.name}: {prep.status}, {len(prep.stdout().splitlines())} lines in {prep.path}")

    try:
        with localrun.run(name="broken"):
            raise ValueError("no such column")
    except ValueError:
        print(f"broken: {localrun.run(name='broken').error}")


if __name__ == "__main__":
    main()
