"""Builds an environment with `pip install .` alone, and uses it: sizes, commands, `gradtui run` before another Python.

`python3 .ci/thin_core.py OTHER_PYTHON`: a Python that has torch and numpy. Fails if the core needs what it should not.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from watch_first_bars import read_until

ROOT = Path(__file__).parents[1]
NOT_OURS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")  # of an empty one
NUMPY = ("numpy", "numpy.libs")
MOST_BESIDE_NUMPY = 30  # MB, with compiled bytecode
HEAVY = ("torch", "scipy", "sklearn", "matplotlib", "joblib", "safetensors", "jinja2")
TRAINS = """
    import torch
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(20):
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
"""


def size(path: Path, bytecode: bool = True) -> float:
    """MB of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files if bytecode or file.suffix != ".pyc") / 1e6


def sizes(site: Path) -> None:
    """Print the sizes, and end the program if the core has grown."""
    ours = [path for path in site.iterdir() if not path.name.startswith(NOT_OURS)]
    of_numpy = [path for path in ours if path.name in NUMPY]
    for what, bytecode in (("with compiled bytecode", True), ("as installed by uv, without", False)):
        whole = sum(size(path, bytecode) for path in ours)
        numpy = sum(size(path, bytecode) for path in of_numpy)
        print(f"{whole:.0f} MB beyond Python {what}: numpy {numpy:.0f}, everything else {whole - numpy:.0f}")
        if bytecode and whole - numpy > MOST_BESIDE_NUMPY:
            sys.exit(f"more than {MOST_BESIDE_NUMPY} MB beside numpy")
    heavy = [path.name for path in ours if path.name in HEAVY]
    if heavy:
        sys.exit(f"the core brings {', '.join(heavy)}")


def attach(python: Path, env: dict[str, str]) -> None:
    """Look at the run in the viewer, in a pseudo-terminal, and leave it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            str(python), [str(python), "-m", "gradtui", "attach"], {**env, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        )
    bars = "█".encode()
    seen = read_until(terminal, (bars,), 60.0)
    os.write(terminal, b"q")
    read_until(terminal, (b"nothing more to come",), 10.0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code or bars not in seen:
        sys.exit(f"gradtui attach: exit code {code}\n{seen.decode(errors='replace')[-2000:]}")


def main(other: Path) -> int:
    """Build and check; 0 if all is as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run([sys.executable, "-m", "venv", str(place / "env")], check=True)
        python = place / "env" / "bin" / "python"
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt", "."]
        subprocess.run([str(python), *install], cwd=ROOT, check=True)
        sizes(next((place / "env" / "lib").glob("python*/site-packages")))
        (place / "train.py").write_text(textwrap.dedent(TRAINS))
        env = {"PATH": os.environ["PATH"], "HOME": folder, "GRADTUI_DIR": str(place / "runs")}

        def expect(code: int, says: str, *words: str) -> None:
            command = [str(python), "-m", "gradtui", *words]
            done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
            if done.returncode != code or says not in done.stdout + done.stderr:
                sys.exit(f"gradtui {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")

        expect(0, "train", "run", "--every", "1", str(other), "train.py")
        expect(0, "train", "runs")
        expect(0, "finished, 20 steps", "report")
        attach(python, env)
        expect(0, "xavier", "remedies")
        expect(0, "--hidden", "train", "--help")
        expect(6, "pip install 'gradtui[lab]'", "train", "--headless")
        expect(6, "pip install 'gradtui[lab]'", "train", "--detach")
        expect(6, "pip install 'gradtui[lab]'", "compare", "remedies", "--epochs", "1")
    print(
        "gradtui run, runs, report, attach, remedies and help work without torch; train and compare say how to add it"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
