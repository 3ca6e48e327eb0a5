"""Adversarial recipes: where they look, what they learn there, and that nothing else about training changes."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnbench.attacks.adversarial.pgd import PGD
from attnbench.attacks.draw import Draw
from attnbench.attacks.samples import Samples
from attnbench.bench.adversary import adversary, training_accuracy, worst_case
from attnbench.bench.catalog import open_catalog
from attnbench.bench.error import BadInput
from attnbench.bench.fit import Batch, batches, calibration_samples, fit, order
from attnbench.bench.recipes.fgsm_rs import FGSM_RS
from attnbench.bench.recipes.pgd_at import PGD_AT
from attnbench.bench.recipes.trades import TRADES, divergence, traded
from attnbench.bench.target import ModelTarget
from attnbench.models.noise import Noise
from attnbench.models.own_network import OwnNetwork
from attnbench.models.variants.softmax import SoftmaxAttention
from attnbench.models.vit import VisionTransformer, VisionTransformerShape, build

SHAPE = VisionTransformerShape(dim=8, depth=2, heads=2, patch=4, mlp_ratio=1.0, drop_path=0.0)
ADVERSARIAL = (FGSM_RS, PGD_AT, TRADES)
ROUNDING = 2**-23
LOOKS = {"fgsm_rs": 2, "pgd_at": 4, "trades": 5}
"""Training passes a batch, with 3 steps where the recipe has steps: one a step, one at the end, TRADES one before."""
each_recipe = pytest.mark.parametrize("recipe", ADVERSARIAL, ids=lambda recipe: recipe.name)


def settings(recipe, **changed):
    short = {"epochs": 2, "batch": 7, **({"steps": 3} if "steps" in recipe.settings else {})}
    return {**recipe.settings, **short, **changed}


def samples(n=23):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(n, 1, 8, 8, generator=generator)
    pixels[:, :, 0], pixels[:, :, 1] = 0, 1
    return Samples(pixels, torch.arange(n) % 10, tuple(f"probe-{row}" for row in range(n)))


def network(seed=3, core=SoftmaxAttention, shape=SHAPE):
    return build(core, {}, shape, seed)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Recording(VisionTransformer):
    """Keeps the pixels of every training pass."""

    def __init__(self, shape, core):
        super().__init__(shape, core)
        self.seen = []

    def forward(self, pixels, noise=None, tap=None, calibrating=False):
        if self.training:
            self.seen.append(pixels.detach().clone())
        return super().forward(pixels, noise, tap, calibrating)


class Noisy(SoftmaxAttention):
    """Adds the noise that it declares for training, and keeps it."""

    noise = (Noise("jitter", (3,), "normal", "train"),)

    def __init__(self, site):
        super().__init__(site)
        self.kept = []

    def forward(self, q, k, v, ctx):
        y = super().forward(q, k, v, ctx)
        if not self.training:
            return y
        self.kept.append(ctx.noise["jitter"])
        return y + ctx.noise["jitter"].mean(1)[:, None, None, None]


class Broken(SoftmaxAttention):
    """Gives NaN from its eleventh pass on."""

    passes = 0

    def forward(self, q, k, v, ctx):
        self.passes += 1
        y = super().forward(q, k, v, ctx)
        return y * float("nan") if self.passes > 10 else y


class Line(nn.Module):
    """Two classes, told apart by a plane: the logits are 0 and w x + b."""

    def __init__(self, offset=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.weight = nn.Parameter(torch.randn(1, 5, 7, generator=generator) / 8)
        self.offset = nn.Parameter(torch.tensor(offset))

    def value(self, pixels):
        return ((pixels - 0.5) * self.weight).sum((1, 2, 3)) + self.offset

    def forward(self, pixels):
        second = self.value(pixels)
        return torch.stack([torch.zeros_like(second), second], 1)


class Coin(nn.Module):
    """Says class 0 or 1 by its noise alone."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def noise(self):
        return (Noise("coin", (), "uniform", "always"),)

    def forward(self, pixels, noise):
        second = (noise["coin"] - 0.5) + 0 * pixels.sum((1, 2, 3))
        return torch.stack([torch.zeros_like(second), second], 1)


