"""Secrets of a command line are neither stored nor shown."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from gradtui import cli
from gradtui.masking import MASK, masked, masked_text
from gradtui.recorded_command import name_of
from tests.forked_python import run
from tests.synthetic import make_run

SECRET = "correct-horse"
TOKENS = (
    "hf_" + "aB3" * 11,
    "sk-proj-" + "x7" * 12,
    "ghp_" + "A1b2" * 9,
    "AKIA" + "IOSFODNN7EXAMPLE",
    "xoxb-12345678901-abcdefg",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "0123456789abcdef0123456789abcdef01234567",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)


@pytest.mark.parametrize(
    "words",
    [
        [f"--api-key={SECRET}"],
        ["--api-key", SECRET],
        ["--apiKey", SECRET],
        ["--wandb_api_key", SECRET],
        ["--token", SECRET, "--epochs", "3"],
        [f"--password=two {SECRET}"],
        ["--secret-of-mine", SECRET],
        ["-e", f"TOKEN={SECRET}"],
        [f"WANDB_API_KEY={SECRET}"],
        [f"+logger.api_key={SECRET}"],
        [f"--url=https://me:{SECRET}@example.com/x"],
        [f"https://example.com/?a=1&access_token={SECRET}&b=2"],
        ["--header", f"Authorization: Bearer {SECRET}"],
        ["--config", json.dumps({"api_key": SECRET, "lr": 0.1})],
        ["-c", f"import x; x.login(token='{SECRET}')"],
        ["-c", f'password = "{SECRET}"\ntrain()'],
    ],
)
def test_a_secret_is_masked_by_its_name(words: list[str]) -> None:
    found = masked(["python", *words, "--last", "1"])
    assert SECRET not in " ".join(found) and MASK in " ".join(found)
    assert found[0] == "python" and found[-2:] == ["--last", "1"] and len(found) == len(words) + 3


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_masked_wherever_it_stands(token: str) -> None:
    assert masked(["python", token]) == ["python", MASK]
    assert token not in " ".join(masked(["python", f"--model={token}", f"see {token}!"]))
    assert masked_text(f"HTTPError: 401 for {token}") == f"HTTPError: 401 for {MASK}"


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--lr", "1e-3", "--key-dim=64", "--num-key-value-heads", "8", "--max-tokens", "512"],
        ["/home/me/Projects/Llama3/Experiments2024/TrainLargeModel/train.py", "--tokenizer", "gpt2"],
        ["--model", "meta-llama/Llama-3.2-11B-Vision-Instruct-Finetuned-On-Everything", "--monkey", "1"],
        ["torchrun", "--nproc-per-node=8", "--rdzv-endpoint=host:29400", "-m", "pkg.train", "model.hidden=[512,512]"],
        ["--token="],
    ],
)
def test_what_is_no_secret_stays(words: list[str]) -> None:
    assert masked(words) == words


def test_neither_the_run_file_nor_a_report_has_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import torch, gradtui\nnet = torch.nn.Linear(2, 1)\noptimizer = torch.optim.SGD(net.parameters(), 0.1)\n"
        "with gradtui.watch(net, optimizer, name='a'):\n    net(torch.ones(1, 2)).sum().backward(); optimizer.step()\n"
        f"    raise ValueError('no such user: {TOKENS[0]}')\n"
    )
    (tmp_path / "train.py").write_text(code)
    run([str(tmp_path / "train.py"), "--api-key", SECRET, TOKENS[1]], cwd=tmp_path)
    (path,) = (tmp_path / "runs").glob("*.gradtui")
    content = path.read_bytes()
    assert b"ValueError: no such user: ***" in content
    assert not any(word.encode() in content for word in (SECRET, *TOKENS[:2]))
    old = make_run(tmp_path / "old.gradtui", command=[sys.executable, "train.py", f"--api-key={SECRET}"]).path
    assert SECRET in str(sqlite3.connect(old).execute("SELECT value FROM header WHERE key = 'command'").fetchall())
    for words in (["report"], ["report", "--json"]):
        assert cli.main([*words, str(old)]) == 0
        assert SECRET not in capsys.readouterr().out
    assert SECRET not in name_of(["launch", "--token", SECRET, "job"])
