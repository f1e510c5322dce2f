"""The table of remedies: ours, those of user code and of installed packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradtui.errors import UsageError
from gradtui.lab.recipe import Recipe
from gradtui.remedies import FAMILIES, REMEDIES, Remedy, choices, find, of_family, register

FOR_YOUR_OWN = {
    "lower-rate", "higher-rate", "epsilon", "check-data", "check-labels", "smaller-init", "add-to-optimizer",
    "unfreeze", "attach", "partial-mask", "scale-loss", "wider-format", "larger-epsilon",
}  # fmt: skip


@pytest.fixture
def mine() -> Iterator[Remedy]:
    remedy = register(Remedy("mine", "my family", "less of it", "it helps", "me", {"hidden": (3,), "init": "he"}))
    yield remedy
    REMEDIES.unregister("mine")


def test_each_remedy_says_what_why_and_whence() -> None:
    assert len(REMEDIES) >= 74 + len(FOR_YOUR_OWN)
    assert set(REMEDIES) >= FOR_YOUR_OWN
    for name, remedy in REMEDIES.items():
        assert remedy.name == name and remedy.family in FAMILIES
        assert remedy.what and remedy.why and remedy.source
    assert {remedy.name for remedy in of_family("training")} == FOR_YOUR_OWN


def test_remedies_are_listed_family_by_family() -> None:
    families = [remedy.family for remedy in of_family()]
    assert list(dict.fromkeys(families)) == list(FAMILIES)
    assert sorted(families, key=list(FAMILIES).index) == families


@pytest.mark.parametrize("name", ["epsilon", "check-data", "check-labels", "add-to-optimizer", "unfreeze", "attach"])
def test_a_remedy_of_training_code_is_refused_by_a_recipe(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is for training code of your own"):
        Recipe().with_remedies("relu", name)


def test_rates_are_scaled_after_the_other_remedies() -> None:
    assert Recipe().with_remedies("lower-rate").rate == pytest.approx(0.1 / 3, rel=1e-5)
    assert Recipe(learning_rate=0.2).with_remedies("higher-rate").rate == pytest.approx(0.6)
    assert Recipe().with_remedies("lower-rate", "adam").rate == pytest.approx(0.001 / 3, rel=1e-5)
    assert Recipe().with_remedies("narrower", "shallower").hidden == (15, 15)


def test_near_names_are_guessed() -> None:
    with pytest.raises(UsageError, match="did you mean batch-norm"):
        find("batchnorm")
    with pytest.raises(UsageError, match="did you mean regularisation"):
        of_family("regularity")


def test_a_remedy_of_user_code_is_listed_and_applied(mine: Remedy) -> None:
    assert find("mine") is mine and of_family("my family") == [mine]
    recipe = Recipe().with_remedies("mine")
    assert (recipe.hidden, recipe.init) == ((3,), "he")
    json.dumps(mine.to_json())
    with pytest.raises(UsageError, match="'relu' already"):
        register(Remedy("relu", "activation", "another", "", ""))


def test_a_choice_keeps_its_first_entry() -> None:
    assert choices("net")["rnn"].name == "rnn"  # `irnn` changes the net to an rnn as well
    assert list(choices("input_scale")) == ["unit", "symmetric", "standardised"]


def test_a_remedy_that_changes_what_no_recipe_has_is_one_line() -> None:
    register(Remedy("odd", "training", "changes nothing that there is", "", "", {"colour": "red"}))
    try:
        with pytest.raises(UsageError, match="odd changes colour, which no recipe has"):
            Recipe().with_remedies("odd")
    finally:
        REMEDIES.unregister("odd")
    with pytest.raises(UsageError, match="Remedy is wanted"):
        register("relu")  # type: ignore[arg-type]


def test_packages_add_remedies_and_a_broken_one_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "good_one.py").write_text(
        "from gradtui.remedies import Remedy, register\n"
        "register(Remedy('fewer', 'training', 'half the images', 'a quick look', 'us', {'train_size': 600}))\n"
    )
    (tmp_path / "bad_one.py").write_text("raise RuntimeError('broken here')\n")
    facts = tmp_path / "some_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[gradtui.remedies]\nbad = bad_one\ngood = good_one\n")
    code = (
        "import sys; from gradtui.remedies import REMEDIES, of_family; from gradtui.lab.recipe import Recipe; "
        "mine = Recipe().with_remedies('fewer'); "
        "print(len(of_family()), 'relu' in REMEDIES, mine.train_size, 'torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ended.stdout.split() == [str(len(REMEDIES) + 1), "True", "600", "False"], ended.stderr
    assert ended.stderr.count("bad_one") == 1 and "broken here" in ended.stderr
