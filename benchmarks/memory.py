"""How much memory pretraining takes on data that do not fit: a sparse .npy file of 20 GB, two layers, one epoch each.

    python benchmarks/memory.py [--gigabytes 20] [--folder /tmp]

The file takes no room on the disk: it is a hole. Printed is the largest resident memory of the whole command, which the
operating system counts, pages of the mapped file among it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COLUMNS = 4096
LIMIT = 2.0  # gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "hole.npy"
        rows = int(options.gigabytes * 1e9 / 4 / COLUMNS)
        np.lib.format.open_memmap(path, "w+", np.float32, (rows, COLUMNS))
        started = time.monotonic()
        command = [sys.executable, "-m", "pretrain", "fit", str(Path(folder) / "stack"), "--data", str(path)]
        subprocess.run([*command, "--layers", "64,32", "--epochs", "1", "--batch-size", "1000"], check=True)
        minutes = (time.monotonic() - started) / 60
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"{options.gigabytes:g} GB, {rows:,} rows\tlargest resident memory {peak:.2f} GB\t{minutes:.1f} minutes")
    sys.exit(peak > LIMIT)


if __name__ == "__main__":
    main()
