"""The built-in trainings: recipes, nets, and the loop that trains and records them."""

from __future__ import annotations

from importlib.util import find_spec

from gradtui.errors import ExtraMissingError

_LIBRARIES = ("torch", "sklearn", "scipy", "joblib", "matplotlib", "jinja2")


def check_installed() -> None:
    """Raise `ExtraMissingError` if a library that trainings need is not installed; imports none of them."""
    for library in _LIBRARIES:
        if find_spec(library) is None:
            raise ExtraMissingError(library, "lab", ModuleNotFoundError(f"No module named {library!r}"))
