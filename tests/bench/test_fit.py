import math

import pytest
import torch
from torch import nn

from attnbench.attacks.samples import Samples
from attnbench.bench import fit as module
from attnbench.bench.fit import batches, calibration_samples, fit, learning_rate_factor, order, parameter_groups
from attnbench.bench.recipes.smoke import SMOKE
from attnbench.bench.recipes.standard import STANDARD
from attnbench.bench.tasks.digits import load
from attnbench.models.noise import Noise
from attnbench.models.variants.softmax import SoftmaxAttention
from attnbench.models.vit import VisionTransformerShape, build

SHAPE = VisionTransformerShape(dim=8, depth=2, heads=2, patch=4, mlp_ratio=1.0, drop_path=0.0)
SETTINGS = {**STANDARD.settings, "epochs": 2, "batch": 7}


def samples(n=23):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(n, 1, 8, 8, generator=generator)
    return Samples(pixels, torch.arange(n) % 10, tuple(f"probe-{row}" for row in range(n)))


def network(seed=3, core=SoftmaxAttention, shape=SHAPE):
    return build(core, {}, shape, seed)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Watching(SoftmaxAttention):
    """Softmax that writes down the values it sees."""

    def __init__(self, site):
        super().__init__(site)
        self.seen = []

    def forward(self, q, k, v, ctx):
        self.seen.append((self.training, len(q)))
        return super().forward(q, k, v, ctx)


class Calibrated(Watching):
    """Counts its calibrations, and remembers what they looked like."""

    def __init__(self, site):
        super().__init__(site)
        self.calibrations = []

    def calibrate(self, q, k, v, ctx):
        self.calibrations.append((len(self.seen), self.training, torch.is_grad_enabled(), ctx.residual.clone()))


class Noisy(SoftmaxAttention):
    """Adds the noise it declares, and keeps it."""

    noise = (Noise("jitter", (3,), "normal", "always"),)

    def __init__(self, site):
        super().__init__(site)
        self.kept = []

    def forward(self, q, k, v, ctx):
        self.kept.append(ctx.noise["jitter"])
        return super().forward(q, k, v, ctx) + ctx.noise["jitter"].mean(1)[:, None, None, None]


class Broken(SoftmaxAttention):
    """Gives NaN from its third training pass on."""

    passes = 0

    def forward(self, q, k, v, ctx):
        self.passes += 1
        y = super().forward(q, k, v, ctx)
        return y * float("nan") if self.passes > 6 else y


def test_the_same_seed_gives_the_same_weights_and_the_global_generator_is_neither_read_nor_moved():
    results = []
    for disturbance in (1, 2):
        model = network(shape=SHAPE._replace(drop_path=0.3))
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        fit(model, samples(), 3, **SETTINGS)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights(model))
    assert torch.equal(*results)


def test_another_seed_gives_other_weights_even_from_the_same_initial_values():
    one, two = network(), network()
    fit(one, samples(), 3, **SETTINGS)
    fit(two, samples(), 4, **SETTINGS)
    assert not torch.equal(weights(one), weights(two))


def test_each_epoch_visits_every_sample_once_in_an_order_of_its_own():
    first, second, other = order(23, 3, 0), order(23, 3, 1), order(23, 4, 0)
    for visits in (first, second, other):
        assert sorted(visits.tolist()) == list(range(23))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_two_variants_meet_the_same_data_in_the_same_order(monkeypatch):
    visited = []
    cut = module.batches

    def watched(*arguments, **options):
        for batch in cut(*arguments, **options):
            visited[-1].append(batch.ids)
            yield batch

    monkeypatch.setattr(module, "batches", watched)
    for core in (SoftmaxAttention, Noisy):
        visited.append([])
        fit(network(core=core), samples(), 3, **SETTINGS)
    assert visited[0] == visited[1]
    assert [len(ids) for ids in visited[0]] == [6, 6, 6, 5] * 2


def test_mixing_gives_a_share_of_each_sample_to_the_one_after_it():
    train = samples()._replace(labels=torch.arange(23))
    classes = torch.eye(23)
    for count in (1, 4):
        for pixels, targets, ids in batches(train, 3, 0, count=count, classes=23, mixup=0.5):
            rows = [int(sample.removeprefix("probe-")) for sample in ids]
            own = targets[range(len(rows)), rows]
            other = targets[range(len(rows)), rows[-1:] + rows[:-1]]
            assert torch.allclose(own + other, torch.ones(len(rows)))
            assert own.min() >= 0.5
            for row, before, kept, mixture, target in zip(
                rows, rows[-1:] + rows[:-1], own, pixels, targets, strict=True
            ):
                assert torch.allclose(mixture, kept * train.pixels[row] + (1 - kept) * train.pixels[before])
                assert torch.allclose(target, kept * classes[row] + (1 - kept) * classes[before])


