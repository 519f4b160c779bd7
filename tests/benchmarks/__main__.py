"""Runs every benchmark, each in a process of its own: ``python -m tests.benchmarks [NAME ...] [--json]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run those that are named, or all; return how many failed."""
    folder = Path(__file__).parent
    known = sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py"))
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("-")] or known
    if unknown := sorted(set(wanted) - set(known)):
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted:
        print(f"benchmark {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", *options]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
