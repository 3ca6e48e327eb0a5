"""A protocol may stand on a timm model: built or filled, trained, attacked, swapped; what does not fit is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from attnbench.bench import api
from attnbench.bench.error import AttnbenchError, BadInput
from attnbench.bench.protocol import read_backbone
from attnbench.models.timm_model import build_timm
from attnbench.models.variants.softmax import SOFTMAX

SMALL = "timm:vit_tiny_patch16_224(depth=2,patch_size=2,embed_dim=32,num_heads=2)"
PROTOCOL = """
name = "small"
version = 1
question = "Do other backbones work?"
task = "digits"
recipe = "{recipe}"
variants = ["softmax", "elliptical", "registers"]
metrics = ["accuracy", "token_cosine"]
costs = ["parameters"]
limit = 23
trust = 0

[[shifts]]
shift = "pgd(steps=2)"
severities = ["0.05"]
"""


@pytest.fixture
def protocol(tmp_path: Path) -> Any:
    def write(recipe: str = "smoke(epochs=1)") -> str:
        path = tmp_path / "small.toml"
        path.write_text(PROTOCOL.format(recipe=recipe))
        return str(path)

    return write


def test_a_backbone_is_read_with_its_options() -> None:
    found = read_backbone(
        "timm:vit_tiny_patch16_224(depth=2,qkv_bias=false,init_values=1e-5,global_pool=avg,head=new,weights=a.safetensors)"
    )
    assert found.timm == "vit_tiny_patch16_224"
    assert found.options == {"depth": 2, "qkv_bias": False, "init_values": 1e-5, "global_pool": "avg"}
    assert (found.head, found.weights) == ("new", "a.safetensors")
    assert read_backbone("vit:dim=32,heads=2").dim == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet", "backbone 'resnet' is unknown; the backbones are: vit, timm:NAME"),
        ("vit(dim=30)", "dim 30 is not a multiple of heads 4"),
        ("vit(weights=a.safetensors)", "weights is a key of the backbones timm:NAME"),
        ("vit(dept=3)", "unknown key 'dept'; did you mean 'depth'"),
        ("timm:vit_tiny_patch16_224(weights=a,pretrained=true)", "two ways to start"),
        ("timm:vit_tiny_patch16_224(head=old)", "'keep' or 'new'"),
    ],
)
def test_a_backbone_that_cannot_be_is_told(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        read_backbone(text)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("timm:vit_tiny_patch16_224", "images of 8 px cannot be cut into patches of 16 px"),
        ("timm:vit_tiny_patch16_224(patch_size=2,weights=nowhere.safetensors)", "cannot read the weights nowhere"),
    ],
)
def test_what_does_not_fit_the_task_is_told_before_anything_runs(
    protocol: Any, tmp_path: Path, backbone: str, message: str
) -> None:
    with pytest.raises(AttnbenchError, match=message):
        api.plan(api.Asked(protocol(), backbone=backbone, out=tmp_path / "run"))


def test_a_timm_model_is_trained_attacked_and_swapped(protocol: Any, tmp_path: Path) -> None:
    asked = api.Asked(protocol(), backbone=SMALL, swaps=("softmax:elliptical",), out=tmp_path / "run")
    ran = api.run(asked)
    assert ran.exit_code == 0
    assert [label for label, _ in ran.plan.not_applicable] == ["registers"]
    frame = api.records(tmp_path / "run").set_index(["label", "shift", "metric"]).sort_index()
    assert (frame["status"] == "ok").all()
    model = build_timm(
        "vit_tiny_patch16_224", SOFTMAX, {}, classes=10, image=8, channels=1, mean=0.5, std=0.5, seed=0,
        options={"depth": 2, "patch_size": 2, "embed_dim": 32, "num_heads": 2},
    )  # fmt: skip
    count = sum(p.numel() for p in model.parameters())
    assert frame.loc[("softmax", "cost", "parameters"), "value"].item() == count
    for entry in ran.store.run()["swaps"]:
        facts = ran.store.examine(entry["key"])["facts"]
        if entry["control"]:
            assert facts["logit_change_met"][1] == pytest.approx(facts["logit_change_asked"][1], rel=1e-4)
        else:
            assert facts["initial"] == facts["dropped"] == []
    assert api.run(asked).outcome.done == 0


def test_a_timm_model_starts_from_weights_and_is_measured_untouched(protocol: Any, tmp_path: Path) -> None:
    from attnbench.bench.tasks.digits import load

    options = {"depth": 2, "patch_size": 2, "embed_dim": 32, "num_heads": 2}
    shape: dict[str, Any] = {"classes": 10, "image": 8, "channels": 1, "options": options}
    model = build_timm("vit_tiny_patch16_224", SOFTMAX, {}, mean=0.3053, std=0.376, seed=5, **shape).eval()
    path = tmp_path / "start.safetensors"
    save_file(model.inner.state_dict(), path)
    backbone = SMALL.replace(")", f",weights={path})")
    ran = api.run(api.Asked(protocol("untouched"), backbone=backbone, only=("softmax",), out=tmp_path / "run"))
    assert ran.exit_code == 0
    test = load(0).test.rows(range(23))
    with torch.no_grad():
        expected = (model(test.pixels).argmax(1) == test.labels).double().mean().item()
    frame = api.records(tmp_path / "run").set_index(["shift", "metric"])
    assert frame.loc[("clean", "accuracy"), "value"] == pytest.approx(expected)
    (note,) = (tmp_path / "run" / "checkpoints").glob("*.json")
    facts = ran.store.note(note)["facts"]
    assert (facts["swap"], facts["weights"], facts["head"]) == ("lossless", "start.safetensors", "kept")

    keys = [n.key for n in ran.plan.nodes]
    save_file({k: v + 1e-3 for k, v in model.inner.state_dict().items()}, path)
    again = api.plan(api.Asked(protocol("untouched"), backbone=backbone, only=("softmax",), out=tmp_path / "run"))
    assert not set(keys) & {n.key for n in again.plan.nodes}


def test_a_timm_model_that_cannot_be_built_fails_with_what_to_do(protocol: Any, tmp_path: Path) -> None:
    misspelt = "timm:vit_tiny_patch16_244(patch_size=2)"
    ran = api.run(api.Asked(protocol(), backbone=misspelt, only=("softmax",), out=tmp_path / "run"))
    assert ran.exit_code == 1
    reasons = [a["reason"] for n in ran.plan.nodes for a in ran.store.attempts(n.key)]
    assert "unknown timm model 'vit_tiny_patch16_244'; did you mean 'vit_tiny_patch16_" in reasons[0]