def inner(n=13):
    """Return images that no eps of 0.2 takes out of the box, with the plane's own classes, as a batch too."""
    generator = torch.Generator().manual_seed(7)
    pixels = 0.25 + 0.5 * torch.rand(n, 1, 5, 7, generator=generator)
    with torch.no_grad():
        labels = (Line().value(pixels) > 0).long()
    kept = Samples(pixels, labels, tuple(f"inner-{row}" for row in range(n)))
    return kept, Batch(pixels, F.one_hot(labels, 2).float(), kept.ids)


STREAMS = Draw(noise_seed=3, shift="train", purpose="train")


def test_the_names_are_those_of_the_files_and_a_size_may_be_a_fraction():
    catalog = open_catalog()
    folder = Path(__file__).parent.parent.parent / "bench" / "recipes"
    assert catalog.names("recipe") == sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
    for recipe in ADVERSARIAL:
        entry = catalog.recipe(f"{recipe.name}(eps=8/255)")
        assert entry.settings == {**recipe.settings, "eps": "8/255"}
        assert entry.label == f"{recipe.name}(eps=8/255)"


@pytest.mark.parametrize(
    ("eps", "steps", "relative_step", "message"),
    [
        ("much", 1, 1.0, "got 'much'"),
        ("-0.1", 1, 1.0, "got '-0.1'"),
        ("1/0", 1, 1.0, "got '1/0'"),
        ("8", 1, 1.0, "from 0 to 1 such as 0.1 or 8/255, got '8'"),
        ("0.1", 0, 1.0, "got steps=0, relative_step=1.0"),
        ("0.1", 2, 0.0, "got steps=2, relative_step=0.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(eps, steps, relative_step, message):
    with pytest.raises(BadInput, match=message):
        adversary(eps, steps, relative_step)


def test_one_step_ends_where_its_start_and_the_sign_of_the_gradient_say():
    _, batch = inner()
    line, seen = Line(), []

    def answer(pixels):
        seen.append(pixels.detach().clone())
        return line(pixels)

    worst_case(adversary("0.1", 1, 1.25))(answer, batch, STREAMS.at(4))
    uniform = 2 * STREAMS._replace(purpose="attack", repeat=4, name="start").uniform(batch.ids, (1, 5, 7)) - 1
    torch.testing.assert_close(seen[0], batch.pixels + 0.1 * uniform, rtol=0, atol=1e-6)
    downhill = torch.where(batch.targets[:, 1, None, None, None] > 0, -line.weight.sign(), line.weight.sign())
    expected = batch.pixels + (0.1 * uniform + 0.125 * downhill).clamp(-0.1, 0.1)
    torch.testing.assert_close(seen[1], expected.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("steps", "relative_step"), [(1, 2.0), (5, 0.4), (8, 0.25)])
def test_the_worst_case_of_a_plane_lies_eps_times_its_slope_lower(steps, relative_step):
    _, batch = inner()
    line = Line()
    found = worst_case(adversary("1/8", steps, relative_step))(line, batch, STREAMS)
    with torch.no_grad():
        margin = line.value(batch.pixels) * (2 * batch.targets[:, 1] - 1)
        expected = F.softplus(-(margin - line.weight.abs().sum() / 8)).mean()
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=0)


def test_the_divergence_is_that_of_pencil_and_paper():
    even, uneven = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    assert divergence(even, uneven).item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    assert divergence(uneven, even).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)
    assert divergence(torch.cat([even, uneven]), torch.cat([uneven, uneven])).item() == pytest.approx(
        0.5 * math.log(4 / 3), rel=1e-6
    )


def test_trades_finds_the_end_of_the_ball_on_the_side_of_its_start():
    _, batch = inner()
    line = Line()
    found = traded(adversary("1/8", 5, 0.4), 6.0)(line, batch, STREAMS)
    normal = STREAMS._replace(purpose="attack", name="start").normal(batch.ids, (1, 5, 7))
    with torch.no_grad():
        side = (normal * line.weight).sum((1, 2, 3)).sign()
        value = line.value(batch.pixels)
        share, other = value.sigmoid(), (value + side * line.weight.abs().sum() / 8).sigmoid()
        apart = share * (share / other).log() + (1 - share) * ((1 - share) / (1 - other)).log()
        expected = F.cross_entropy(line(batch.pixels), batch.targets) + 6 * apart.mean()
    assert {-1.0, 1.0} == set(side.tolist())
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=0)


