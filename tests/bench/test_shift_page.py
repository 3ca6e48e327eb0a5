"""The page of shifts says what the declarations say, and the committed one is what they give now."""

from attnbench.attacks.adversarial.foreign import FOREIGN
from attnbench.attacks.shift import Shift
from attnbench.bench.catalog import ROOT, open_catalog
from attnbench.bench.shift_page import COMMAND, PAGE, built_in_shifts, shift_page

RICH = Shift(
    name="rich",
    apply=lambda: None,
    family="adversarial",
    source="Who 2024, arXiv:2406.13770",
    version=1,
    summary="It moves a|b.",
    severities=("1/255", "2/255"),
    unit="eps (L-inf, pixels)",
    ladder=True,
    norm="linf",
    knowledge="white_box",
    requires="attention_logits",
    minimum_norm=True,
    convention="Some paper",
    warning="Doubt it.",
    settings={"norm": "linf", "steps": 3},
    choices={"norm": ("linf", "l2")},
)


def test_the_committed_page_is_current() -> None:
    assert (ROOT / PAGE).read_text() == shift_page(built_in_shifts(open_catalog())), f"run `{COMMAND} > {PAGE}`"


def test_every_field_that_a_reader_needs_is_there() -> None:
    (line,) = (line for line in shift_page([RICH]).splitlines() if line.startswith("| `rich`"))
    cells = [cell.strip() for cell in line.replace(r"\|", "\0").split("|")[1:-1]]
    assert cells == [
        "`rich`<br>`norm=linf or l2`<br>`steps=3`",
        "It moves a\0b.",
        "white box",
        "linf or l2",
        "1/255, 2/255; a ladder (eps (L-inf, pixels))",
        "Who 2024, [arXiv:2406.13770](https://arxiv.org/abs/2406.13770)",
        "Non-standard: the convention of Some paper; never in a worst case or a ranking. It looks for the smallest "
        "perturbation, once; severities only cut what it found. Not applicable to a model that does not show its "
        "attention logits. Doubt it.",
    ]


def test_every_attack_of_torchattacks_is_listed_with_its_warning() -> None:
    lines = shift_page([]).splitlines()
    for name, row in FOREIGN.items():
        (line,) = (line for line in lines if line.startswith(f"| `torchattacks:{name}` "))
        assert line.endswith("- |") is (row.warning == "")
