"""Is the viewer quick to start, light on the processor, and light on the link?

    python benchmarks/viewer.py            # all three tables
    python benchmarks/viewer.py --start    # exec to the first painted frame ÷ the same of a bare Textual app
    python benchmarks/viewer.py --load     # share of a core and bytes a second, 50 and 1,000 layers at 10 Hz

Everything goes through a real pseudo-terminal of 120×40; absolute times depend on the machine, the ratio much less.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("painted")
Bare().run()
"""
WRITE = """
import sys, time
from pathlib import Path
from tests.synthetic import MEASURES, header, layers, speeds
from gradtui.runfile import RunWriter
count, seconds = int(sys.argv[2]), float(sys.argv[3])
writer = RunWriter(Path(sys.argv[1]), header(), MEASURES)
writer.set_layers(layers(count))
end, step = time.time() + seconds, 0
while time.time() < end:
    step += 1
    writer.step(step, step / 100, step / 10, 1 / step, 0.1, (speeds(step * 7, count) * (1 + step % 5 / 20)).tobytes())
    time.sleep(0.1)
"""


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, command: list[str], *, width: int = 120, height: int = 40) -> None:
        self.started = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", LANG="C.UTF-8")
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
            os.execvp(command[0], command)

    def read(self, seconds: float, until: bytes | None = None) -> bytes:
        """What it writes within a time, or until some text has come."""
        end, seen = time.perf_counter() + seconds, b""
        while (left := end - time.perf_counter()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    seen += os.read(self.fd, 1 << 16)
                except OSError:
                    break
                if until is not None and until in seen:
                    break
        return seen

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident memory in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self) -> None:
        os.kill(self.pid, 15)
        self.read(2.0)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def first_frame(command: list[str], text: bytes) -> float:
    """Seconds from exec until `text` is painted."""
    terminal = Terminal(command)
    seen = terminal.read(20.0, until=text)
    took = time.perf_counter() - terminal.started
    terminal.close()
    if text not in seen:
        raise SystemExit(f"{command} never painted {text!r}")
    return took


def start(pairs: int, folder: Path) -> None:
    gradtui = str(Path(sys.executable).with_name("gradtui"))
    rivals = {
        "gradtui (Home)": ([gradtui], b"Experiments"),
        "gradtui attach (Run)": ([gradtui, "attach"], b"Opening"),
    }
    os.environ["GRADTUI_DIR"] = str(folder)
    bare = [sys.executable, "-c", BARE]
    title = f"exec to the first painted frame, {pairs} alternating pairs"
    print(f"{title:<52} {'bare':>10} {'ours':>9}     ratio (median, min … max)")
    for name, (command, text) in rivals.items():
        first_frame(bare, b"painted"), first_frame(command, text)  # warm the file cache
        times = [(first_frame(bare, b"painted"), first_frame(command, text)) for _ in range(pairs)]
        ratios = sorted(ours / theirs for theirs, ours in times)
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        print(
            f"{name:<52} {medians[0]:8.3f} s {medians[1]:7.3f} s   "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"
        )


def load(seconds: float, folder: Path) -> None:
    title = f"every value changing at 10 Hz, {seconds:.0f} s"
    print(f"{title:<52} {'of a core':>12} {'bytes/s':>12} {'resident':>11}")
    for count in (50, 1000):
        path = folder / f"live{count}.gradtui"
        here = Path(__file__).parents[1]
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(count), str(seconds + 20)], cwd=here)
        while not path.exists():
            time.sleep(0.1)
        time.sleep(1.0)
        _measure(f"{count} layers", path, seconds)
        writer.kill()
        writer.wait()
        if count == 50:
            _measure("nothing changes (the training has ended)", path, seconds)


def _measure(name: str, path: Path, seconds: float) -> None:
    terminal = Terminal([str(Path(sys.executable).with_name("gradtui")), "attach", str(path)])
    terminal.read(5.0)
    cpu, began = terminal.cpu(), time.perf_counter()
    written = len(terminal.read(seconds))
    took = time.perf_counter() - began
    print(
        f"{name:<52} {100 * (terminal.cpu() - cpu) / took:10.1f} % {written / took:12,.0f} {terminal.memory():8.0f} MB"
    )
    terminal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    everything = not (options.start or options.load)
    with tempfile.TemporaryDirectory() as folder:
        from tests.synthetic import make_run

        make_run(Path(folder) / "ended.gradtui", count=8, steps=2000)
        if options.start or everything:
            start(options.pairs, Path(folder))
        if options.load or everything:
            load(options.seconds, Path(folder))


if __name__ == "__main__":
    main()
