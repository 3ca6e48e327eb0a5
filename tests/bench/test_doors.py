"""What a user brings: settings, files, weights, whole networks from a file or from Python, and a swap of mechanisms."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attnbench.bench import api
from attnbench.bench.catalog import open_catalog
from attnbench.bench.error import AttnbenchError, BadDeclaration, BadInput, BadProtocol
from attnbench.bench.evaluation import fingerprint
from attnbench.bench.key import key_of
from attnbench.bench.plan import make_plan
from attnbench.bench.protocol import find_protocol, read_swap
from attnbench.models.sight import sight
from attnbench.models.swap import exchange, logit_change, perturb
from attnbench.models.variants.elliptical import ELLIPTICAL
from attnbench.models.variants.gated import GATED
from attnbench.models.variants.quest import QUEST
from attnbench.models.variants.random_metric import RANDOM_METRIC
from attnbench.models.variants.softmax import SOFTMAX
from attnbench.models.variants.static_metric import STATIC_METRIC
from attnbench.models.vit import VisionTransformer, VisionTransformerShape, build

PLUGIN = str(Path(__file__).parent.parent / "plugins" / "sharper.py")
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(10, 64, generator=generator))

    def forward(self, pixels):
        return pixels.flatten(1) @ self.weight.T


def build():
    return Net(0)


def other():
    return Net(1)


def random():
    class Random(Net):
        def forward(self, pixels):
            return super().forward(pixels) + torch.randn(())

    return Random(0)


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def nothing():
    return 3


def counting():
    class Counting(Net):
        def __init__(self, seed):
            super().__init__(seed)
            self.register_buffer("seen", torch.zeros(()), persistent=False)

        def forward(self, pixels):
            self.seen += 1
            return super().forward(pixels)

    return Counting(0)
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A protocol of one epoch, with one attack."""
    path = tmp_path_factory.mktemp("doors") / "small.toml"
    path.write_text(
        'name = "small"\nversion = 1\nquestion = "Do the doors open?"\ntask = "digits"\nrecipe = "smoke(epochs=1)"\n'
        'variants = ["softmax", "elliptical"]\nmetrics = ["accuracy", "token_cosine"]\nlimit = 23\ntrust = 0\n'
        "[backbone]\ndim = 32\ndepth = 2\nheads = 2\n"
        '[[shifts]]\nshift = "pgd(steps=2)"\nseverities = ["0.05"]\n'
    )
    return str(path)


def rows(protocol: str, **asked: Any) -> list[str]:
    return [row.label for row in api.plan(api.Asked(protocol, **asked)).plan.rows]


# Settings


@pytest.mark.parametrize("text", ["elliptical:scaling=mean,gradient=open", "elliptical(scaling=mean,gradient=open)"])
def test_settings_of_a_row_stand_after_a_colon_or_in_parentheses(small: str, tmp_path: Path, text: str) -> None:
    assert "elliptical(gradient=open,scaling=mean)" in rows(small, variants=(text,), out=tmp_path)


@pytest.mark.parametrize("text", [f"{PLUGIN}:sharpness=3", f"{PLUGIN}(sharpness=3)"])
def test_settings_of_a_file_reach_its_variants(small: str, tmp_path: Path, text: str) -> None:
    assert "sharper(sharpness=3.0)" in rows(small, variants=(text,), out=tmp_path)


# Weights of one's own


def trained(small: str, folder: Path) -> Path:
    ran = api.run(api.Asked(small, only=("softmax",), out=folder))
    assert ran.exit_code == 0
    (path,) = (folder / "checkpoints").glob("*.safetensors")
    return path