def test_trades_without_weight_is_cross_entropy_on_the_samples():
    train, rows = samples(), order(23, 3, 0)
    (batch,) = batches(train, 3, 0, count=1, classes=10, mixup=0.0)
    model = network().train()
    ours = traded(adversary("0.1", 3, 0.4), 0.0)(model, batch, STREAMS)
    plain = F.cross_entropy(model(train.pixels[rows]), train.labels[rows])
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=0)
    gradients = (torch.autograd.grad(loss, list(model.parameters())) for loss in (ours, plain))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@each_recipe
def test_every_look_at_every_batch_is_inside_the_ball_and_the_box(recipe):
    train, eps = samples(), 0.1
    model = Recording(SHAPE, SoftmaxAttention)
    model.load_state_dict(network().state_dict())
    recipe.fit(model, train, 3, **settings(recipe))
    looks = LOOKS[recipe.name]
    assert len(model.seen) == 2 * 4 * looks
    mixup = recipe.settings["mixup"]
    cut = (batches(train, 3, epoch, count=4, classes=10, mixup=mixup) for epoch in (0, 1))
    clean = [batch.pixels for epoch in cut for batch in epoch]
    for index, pixels in enumerate(model.seen):
        delta = (pixels.double() - clean[index // looks].double()).abs()
        assert delta.max() <= eps + ROUNDING
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        if index % looks == looks - 1:
            assert (delta >= eps - ROUNDING).double().mean() > 0.3
    if recipe is TRADES:
        assert all(torch.equal(model.seen[looks * i], own) for i, own in enumerate(clean))


@each_recipe
def test_what_is_learned_is_the_gradient_at_the_neighbours_and_the_search_leaves_none(recipe):
    train = samples()
    (batch,) = batches(train, 3, 0, count=1, classes=10, mixup=0.0)
    model, seen = network().train(), []

    def answer(pixels):
        seen.append(pixels.detach().clone())
        return model(pixels)

    foe = adversary("0.1", 3, 0.4)
    loss = traded(foe, 6.0) if recipe is TRADES else worst_case(foe)
    found = loss(answer, batch, STREAMS)
    assert all(p.grad is None for p in model.parameters())
    found.backward()
    other = network().train()
    if recipe is TRADES:
        clean, near = other(batch.pixels).log_softmax(1), other(seen[-1]).log_softmax(1)
        apart = (clean.exp() * (clean - near)).sum(1).mean()
        (6 * apart - (batch.targets * clean).sum(1).mean()).backward()
    else:
        (-(batch.targets * other(seen[-1]).log_softmax(1)).sum(1).mean()).backward()
    for ours, plain in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-6)


@each_recipe
def test_the_same_seed_gives_the_same_weights_and_the_global_generator_is_neither_read_nor_moved(recipe):
    results = []
    for disturbance in (1, 2):
        model = network(core=Noisy, shape=SHAPE._replace(drop_path=0.3))
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        facts = recipe.fit(model, samples(9), 3, **settings(recipe))
        assert torch.equal(torch.get_rng_state(), before)
        results.append((weights(model), facts))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    other = network(core=Noisy, shape=SHAPE._replace(drop_path=0.3))
    recipe.fit(other, samples(9), 4, **settings(recipe))
    assert not torch.equal(weights(other), results[0][0])


@each_recipe
def test_the_search_and_the_step_meet_the_same_noise(recipe):
    model = network(core=Noisy)
    recipe.fit(model, samples(9), 3, **settings(recipe, batch=5))
    kept, looks = model.blocks[1].attention.core.kept, LOOKS[recipe.name]
    assert len(kept) == 2 * 2 * looks
    for step in range(4):
        first, *others = kept[step * looks : (step + 1) * looks]
        assert all(torch.equal(first, noise) for noise in others)


def test_a_start_belongs_to_the_sample_the_epoch_and_the_seed_and_not_to_the_batch():
    train, foe = samples(), adversary("0.1", 1, 1.25)

    def starts(draw, rows):
        some = train.rows(rows)
        return foe.start(some.pixels, some.ids, draw)

    whole = starts(STREAMS, range(23))
    assert torch.equal(starts(STREAMS, [20, 4]), whole[[20, 4]])
    assert not torch.equal(starts(STREAMS.at(1), range(23)), whole)
    assert not torch.equal(starts(STREAMS._replace(noise_seed=4), range(23)), whole)


@pytest.mark.parametrize("recipe", [FGSM_RS, PGD_AT], ids=lambda recipe: recipe.name)
def test_a_ball_of_no_size_gives_plain_training_bit_for_bit(recipe):
    chosen = settings(recipe, eps="0")
    plain = {k: v for k, v in chosen.items() if k not in ("eps", "steps", "relative_step")}
    model, other = (network(core=Noisy, shape=SHAPE._replace(drop_path=0.3)) for _ in range(2))
    facts = recipe.fit(model, samples(), 3, **chosen)
    expected = fit(other, samples(), 3, **plain, label_smoothing=0.0)
    assert torch.equal(weights(model), weights(other))
    assert {name: facts[name] for name in expected} == expected
    assert facts["train_accuracy"] == facts["train_pgd_accuracy"]


@each_recipe
def test_a_loss_that_is_not_finite_names_the_epoch_and_the_step(recipe):
    step = 10 // LOOKS[recipe.name]
    place = f"in epoch {step // 4}, step {step}; lower learning_rate"
    with pytest.raises(FloatingPointError, match=f"the training loss is nan {place}"):
        recipe.fit(network(core=Broken), samples(), 3, **settings(recipe))


@each_recipe
def test_the_network_is_left_as_plain_training_leaves_it_and_the_facts_say_what_they_measured(recipe):
    model = network()
    model.position.weight.requires_grad_(False)
    fixed = model.position.weight.clone()
    facts = recipe.fit(model, samples(), 3, **settings(recipe))
    assert list(facts) == ["epochs", "steps", "final_loss", "train_accuracy", "train_pgd_accuracy"]
    assert facts["epochs"] == 2
    assert facts["steps"] == 8
    assert not model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["position.weight"]
    assert torch.equal(model.position.weight, fixed)


def test_accuracies_on_training_samples_are_those_of_a_plane():
    kept, _ = inner(61)
    line = Line(offset=0.1)
    with torch.no_grad():
        margin = line.value(kept.pixels) * (2 * kept.labels - 1)
        reach = line.weight.abs().sum() / 50
    assert (margin - reach).abs().min() > 1e-4
    found = training_accuracy(OwnNetwork(line, 2), kept, 0, 1 / 50)
    assert found["train_accuracy"] == (margin > 0).double().mean().item()
    assert found["train_pgd_accuracy"] == (margin > reach).double().mean().item()
    assert 0.1 < found["train_pgd_accuracy"] < found["train_accuracy"] < 1


def test_accuracies_of_a_stochastic_network_are_shares_of_many_fresh_passes():
    kept, _ = inner(61)
    found = training_accuracy(OwnNetwork(Coin(), 2), kept, 0, 0.1)
    for share in found.values():
        assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(61 * 50))


