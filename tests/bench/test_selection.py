"""Names, settings, lists."""

from pathlib import Path

import pytest

from attnbench.bench.catalog import Catalog, open_catalog
from attnbench.bench.error import BadInput, UnknownName
from attnbench.bench.selection import COUNTS, expanded, label, parsed, resolved, split

KNOWN = ["elliptical", "l2", "softmax", "softmax_matched"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("softmax", ["softmax"]),
        ("softmax,l2", ["softmax", "l2"]),
        ("soft*", ["softmax", "softmax_matched"]),
        ("all", KNOWN),
        ("l2,all", ["l2", "elliptical", "softmax", "softmax_matched"]),
        ("elliptical(scaling=mean,gradient=open),l2", ["elliptical(scaling=mean,gradient=open)", "l2"]),
        ("elliptical:scaling=mean,gradient=open,l2", ["elliptical:scaling=mean,gradient=open", "l2"]),
        ("l2,./mine.py:sharpness=3,elliptical", ["l2", "./mine.py:sharpness=3", "elliptical"]),
        ("torchattacks:PGD:steps=3,eps=1,torchattacks:FGSM", ["torchattacks:PGD:steps=3,eps=1", "torchattacks:FGSM"]),
        (
            'torchattacks:PGD(arguments="steps=20,decay=1.0"),l2',
            ['torchattacks:PGD(arguments="steps=20,decay=1.0")', "l2"],
        ),
    ],
)
def test_lists(text: str, expected: list[str]) -> None:
    assert expanded("variant", [text], KNOWN) == expected


@pytest.mark.parametrize(
    ("text", "name", "given"),
    [
        ("elliptical:scaling=mean,gradient=open", "elliptical", {"scaling": "mean", "gradient": "open"}),
        ("torchattacks:PGD", "torchattacks:PGD", {}),
        ("torchattacks:PGD:steps=3", "torchattacks:PGD", {"steps": "3"}),
        ("torchattacks:PGD(steps=3)", "torchattacks:PGD", {"steps": "3"}),
        ("random_metric:draw=resampled, bottom=0.3", "random_metric", {"draw": "resampled", "bottom": "0.3"}),
    ],
)
def test_settings_after_a_colon_or_in_parentheses(text: str, name: str, given: dict[str, str]) -> None:
    assert parsed(text) == (name, given)


def test_a_list_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("softmax  # the reference\n\nl2\n")
    assert expanded("variant", [f"@{tmp_path / 'rows'}", "l2"], KNOWN) == ["softmax", "l2"]
    with pytest.raises(BadInput, match="cannot read the list"):
        expanded("variant", ["@nowhere"], KNOWN)


def test_a_glob_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UnknownName, match="attnbench ls variants"):
        expanded("variant", ["x*"], KNOWN)


def test_settings_take_the_type_of_their_default() -> None:
    defaults = {"strength": 0.6, "steps": 20, "open": False, "scaling": "max"}
    given = parsed("neutreno(strength=1,steps=7,open=true,scaling=mean)").given
    assert resolved("variant", "neutreno", given, defaults, {}) == {
        "strength": 1.0,
        "steps": 7,
        "open": True,
        "scaling": "mean",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scalin": "mean"}, "unknown setting of variant 'v' 'scalin'; did you mean 'scaling'"),
        ({"scaling": "middle"}, "got 'middle', allowed are max, mean"),
        ({"steps": "many"}, "got 'many', a value like 20 is expected"),
        ({"open": "perhaps"}, "got 'perhaps', a value like false is expected"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_fix(given: dict[str, str], message: str) -> None:
    with pytest.raises((UnknownName, BadInput)) as error:
        resolved("variant", "v", given, {"scaling": "max", "steps": 20, "open": False}, {"scaling": ("max", "mean")})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "a b", "a(b", "a(=1)", "a(b)", "(x=1)"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        parsed(text)


def test_labels_show_what_differs_and_read_back() -> None:
    defaults = {"a": 1, "b": False, "c": "x"}
    text = label("v", {"a": 2, "b": True, "c": "x"}, defaults)
    assert text == "v(a=2,b=true)"
    name, given = parsed(text)
    assert resolved("variant", name, given, defaults, {}) == {"a": 2, "b": True, "c": "x"}


def test_commas_inside_parentheses_and_quotes_stay() -> None:
    assert split('a(b=1,c="x,y"), d') == ['a(b=1,c="x,y")', "d"]


COUNT = "allowed are whole numbers from 1"
EPS = "allowed is a number from 0 to 1 such as 0.1 or 8/255"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("shift", "pgd(steps=0)", f"shift 'pgd', setting 'steps': got '0', {COUNT}"),
        ("shift", "square(queries=-1)", f"shift 'square', setting 'queries': got '-1', {COUNT}"),
        ("shift", "apgd_t(targets=0)", f"shift 'apgd_t', setting 'targets': got '0', {COUNT}"),
        ("shift", "random_noise(draws=0)", f"shift 'random_noise', setting 'draws': got '0', {COUNT}"),
        ("shift", "spsa(pairs=0)", f"shift 'spsa', setting 'pairs': got '0', {COUNT}"),
        ("shift", "patch_outlier(patch=0)", f"shift 'patch_outlier', setting 'patch': got '0', {COUNT}"),
        ("shift", "torchattacks:PGD(chunk=0)", f"shift 'torchattacks:PGD', setting 'chunk': got '0', {COUNT}"),
        ("recipe", "fgsm_rs(epochs=0)", f"recipe 'fgsm_rs', setting 'epochs': got '0', {COUNT}"),
        ("recipe", "standard(batch=0)", f"recipe 'standard', setting 'batch': got '0', {COUNT}"),
        ("recipe", "trades(steps=0)", f"recipe 'trades', setting 'steps': got '0', {COUNT}"),
        ("recipe", "fgsm_rs(eps=2)", f"recipe 'fgsm_rs', setting 'eps': got '2', {EPS}"),
        ("recipe", "pgd_at(eps=8/0)", f"recipe 'pgd_at', setting 'eps': got '8/0', {EPS}"),
        ("recipe", "pgd_at(eps=1e999)", f"recipe 'pgd_at', setting 'eps': got '1e999', {EPS}"),
        ("recipe", "trades(eps=much)", f"recipe 'trades', setting 'eps': got 'much', {EPS}"),
        ("recipe", "trades(eps=-0.1)", f"recipe 'trades', setting 'eps': got '-0.1', {EPS}"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_runs(kind: str, text: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        open_catalog().entry(kind, text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("kind", "text", "key", "value"),
    [
        ("shift", "pgd(steps=1)", "steps", 1),
        ("shift", "adversarial_patch(layer=0)", "layer", 0),
        ("variant", "performer(features=0)", "features", 0),
        ("recipe", "trades(eps=8/255)", "eps", "8/255"),
        ("recipe", "trades(eps=0)", "eps", "0"),
        ("recipe", "trades(eps=1)", "eps", "1"),
    ],
)
def test_settings_that_mean_something_pass(kind: str, text: str, key: str, value: object) -> None:
    assert open_catalog().entry(kind, text).settings[key] == value


def test_a_count_of_which_there_is_none_by_default_may_be_none() -> None:
    assert resolved("shift", "mine", {"steps": "0"}, {"steps": 0}, {}) == {"steps": 0}


def test_every_whole_number_of_a_built_in_shift_or_recipe_is_a_count_or_a_place() -> None:
    catalog: Catalog = open_catalog()
    named = {
        key
        for kind in ("shift", "recipe")
        for declared in catalog.found[kind].values()
        for key, value in declared.value.settings.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    assert named - COUNTS == {"layer"}
