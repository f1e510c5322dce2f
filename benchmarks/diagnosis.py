"""How well the diagnosis does: 40 sick nets and 40 healthy ones, made by seed, trained and recorded as a user would.

    python benchmarks/diagnosis.py [--keep FOLDER] [--again FOLDER] [--held-out] [--details]

Every second net of each kind, by its seed, is held out: the thresholds of `gradtui.diagnosis` were set with the other
half in view, and the held-out half is shown with --held-out alone. Half of the nets of each half are recorded at every
step, half within the default budget. Each step waits 5 ms for its data: else a training would be over within 0.2 s, and
1 % of that is enough for two or three rows, or for one look at the activations.

A healthy net with any finding that is not a note is a false alarm. Each net is checked, without the recorder, to be
what it is said to be. Where a NaN began is told by an oracle: the same training once more, unrecorded, with hooks on
every module and a look at every gradient in every step.

The targets: nine of ten sick nets found, at most one healthy one in twenty with a finding, every NaN's layer and step
right. The sick nets held out are of other recipes than those in view, but for
update-too-large, update-too-small, plateau and not-updating.

The findings are those that the recorder stored while the nets were trained. --keep leaves the run files in a folder,
--again diagnoses them again, by the thresholds of today, without training.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diagnosis_nets.broken import Oracle
from diagnosis_nets.healthy import HEALTHY
from diagnosis_nets.sick import SICK
from diagnosis_nets.training import Draw, Training

from gradtui.diagnosis import Finding, Thresholds, diagnose
from gradtui.options import RecordOptions
from gradtui.record.watching import start_recording

# in the order that the seeds of the nets go by
KINDS = (
    "nan",
    "exploding",
    "vanishing",
    "dead",
    "saturated",
    "update-too-large",
    "update-too-small",
    "plateau",
    "not-updating",
)
LEAST_RECALL, MOST_ALARMS = 0.9, 0.05
WAIT = 0.005  # s
HEALTHY_SEEDS = 2 * len(HEALTHY)


@dataclass(frozen=True)
class Net:
    """One of the eighty. `kind` is one of `KINDS`, or "healthy"; `seed` counts within the kind."""

    kind: str
    seed: int

    @property
    def held_out(self) -> bool:
        return self.seed % 2 == 1

    @property
    def every(self) -> int | None:
        """How it is recorded: at each step, or as often as the default budget allows."""
        return 1 if (self.seed // 2 + self.seed) % 2 == 0 else None

    @property
    def recipe(self) -> str:
        return (HEALTHY[self.seed // 2] if self.kind == "healthy" else SICK[self.kind][self.seed]).__name__

    @property
    def file(self) -> str:
        return f"{self.kind}-{self.seed:02}.run"

    def make(self) -> Training:
        """The training, always the same."""
        number = len(KINDS) if self.kind == "healthy" else KINDS.index(self.kind)
        torch.manual_seed(1000 * number + self.seed)
        make = HEALTHY[self.seed // 2] if self.kind == "healthy" else SICK[self.kind][self.seed]
        return make(Draw(number, self.seed))


NETS = [Net(kind, seed) for kind in KINDS for seed in range(len(SICK[kind]))] + [
    Net("healthy", seed) for seed in range(HEALTHY_SEEDS)
]


def train(net: Net, folder: Path) -> None:
    """Train and record a net, and write beside its run file what the oracle says of a NaN."""
    training = net.make()
    path = folder / net.file
    path.unlink(missing_ok=True)
    models = training.watched or training.model
    optimizers = training.optimizers or training.optimizer
    loss = training.loss

    def waiting(step: int) -> torch.Tensor:
        time.sleep(WAIT)
        return loss(step)

    training.loss = waiting
    with start_recording(models, optimizers, RecordOptions(every=net.every), path=path):
        losses = training.run()
    if not training.is_fair(losses):
        raise SystemExit(f"{net} ({net.recipe}) is not what it is said to be; losses {losses[:3]} … {losses[-3:]}")
    if net.kind == "nan":
        again = net.make()
        oracle = Oracle(again.model)
        again.run(oracle.look)
        if oracle.found is None or again.fault not in (None, oracle.found):
            raise SystemExit(f"{net} ({net.recipe}): the oracle found {oracle.found}, the fault is {again.fault}")
        (folder / f"{net.file}.json").write_text(json.dumps(oracle.found))


def is_right(finding: Finding, net: Net, folder: Path) -> bool:
    """True if a NaN's layer and step are what the oracle says."""
    layer, step = json.loads((folder / f"{net.file}.json").read_text())
    return finding.layers == (() if layer is None else (layer,)) and finding.begin == step


def report(title: str, nets: Sequence[Net], folder: Path, details: bool, limits: Thresholds | None) -> bool:
    """Print the table of a half; true if it reaches the targets."""
    found_in = {net: diagnose(folder / net.file, limits) for net in nets}
    findings = {net: [one for one in found if not one.cleared] for net, found in found_in.items()}
    print(f"\n{title}\n{'kind':18}{'nets':>6}{'found':>7}{'recall':>9}")
    hits = total = 0
    for kind in KINDS:
        own = [net for net in nets if net.kind == kind]
        found = sum(any(f.kind == kind and not f.note for f in findings[net]) for net in own)
        hits, total = hits + found, total + len(own)
        print(f"{kind:18}{len(own):6}{found:7}{found / len(own):9.0%}")
    print(f"{'all':18}{total:6}{hits:7}{hits / max(1, total):9.0%}")
    healthy = [net for net in nets if net.kind == "healthy"]
    alarms = [net for net in healthy if any(not f.note for f in findings[net])]
    print(f"healthy: {len(healthy)} nets, {len(alarms)} false alarms ({len(alarms) / len(healthy):.0%})")
    broken = [net for net in nets if net.kind == "nan"]
    right = [net for net in broken for f in findings[net] if f.kind == "nan" and is_right(f, net, folder)]
    print(f"NaN: module and step right for {len(right)} of {len(broken)}")
    for net in nets:
        missed = not any(f.kind == net.kind for f in findings[net]) and net.kind != "healthy"
        if details or missed or net in alarms or (net in broken and net not in right):
            print(f"  {net.kind} {net.seed} {net.recipe}, {'every step' if net.every else 'budget'}")
            if net in broken and net not in right:
                print("     the oracle:", (folder / f"{net.file}.json").read_text())
            for finding in findings[net]:
                print("    ", finding, "(note)" if finding.note else "")
    return hits >= LEAST_RECALL * total and len(alarms) <= MOST_ALARMS * len(healthy) and len(right) == len(broken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="leave the run files in this folder")
    parser.add_argument("--again", type=Path, help="diagnose the run files in this folder again")
    parser.add_argument("--held-out", action="store_true", help="show the held-out half too")
    parser.add_argument("--details", action="store_true", help="show every finding")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="train these kinds alone, with --keep")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.again or options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for net in NETS if options.again is None else ():
            if options.only and net.kind not in options.only:
                continue
            begin = time.monotonic()
            train(net, folder)
            print(f"{net.kind} {net.seed} {net.recipe}: {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
        if options.only:
            return
        halves = {"Thresholds set on": [net for net in NETS if not net.held_out]}
        if options.held_out:
            halves["Held out"] = [net for net in NETS if net.held_out]
        limits = Thresholds() if options.again else None
        good = [report(title, nets, folder, options.details, limits) for title, nets in halves.items()]
    print(f"\n{time.monotonic() - started:.0f} s")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
