"""A protocol says what is meant, and a slip in one is told in one line."""

from pathlib import Path

import pytest

from attnbench.bench.error import BadProtocol, UnknownName
from attnbench.bench.protocol import builtin_protocols, find_protocol, read_protocol

PLAIN = 'name = "mine"\nversion = 1\nquestion = "?"\ntask = "digits"\nrecipe = "smoke"\nvariants = ["softmax"]\n'


def test_built_in_protocols_are_read_and_named_after_themselves() -> None:
    for stem, path in builtin_protocols().items():
        assert read_protocol(path).title == stem
    assert find_protocol("smoke").title == "smoke-2"
    assert find_protocol("digits").draft


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("varaints = ['l2']\n", "unknown key 'varaints'; did you mean 'variants'?"),
        ("[backbone]\nwidth = 3\n", "unknown key 'backbone.width'; did you mean 'depth'?"),
        ("[backbone]\ndim = 10\nheads = 4\n", "dim 10 is not a multiple of heads 4"),
        ("[[shifts]]\nshift = 'pgd'\nseverities = [0.1]\n", "severities are written as text"),
        ("[[shifts]]\nsevrities = ['1']\n", "unknown key 'shifts.0.sevrities'; did you mean 'severities'?"),
        ("[[shifts]]\nseverities = ['1']\n", "the key 'shifts.0.shift' is missing"),
        ("[statistics]\nconfidence = 95\n", "statistics.confidence"),
        ("folds = []\n", "'folds': "),
        ("training_seeds = []\n", "'training_seeds': "),
        ("x = = 1\n", "not valid TOML"),
        ('tracks = "trades"\n', """'tracks': a list is expected, as in tracks = ["trades"]"""),
        ("folds = 0\n", "'folds': a list is expected, as in folds = [0]"),
        (
            '[[shifts]]\nshift = "pgd"\nseverities = "8/255"\n',
            """'shifts.0.severities': a list is expected, as in severities = ["8/255"]""",
        ),
        ('[shifts]\nshift = "pgd"\n', "'shifts': a list of tables is expected, each under [[shifts]]"),
        ('swaps = ["softmax", "l2"]\n', """list of pairs is expected, as in swaps = [["softmax", "elliptical"]]"""),
        ("trust = true\n", "'trust': true is no value here, a value like 128 is expected"),
        ("noise_seed = false\n", "'noise_seed': false is no value here, a value like 0 is expected"),
        ("folds = [true]\n", "'folds': true is no value here"),
        ("[backbone]\ndepth = true\n", "'backbone.depth': true is no value here, a value like 4 is expected"),
    ],
)
def test_a_slip_is_one_line(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(PLAIN + change)
    with pytest.raises(BadProtocol) as error:
        read_protocol(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_protocol_that_is_not_there() -> None:
    with pytest.raises(UnknownName, match=r"unknown protocol 'smok'; did you mean 'smoke'\?"):
        find_protocol("smok")
    with pytest.raises(BadProtocol, match="check the path"):
        find_protocol("nowhere/mine.toml")


def test_truth_values_stay_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(PLAIN + '[backbone]\nname = "timm:x"\npretrained = true\noptions = { qkv_bias = false }\n')
    backbone = read_protocol(path).backbone
    assert (backbone.pretrained, backbone.options) == (True, {"qkv_bias": False})