def test_accuracies_are_measured_on_the_calibration_samples():
    train = samples(300)
    line = Line()
    line.weight = nn.Parameter(torch.ones(1, 8, 8))
    train = train._replace(pixels=train.pixels.clone(), labels=torch.zeros(300, dtype=torch.long))
    chosen = set(calibration_samples(train).ids)
    assert len(chosen) == 256
    for row, sample in enumerate(train.ids):
        train.pixels[row] = 0.0 if sample in chosen else 1.0
    assert training_accuracy(OwnNetwork(line, 2), train, 0, 0.1) == {"train_accuracy": 1.0, "train_pgd_accuracy": 1.0}


def accuracies(recipe):
    """Return the mean clean accuracy and that under PGD-20 at eps 0.1 over the test sides of five folds of digits."""
    catalog = open_catalog()
    task, variant = catalog.task("digits").value, catalog.variant("softmax")
    clean, robust = [], []
    for fold in range(task.folds):
        split = task.load(fold)
        model = build(SoftmaxAttention, variant.settings, VisionTransformerShape(**task.pixels, classes=10), 0)
        recipe.fit(model, split.train, 0, **recipe.settings)
        target = ModelTarget(model)
        (attacked,) = PGD.apply(split.test, ("0.1",), Draw(0, "pgd", "shift"), target, **PGD.settings)
        for shares, pixels in ((clean, split.test.pixels), (robust, attacked)):
            with torch.no_grad():
                right = target(pixels, split.test.ids, Draw(0, "pgd", "judge")).argmax(1) == split.test.labels
            shares.append(right.double().mean().item())
    return sum(clean) / len(clean), sum(robust) / len(robust)


@pytest.mark.campaign
def test_one_step_gives_94_percent_clean_and_70_under_pgd_as_the_mean_of_five_folds() -> None:
    clean, robust = accuracies(FGSM_RS)
    assert clean >= 0.94
    assert robust >= 0.70