@pytest.fixture(scope="session")
def checkpoint(small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(small, tmp_path_factory.mktemp("trained"))


def test_given_weights_are_measured_instead_of_training(small: str, checkpoint: Path, tmp_path: Path) -> None:
    ran = api.run(api.Asked(small, only=("softmax",), weights=(f"softmax@0={checkpoint}",), out=tmp_path / "given"))
    assert ran.exit_code == 0
    (copy,) = (tmp_path / "given" / "checkpoints").glob("*.safetensors")
    assert copy.read_bytes() == checkpoint.read_bytes()
    note = json.loads(copy.with_suffix(".json").read_text())
    assert note["facts"] == {"given": True, "file": checkpoint.name, "tensors": len(load_file(checkpoint))}
    first, second = (
        api.records(folder).sort_values(["shift", "metric", "layer"], ignore_index=True)
        for folder in (checkpoint.parent.parent, tmp_path / "given")
    )
    assert first["value"].tolist() == second["value"].tolist()
    again = api.run(api.Asked(small, only=("softmax",), weights=(f"softmax@0={checkpoint}",), out=tmp_path / "given"))
    assert again.outcome.done == 0


def test_other_weights_have_other_keys(small: str, checkpoint: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in load_file(checkpoint).items()}, changed)
    plans = [
        api.plan(api.Asked(small, weights=weights, out=tmp_path)).plan
        for weights in ((), (f"softmax@0={checkpoint}",), (f"softmax@0={changed}",))
    ]
    keys = [{n.key for n in plan.nodes if n.label == "softmax"} for plan in plans]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    others = [{n.key for n in plan.nodes if n.label == "elliptical"} for plan in plans]
    assert others[0] == others[1] == others[2]


