import hashlib

import pytest
import torch
from sklearn.datasets import load_digits

from attnbench.bench.tasks import digits
from attnbench.bench.tasks.digits import DIGITS, load


@pytest.fixture(scope="module")
def splits():
    return [load(fold) for fold in range(5)]


def test_every_sample_is_tested_exactly_once(splits):
    tested = [sample for split in splits for sample in split.test.ids]
    assert tested == [f"digits-{row:04d}" for row in range(1797)]


def test_the_two_sides_of_a_fold_share_nothing_and_miss_nothing(splits):
    for split in splits:
        assert not set(split.train.ids) & set(split.test.ids)
        assert sorted(split.train.ids + split.test.ids) == [f"digits-{row:04d}" for row in range(1797)]


def test_test_sides_are_blocks_of_consecutive_samples_of_nearly_equal_size(splits):
    for split in splits:
        rows = [int(sample.removeprefix("digits-")) for sample in split.test.ids]
        assert rows == list(range(rows[0], rows[0] + len(rows)))
        assert len(rows) in (359, 360)


def test_pixels_and_labels_are_those_of_the_source(splits):
    source = load_digits()
    for split in splits:
        for side in split:
            assert side.pixels.dtype == torch.float32
            assert side.pixels.shape[1:] == (1, 8, 8)
            rows = [int(sample.removeprefix("digits-")) for sample in side.ids]
            assert torch.equal(side.pixels[:, 0].double() * 16, torch.from_numpy(source.images[rows]))
            assert side.labels.tolist() == source.target[rows].tolist()


def test_the_declared_constants_are_those_of_all_pixels(splits):
    pixels = torch.cat([split.test.pixels for split in splits]).double()
    assert DIGITS.pixels["mean"] == pytest.approx(pixels.mean().item(), abs=5e-5)
    assert DIGITS.pixels["std"] == pytest.approx(pixels.std().item(), abs=5e-4)
    assert len(DIGITS.classes) == 10


def test_the_digest_covers_images_and_labels():
    source = load_digits()
    raw = bytes(int(value) for value in source.images.reshape(-1)) + bytes(int(label) for label in source.target)
    assert hashlib.sha256(raw).hexdigest() == DIGITS.digest


def test_changed_data_is_refused(monkeypatch):
    changed = load_digits()
    changed.images[17, 3, 3] = 15 - changed.images[17, 3, 3]
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: changed)
    with pytest.raises(ValueError, match=r"should have sha256 87ff0c9e.* carries .*reinstall scikit-learn"):
        digits.load(0)


@pytest.mark.parametrize("fold", [-1, 5])
def test_an_unknown_fold_is_refused(fold):
    with pytest.raises(ValueError, match=f"digits has no fold {fold}; choose from 0 to 4"):
        load(fold)
