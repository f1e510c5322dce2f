"""Does recording survive what happens to processes, disks and files, and does the training never notice?

    python benchmarks/faults.py --kills 1000 --disk 200 --fuzz 100000 --seed 1

--kills N   SIGKILL of a training, of `gradtui run` around it, of its viewer, and of all together, at random times
--disk N    trouble with the disk and the file, each kind in turn; the weights must be those of an unrecorded training
--fuzz N    mutated run files, checkpoints and data files through every reader

Prints a table, and exits with 1 if a promise is broken. A thousand kills take about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

PARTS = {"kills": "fault_kills", "disk": "fault_disk", "fuzz": "fault_fuzz"}


def main() -> int:
    """Run the parts that are asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in PARTS:
        parser.add_argument(f"--{part}", type=int, default=0, metavar="N", help=f"how many {part} cases")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    options = parser.parse_args()
    broken = False
    for part, module in PARTS.items():
        count = getattr(options, part)
        if count:
            began = time.monotonic()
            results = importlib.import_module(module).run(count, options.seed)
            print(f"\n{part}: {count:,} cases in {time.monotonic() - began:.0f} s, seed {options.seed}")
            for one in results:
                print(f"  {'ok    ' if one.ok else 'BROKEN'}  {one.name:28} {one.figure}")
                broken |= not one.ok
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main())