def test_weights_that_do_not_fit_are_told_key_by_key(small: str, checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint)
    broken = {name: tensor for name, tensor in tensors.items() if name != "norm.bias"}
    broken["head.bias"] = torch.zeros(3)
    broken["stranger"] = torch.zeros(1)
    broken["norm.weight"] = torch.ones(32, dtype=torch.int8)
    path = tmp_path / "broken.safetensors"
    save_file(broken, path)
    ran = api.run(api.Asked(small, only=("softmax",), weights=(f"softmax@0={path}",), out=tmp_path / "run"))
    assert ran.exit_code == 1
    (attempt,) = [a for n in ran.plan.nodes for a in ran.store.attempts(n.key)]
    assert "lacks norm.bias; holds what the network does not have: stranger" in attempt["reason"]
    assert "differs in shape: head.bias [3] for [10]" in attempt["reason"]
    assert "holds numbers of another kind: norm.weight int8" in attempt["reason"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("softmax=x.safetensors", "NAME@SEED=FILE"),
        ("softmax@0=x.pth", r"ends in \.safetensors"),
        ("softmax@0=nowhere.safetensors", "No such file"),
        ("softmax@7={}", r"softmax@7/0: no such network; there are elliptical@0/0, softmax@0/0"),
        ("nobody@0={}", "no such network"),
    ],
)
def test_wrong_weights_are_told_before_anything_runs(
    small: str, checkpoint: Path, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        api.plan(api.Asked(small, weights=(text.format(checkpoint),), out=tmp_path))


def test_weights_say_their_fold_where_there_are_several(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"saw the test samples of the others; say .* softmax@0/FOLD=FILE"):
        api.plan(api.Asked("digits", weights=(f"softmax@0={checkpoint}",), out=tmp_path))
    made = api.plan(api.Asked("digits", weights=(f"softmax@0/3={checkpoint}",), out=tmp_path)).plan
    given = [n for n in made.nodes if "weights" in n.specification]
    assert [(n.label, n.fold) for n in given] == [("softmax", 3)]


# Whole networks


def test_a_network_from_a_file_is_judged_as_it_is(small: str, network: Path, tmp_path: Path) -> None:
    asked = api.Asked(
        small, models=(f"{network}:build", f"second={network}:other"), only=("net", "second"), out=tmp_path / "run"
    )
    ran = api.run(asked)
    assert ran.exit_code == 0
    frame = api.records(tmp_path / "run")
    for label, seed in (("net", 0), ("second", 1)):
        from attnbench.bench.tasks.digits import load

        weight = torch.randn(10, 64, generator=torch.Generator().manual_seed(seed))
        test = load(0).test.rows(range(23))
        expected = float(((test.pixels.flatten(1) @ weight.T).argmax(1) == test.labels).double().mean())
        own = frame[(frame["label"] == label) & (frame["shift"] == "clean")].set_index("metric")
        assert own.loc["accuracy", "value"] == pytest.approx(expected)
        assert own.loc["token_cosine", "status"] == "null"
        assert own.loc["token_cosine", "reason"] == "the network shows no tokens at 'read'"
    kept = api.plan(api.Asked(small, out=tmp_path / "run")).plan
    assert {"net", "second"} <= {row.label for row in kept.rows}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("random", "answers differently to the same pixels"),
        ("narrow", r"returned \[16, 3\].*return logits \[16, 10\]"),
        ("counting", "changes its own tensors in eval mode"),
        ("nothing", "built a int; its function has to return a module"),
    ],
)
def test_a_network_that_cannot_be_judged_is_told_so(
    small: str, network: Path, tmp_path: Path, function: str, message: str
) -> None:
    import re

    ran = api.run(api.Asked(small, models=(f"odd={network}:{function}",), only=("odd",), out=tmp_path / "run"))
    assert ran.exit_code == 1
    reasons = [a["reason"] for n in ran.plan.nodes for a in ran.store.attempts(n.key)]
    assert re.search(message, reasons[0]), reasons


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "write FILE.py:FUNCTION"),
        ("{}:absent", "has no function 'absent'"),
        ("nowhere.py:build", "no such file"),
        ("softmax={}:build", "'softmax' is taken by"),
        ("a b={}:build", "cannot be called 'a b'"),
    ],
)
def test_a_network_that_cannot_be_found_is_told_before_anything_runs(
    small: str, network: Path, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(AttnbenchError, match=message):
        api.plan(api.Asked(small, models=(text.format(network),), out=tmp_path))


class Tokens(nn.Module):
    """A network that shows two layers of tokens and draws noise."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)

    def forward(self, pixels: Tensor, tap: Any = None) -> Tensor:
        tokens = pixels.flatten(1).view(-1, 4, 16)
        if tap is not None:
            tap("read", 0, tokens)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def test_a_network_of_this_process_is_judged_and_left_alone(small: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Tokens().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frame = api.evaluate(model, small, name="tokens", out=tmp_path / "run")
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert set(frame["label"]) == {"tokens"}
    assert set(frame["shift"]) == {"clean", "pgd(steps=2)"}
    assert (frame["status"] == "ok").all()
    assert set(frame["metric"]) == {"accuracy", "token_cosine"}

    cells = sorted((tmp_path / "run" / "cells").glob("*.json"))
    times = [path.stat().st_mtime_ns for path in cells]
    assert api.evaluate(model, small, name="tokens", out=tmp_path / "run").equals(frame)
    assert [path.stat().st_mtime_ns for path in cells] == times
    assert "tokens" in {row.label for row in api.plan(api.Asked(small, out=tmp_path / "run")).plan.rows}

    with torch.no_grad():
        model.head.bias[0] += 100
    other = api.evaluate(model, small, name="tokens", out=tmp_path / "run")
    assert not other.equals(frame)


def test_a_name_that_is_taken_or_a_network_that_fails_is_told(small: str, tmp_path: Path) -> None:
    with pytest.raises(BadDeclaration, match="'softmax' is taken"):
        api.evaluate(Tokens(), small, name="softmax", out=tmp_path / "run")
    with pytest.raises(BadInput, match=r"'flat'.*return logits"):
        api.evaluate(nn.Flatten(), small, name="flat", out=tmp_path / "run")


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("table", torch.zeros(3), persistent=False)


def test_networks_that_differ_in_anything_but_their_tensors_differ_in_their_fingerprint() -> None:
    other = Scaled(1.0)
    other.table += 1
    networks = [
        Scaled(1.0),
        Scaled(2.0),
        other,
        nn.Sequential(nn.ReLU(), nn.Tanh()),
        nn.Sequential(nn.Tanh(), nn.ReLU()),
        nn.LeakyReLU(0.1),
        nn.LeakyReLU(-5),
    ]
    assert len({fingerprint(network) for network in networks}) == len(networks)
    assert fingerprint(Scaled(1.0)) == fingerprint(Scaled(1.0))


# Mechanism swap

SHAPE = VisionTransformerShape(image=6, channels=2, patch=2, dim=15, depth=3, heads=5, classes=7)


def pixels(seed: int = 0) -> Tensor:
    return torch.rand(11, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_a_swap_keeps_the_weights_and_changes_the_mechanism() -> None:
    softmax = build(SOFTMAX.core, {}, SHAPE, 1)
    elliptical = build(ELLIPTICAL.core, dict(ELLIPTICAL.settings), SHAPE, 2)
    given = exchange(softmax.state_dict(), elliptical)
    assert given.initial == given.dropped == ()
    assert all(torch.equal(t, softmax.state_dict()[n]) for n, t in elliptical.state_dict().items())
    twin = build(ELLIPTICAL.core, dict(ELLIPTICAL.settings), SHAPE, 1)
    assert torch.equal(elliptical(pixels()), twin(pixels()))
    assert not torch.equal(elliptical(pixels()), softmax(pixels()))


def test_what_one_mechanism_learns_and_the_other_lacks_is_named() -> None:
    softmax, gated = build(SOFTMAX.core, {}, SHAPE, 1), build(GATED.core, dict(GATED.settings), SHAPE, 2)
    learned = {name for name in gated.state_dict() if ".core." in name}
    assert learned
    before = {name: gated.state_dict()[name].clone() for name in learned}
    assert set(exchange(softmax.state_dict(), gated).initial) == learned
    assert all(torch.equal(gated.state_dict()[name], before[name]) for name in learned)
    assert set(exchange(gated.state_dict(), softmax).dropped) == learned


def test_no_tensor_of_a_core_is_taken_over_even_where_names_agree() -> None:
    static = build(STATIC_METRIC.core, dict(STATIC_METRIC.settings), SHAPE, 1)
    random = build(RANDOM_METRIC.core, dict(RANDOM_METRIC.settings), SHAPE, 1)
    frozen = [core.frozen.clone() for core in random.attentions()]
    assert not torch.equal(frozen[1], static.attentions()[1].frozen)
    given = exchange(static.state_dict(), random)
    assert all(torch.equal(core.frozen, before) for core, before in zip(random.attentions(), frozen, strict=True))
    assert len(given.initial) == len(given.dropped) == 3


def test_weights_of_another_shape_are_refused() -> None:
    softmax, wider = build(SOFTMAX.core, {}, SHAPE, 1), build(SOFTMAX.core, {}, SHAPE._replace(dim=20), 1)
    with pytest.raises(ValueError, match="which needs"):
        exchange(softmax.state_dict(), wider)


@pytest.mark.parametrize("variant", [ELLIPTICAL, QUEST], ids=lambda v: v.name)
def test_the_control_moves_the_logits_exactly_as_far(variant: Any) -> None:
    softmax = build(SOFTMAX.core, {}, SHAPE, 1).double().eval()
    other = build(variant.core, dict(variant.settings), SHAPE, 1).double().eval()
    at = sight(softmax, pixels().double()).places
    asked, met = perturb(softmax, other.attentions(), pixels().double(), seed=5)
    torch.testing.assert_close(met, asked, rtol=1e-6, atol=0)
    for layer, core in enumerate(softmax.attentions()):
        q, k = at[layer].q, at[layer].k
        moved = q * (1 + core.strength[:, None] * core.direction)[:, None]
        change = 3**-0.5 * (moved - q) @ k.mT
        centred = change - change.mean(-1, keepdim=True)
        torch.testing.assert_close(centred.square().mean(dim=(0, 2, 3)).sqrt(), asked[layer], rtol=1e-5, atol=0)


def test_layer_0_of_elliptical_attention_moves_no_logit() -> None:
    softmax = build(SOFTMAX.core, {}, SHAPE, 1).eval()
    other = build(ELLIPTICAL.core, dict(ELLIPTICAL.settings), SHAPE, 1).eval()
    (first, *rest) = [
        logit_change(a, b, at)
        for a, b, at in zip(softmax.attentions(), other.attentions(), sight(softmax, pixels()).places, strict=True)
    ]
    assert not first.any()
    assert all((change > 0).all() for change in rest)
    reference = softmax(pixels())
    perturb(softmax, other.attentions(), pixels(), seed=5)
    assert torch.equal(softmax.attentions()[0].strength, torch.zeros(5))
    assert not torch.equal(softmax(pixels()), reference)


def test_a_swap_fills_both_off_diagonal_cells_and_their_controls(small: str, tmp_path: Path) -> None:
    ran = api.run(api.Asked(small, swaps=("softmax:elliptical",), out=tmp_path / "run"))
    assert ran.exit_code == 0
    document = ran.store.run()
    swaps = {(s["label"], s["swap"], s["control"], s["shift"]) for s in document["swaps"]}
    assert swaps == {
        (own, other, control, shift)
        for own, other in (("softmax", "elliptical"), ("elliptical", "softmax"))
        for control in (False, True)
        for shift in ("clean", "pgd(steps=2)")
    }
    assert not {s["key"] for s in document["swaps"]} & {c["key"] for c in document["cells"]}
    for entry in document["swaps"]:
        facts = ran.store.examine(entry["key"])["facts"]
        if entry["control"]:
            assert facts["logit_change_met"][0] == [0, 0]
            assert facts["logit_change_met"][1] == pytest.approx(facts["logit_change_asked"][1], rel=1e-4)
        else:
            assert facts["initial"] == facts["dropped"] == []
    plain = {key_of(n.specification) for n in make_plan(find_protocol(small), open_catalog()).nodes}
    assert plain <= {n.key for n in ran.plan.nodes}


def test_a_swapped_cell_equals_the_swapped_network(small: str, tmp_path: Path) -> None:
    from attnbench.bench.tasks.digits import load

    ran = api.run(api.Asked(small, swaps=("softmax:elliptical",), out=tmp_path / "run"))
    train = next(n for n in ran.plan.nodes if n.kind == "train" and n.label == "softmax")
    sizes = train.specification["backbone"]
    shape = VisionTransformerShape(**{k: sizes[k] for k in VisionTransformerShape._fields if k in sizes})
    model: VisionTransformer = build(ELLIPTICAL.core, dict(ELLIPTICAL.settings), shape, 0).eval()
    model.load_state_dict(load_file(ran.store.checkpoint_path(train.key)))
    test = load(0).test.rows(range(23))
    with torch.no_grad():
        expected = (model(test.pixels).argmax(1) == test.labels).tolist()
    (cell,) = [
        n
        for n in ran.plan.nodes
        if n.swap == "elliptical" and not n.control and n.shift == "clean" and n.label == "softmax"
    ]
    table = ran.store.outcomes(cell.key)
    assert [value > 0.5 for value in table["correct"].to_pylist()] == expected


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("softmax", "l2"), "'l2' is no row"),
        (("softmax", "softmax_matched"), "cannot work on weights"),
        (("softmax", "net"), "cannot work on weights"),
    ],
)
def test_pairs_that_cannot_be_swapped_are_refused(
    small: str, network: Path, tmp_path: Path, pair: tuple[str, str], message: str
) -> None:
    asked = api.Asked(
        small, variants=("softmax_matched",), models=(f"{network}:build",), swaps=(":".join(pair),), out=tmp_path
    )
    with pytest.raises(BadProtocol, match=message):
        api.plan(asked)


def test_a_control_that_cannot_be_had_is_said(small: str, tmp_path: Path) -> None:
    made = api.plan(api.Asked(small, variants=("twicing",), swaps=("softmax:twicing",), out=tmp_path)).plan
    assert ("control of twicing on the weights of softmax", "both need logits and no noise") in made.not_applicable
    assert not any(n.control for n in made.nodes)


def test_a_pair_that_cannot_be_read_is_told() -> None:
    with pytest.raises(BadInput, match="write two rows, A:B"):
        read_swap("softmax")
