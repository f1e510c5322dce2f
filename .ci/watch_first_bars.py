"""Runs README's first command in a pseudo-terminal, waits for bars, stops the training, and checks the exit code."""

import fcntl
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time

INSTALL_AND_BARS = 600.0  # s
LEAVING = 30.0  # s


def read_until(terminal: int, texts: tuple[bytes, ...], seconds: float) -> bytes:
    """What comes until one of the texts has come, or the program has ended."""
    seen, end = b"", time.monotonic() + seconds
    while not any(text in seen for text in texts) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:
                break
    return seen


def main() -> int:
    """Run the command that is given; 0 if bars came and the program left as it should."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", LANG="C.UTF-8", GRADTUI_DIR=tempfile.mkdtemp())
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.execvp("bash", ["bash", "-c", sys.argv[1]])
    seen = read_until(terminal, ("█".encode(),), INSTALL_AND_BARS)
    if "█".encode() not in seen:
        print(seen.decode(errors="replace")[-3000:])
        print("no bars were drawn")
        return 1
    os.write(terminal, b"q")
    read_until(terminal, (b"still training",), LEAVING)
    os.write(terminal, b"s")
    read_until(terminal, (b"was asked to stop",), LEAVING)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    print(f"bars were drawn; the viewer left with exit code {code}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
