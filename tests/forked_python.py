"""A Python in which torch is loaded already: each process that a test asks for is forked from it, in milliseconds.

Nearly half of the suite's processor time was `import torch` in processes of its own. A forked process runs a script, a
module (`-m`) or code (`-c`) as a new interpreter would: with its own arguments, environment, folder, streams and exit
code, and the `sitecustomize` that PYTHONPATH names first. `import torch` is a true import there, hooks and all, which
finds the module loaded; nothing else is. Used as a program, this file is the process that forks.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# -- in the test --------------------------------------------------------------------------------------------------


class ForkedProcess:
    """As `subprocess.Popen` with `pid`, `wait`, `poll`, `send_signal`, `kill`; a context manager that kills."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid, self.returncode = pid, None
        self._connection = connection

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                data = self._connection.recv(4)
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired(["python"], timeout or 0.0) from error
            self.returncode = struct.unpack("i", data)[0]
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait(20)


@functools.cache
def _server() -> str:
    """The address of this process's own one, started when it is first asked for."""
    folder = tempfile.TemporaryDirectory(prefix="gradtui-tests-")
    address = str(Path(folder.name) / "socket")
    # its standard input ends with this process, and with it the server
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    atexit.register(_end, server, folder)
    return address


def _end(server: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
    folder.cleanup()


def start(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | Path | None = None,
    stdin: int | None = None, stdout: int | None = None, stderr: int | None = None,
) -> ForkedProcess:  # fmt: skip
    """Start `python ARGUMENTS`; the streams are descriptors, by default those of the tests."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    request = {"arguments": list(map(str, arguments)), "env": dict(env or os.environ), "cwd": str(cwd or Path.cwd())}
    data = json.dumps(request).encode()
    with Path(os.devnull).open("rb") as nothing:
        streams = [nothing.fileno() if stdin is None else stdin, stdout or 1, stderr or 2]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        connection.sendmsg([struct.pack("i", len(data)) + data], ancillary)
        return ForkedProcess(connection, struct.unpack("i", connection.recv(4))[0])


def run(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | Path | None = None,
    input: str = "", timeout: float = 60.0, check: bool = False,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True, …)`."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(input)
        given.seek(0)
        streams = {"stdin": given.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
        with start(arguments, env=env, cwd=cwd, **streams) as process:
            code = process.wait(timeout)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
    if check and code:
        raise subprocess.CalledProcessError(code, list(arguments), *texts)
    return subprocess.CompletedProcess(list(arguments), code, *texts)


def run_ranks(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | Path | None = None,
    count: int = 2, timeout: float = 100.0,
) -> list[subprocess.CompletedProcess[str]]:  # fmt: skip
    """As many processes of one distributed training as `torchrun --nproc-per-node COUNT` starts, and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    together |= {"LOCAL_WORLD_SIZE": str(count)}

    def run_one(rank: int) -> subprocess.CompletedProcess[str]:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return run(arguments, env={**(env or os.environ), **together, **own}, cwd=cwd, timeout=timeout)

    _server()  # before the threads ask for it
    with ThreadPoolExecutor(count) as ranks:
        return list(ranks.map(run_one, range(count)))


# -- the process that forks ---------------------------------------------------------------------------------------


def _serve(address: str) -> None:
    import torch

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([0, listener], [], [])
        if 0 in ready:  # the tests have ended
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _look_after(connection, torch)
            os._exit(0)
        connection.close()


def _look_after(connection: socket.socket, torch: Any) -> None:
    """Fork once more, and tell the test which process it is and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_LEN(12))
    streams = list(array.array("i", ancillary[0][2]))
    data = b""
    while len(data) < struct.unpack("i", head)[0]:
        data += connection.recv(1 << 20)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        _become(request, torch)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(struct.pack("i", pid))
        connection.sendall(struct.pack("i", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def _become(request: dict[str, Any], torch: Any) -> None:
    """Be the interpreter that was asked for; does not return."""
    arguments: list[str] = request["arguments"]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    os.setpgid(0, 0)
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode, buffering=1) for n, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115, PTH123
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        torch.set_num_threads(int(threads))
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    sys.orig_argv = [sys.executable, *arguments]
    _forget_torch(torch)
    code = 0
    try:
        _start_up(path)
        _execute(arguments)
    except SystemExit as exit:
        code = _code_of(exit)
    except BaseException as error:
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
        sys.excepthook(type(error), error, error.__traceback__)
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    _leave(code)


def _code_of(exit: SystemExit) -> int:
    if exit.code is None or isinstance(exit.code, int):
        return exit.code or 0
    print(exit.code, file=sys.stderr)
    return 1


def _leave(code: int) -> None:
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


def _forget_torch(torch: Any) -> None:
    """Let the next `import torch` be a true one, which finds the module as it is."""
    import importlib.machinery

    spec = torch.__spec__

    class Loaded:
        @staticmethod
        def create_module(_: Any) -> Any:
            return torch

        @staticmethod
        def exec_module(_: Any) -> None:
            pass

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name != "torch":
                return None
            found = importlib.machinery.ModuleSpec("torch", Loaded(), origin=spec.origin, is_package=True)  # type: ignore[arg-type]
            found.submodule_search_locations = list(spec.submodule_search_locations)
            return found

    del sys.modules["torch"]
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def _start_up(path: list[str]) -> None:
    """What `site` does at the start of an interpreter with this PYTHONPATH."""
    for folder in path:
        file = Path(folder) / "sitecustomize.py"
        if file.is_file():
            import importlib.util

            spec = importlib.util.spec_from_file_location("sitecustomize", file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules["sitecustomize"] = module
            spec.loader.exec_module(module)
            return


def _execute(arguments: list[str]) -> None:
    import runpy

    what, rest = arguments[0], arguments[1:]
    if what == "-c":
        sys.argv, sys.path[:0] = ["-c", *rest[1:]], [""]
        module = type(sys)("__main__")
        sys.modules["__main__"] = module
        exec(compile(rest[0], "<string>", "exec"), vars(module))
    elif what == "-m":
        sys.argv, sys.path[:0] = rest, [os.getcwd()]  # noqa: PTH109
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:0] = arguments, [str(Path(what).resolve().parent)]
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
