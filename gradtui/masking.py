"""Masks secrets in a command line, or in any text, before it is stored or shown: by name, and by their form."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
ALWAYS = ("password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "apikey")
AT_THE_END = ("key", "token", "auth", "authorization", "bearer", "cookie")  # `--key-dim` is no key
ENDINGS = ("apikey", "accesskey", "secretkey", "authkey", "privatekey", "token", "password", "secret")
LEAST = 32  # characters of a word without spaces that may be a token

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # of api_key, api-key, apiKey or API_KEY
_ASSIGNMENT = re.compile(r"(?s)(-{0,2}[\w.+-]+)=(.*)")
_INSIDE = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]{1,80})(?P<between>["']?\s*[:=]\s*["']?)(?P<value>[^\s"'&,;}\])]+)"""
)
_URL = re.compile(r"(?P<before>\w://[^\s/@:]*):(?P<value>[^\s/@]+)@")
_HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")
_KNOWN = re.compile(
    r"\b(hf_[A-Za-z0-9]{8,}|sk-[\w-]{8,}|gh[pousr]_\w{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}|xox[a-z]-[\w-]{8,}"
    r"|A[KS]IA[0-9A-Z]{12,}|AIza[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|npm_\w{20,}|pypi-[\w-]{16,})"
)
_LONG = re.compile(rf"(?<![\w+/.-])[A-Za-z0-9+/]{{{LEAST},}}={{0,2}}(?![\w+/.-])")
_HEX = re.compile(rf"(?i)\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{{{LEAST},}}\b")


def masked(words: Sequence[str]) -> list[str]:
    """The words of a command line without its secrets: `--api-key=…`, `--api-key …`, `TOKEN=…`, user:password@host."""
    found: list[str] = []
    is_value = False
    for word in words:
        if is_value and not word.startswith("-"):
            found.append(MASK)
            is_value = False
            continue
        assigned = _ASSIGNMENT.fullmatch(word)
        if assigned and _names_secret(assigned[1]):
            found.append(f"{assigned[1]}={MASK}" if assigned[2] else word)
        else:
            found.append(masked_text(word))
        is_value = word.startswith("-") and assigned is None and _names_secret(word)
    return found


def masked_text(text: str) -> str:
    """A text without what is assigned to a secret's name in it, and without what looks like a token."""
    text = _URL.sub(rf"\g<before>:{MASK}@", text)
    text = _HEADER.sub(rf"\1 {MASK}", text)
    text = _INSIDE.sub(_mask_value, text)
    text = _KNOWN.sub(MASK, text)
    text = _HEX.sub(MASK, text)
    return _LONG.sub(lambda found: MASK if _looks_random(found[0]) else found[0], text)


def _mask_value(found: re.Match[str]) -> str:
    if not _names_secret(found["name"]) or found["value"].startswith("//"):
        return found[0]
    return f"{found['name']}{found['between']}{MASK}"


def _names_secret(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name) if not word.isdigit()]
    if not words:
        return False
    return any(word in ALWAYS for word in words) or words[-1] in AT_THE_END or words[-1].endswith(ENDINGS)


def _looks_random(word: str) -> bool:
    """Whether lower case, upper case and digits take turns as they do in no word or path."""
    kinds = ["a" if c.islower() else "A" if c.isupper() else "0" if c.isdigit() else "/" for c in word]
    turns = sum(kinds[i] != kinds[i + 1] for i in range(len(kinds) - 1))
    return {"a", "A", "0"} <= set(kinds) and turns >= len(word) / 4