def test_shares_belong_to_the_sample_the_epoch_and_the_seed_and_not_to_the_batch():
    train = samples()._replace(labels=torch.arange(23))

    def shares(seed, epoch, count):
        found = torch.empty(23)
        for _, targets, ids in batches(train, seed, epoch, count=count, classes=23, mixup=0.5):
            rows = [int(sample.removeprefix("probe-")) for sample in ids]
            found[rows] = targets[range(len(rows)), rows]
        return found

    assert torch.equal(shares(3, 0, 1), shares(3, 0, 4))
    assert not torch.equal(shares(3, 0, 1), shares(3, 1, 1))
    assert not torch.equal(shares(3, 0, 1), shares(4, 0, 1))


def test_without_mixing_every_sample_is_itself():
    train = samples()
    for pixels, targets, ids in batches(train, 3, 0, count=4, classes=10, mixup=0.0):
        rows = [int(sample.removeprefix("probe-")) for sample in ids]
        assert torch.equal(pixels, train.pixels[rows])
        assert targets.argmax(1).tolist() == train.labels[rows].tolist()
        assert targets.max(1).values.eq(1).all()


def test_noise_belongs_to_the_sample_and_the_epoch_and_is_drawn_for_calibration_too():
    model = network(core=Noisy)
    train = samples()
    fit(model, train, 3, **SETTINGS)
    kept = model.blocks[1].attention.core.kept
    assert len(kept) == 8
    by_sample = []
    for epoch in (0, 1):
        rows = torch.cat(kept[4 * epoch : 4 * epoch + 4])
        by_sample.append(torch.empty(23, 3).index_copy(0, order(23, 3, epoch), rows))
    assert not torch.equal(*by_sample)
    whole = network(core=Noisy)
    fit(whole, train, 3, **{**SETTINGS, "batch": 23, "epochs": 1})
    (rows,) = whole.blocks[1].attention.core.kept
    assert torch.equal(torch.empty(23, 3).index_copy(0, order(23, 3, 0), rows), by_sample[0])


def test_calibration_comes_before_training_and_after_each_epoch_in_eval_mode_without_gradients():
    model = network(core=Calibrated)
    train = samples()
    fit(model, train, 3, **SETTINGS)
    core = model.blocks[0].attention.core
    assert [(seen, training, grad) for seen, training, grad, _ in core.calibrations] == [
        (0, False, False),
        (5, False, False),
        (10, False, False),
    ]
    first = core.calibrations[0][3]
    assert torch.equal(first, network().tokens(calibration_samples(train).pixels).detach())
    assert all(size == 23 for training, size in core.seen if not training)


def test_calibration_uses_the_same_256_samples_whatever_their_order():
    train = load(0).train
    chosen = calibration_samples(train)
    assert len(chosen.ids) == 256
    assert set(chosen.ids) <= set(train.ids)
    assert calibration_samples(train.rows(range(len(train.ids) - 1, -1, -1))).ids == chosen.ids
    assert chosen.ids != train.ids[:256]


def test_the_network_is_left_in_eval_mode_with_trainable_parameters():
    model = network()
    facts = fit(model, samples(), 3, **SETTINGS)
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    assert facts["epochs"] == 2
    assert facts["steps"] == 8
    assert math.isfinite(facts["final_loss"])


def test_a_loss_that_is_not_finite_names_the_epoch_and_the_step():
    with pytest.raises(FloatingPointError, match=r"the training loss is nan in epoch 1, step 6; lower learning_rate"):
        fit(network(core=Broken), samples(), 3, **SETTINGS)


def test_a_last_step_that_breaks_the_weights_is_noticed():
    settings = {**SETTINGS, "epochs": 1, "batch": 23, "warmup": 0.0, "learning_rate": float("inf")}
    with pytest.raises(FloatingPointError, match="a parameter is not finite after epoch 0, step 0"):
        fit(network(), samples(), 3, **settings)


def test_only_the_weights_of_linear_layers_decay():
    decayed, free = (group["params"] for group in parameter_groups(network(), 0.1))
    model = network()
    linear = [m.weight.shape for m in model.modules() if isinstance(m, nn.Linear)]
    assert [p.shape for p in decayed] == linear
    assert len(decayed) + len(free) == len(list(model.parameters()))
    assert any(p.shape == model.position.weight.shape for p in free)


def test_the_learning_rate_rises_then_falls_to_nearly_nothing():
    factors = [learning_rate_factor(step, 10, 110) for step in range(110)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[-1] < 1e-3
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_standard_and_smoke_train_with_the_same_loop_and_settings_but_for_their_length():
    assert {**STANDARD.settings, "epochs": 0} == {**SMOKE.settings, "epochs": 0}
    assert SMOKE.settings["epochs"] < STANDARD.settings["epochs"]


def test_a_few_epochs_learn_the_digits():
    split = load(0)
    model = build(SoftmaxAttention, {}, VisionTransformerShape(), 0)
    fit(model, split.train, 0, **{**SMOKE.settings, "epochs": 4})
    with torch.no_grad():
        right = model(split.test.pixels).argmax(-1) == split.test.labels
    assert right.double().mean() > 0.6
