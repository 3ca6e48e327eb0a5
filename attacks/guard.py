"""What an attack refuses to start from, in words: inputs, labels and logits that would make its number meaningless."""

import torch
from torch import Tensor

from .samples import Samples


def admitted(samples: Samples) -> Samples:
    """Return copies in float32 of samples that pass `check_samples`, usable for gradients in any mode of the caller."""
    check_samples(samples)
    with torch.inference_mode(False):
        pixels = samples.pixels.to(torch.float32, copy=True)
        return Samples(pixels, samples.labels.to(torch.long, copy=True), samples.ids)


def check_samples(samples: Samples) -> None:
    """Refuse samples that are no images in [0, 1], or whose parts do not belong together. Raises ValueError."""
    pixels, labels, ids = samples
    if not ids:
        raise ValueError("an attack needs at least one sample, got none; look at what was selected")
    if not isinstance(pixels, Tensor) or not isinstance(labels, Tensor):
        raise ValueError(
            f"pixels and labels must be tensors, got {type(pixels).__name__} and {type(labels).__name__}; "
            "turn them into some with torch.as_tensor"
        )
    if labels.ndim != 1 or len(pixels) != len(labels) or len(pixels) != len(ids):
        raise ValueError(
            f"one image, one label and one id a sample are expected, got pixels {list(pixels.shape)}, labels "
            f"{list(labels.shape)} and {len(ids)} ids; give labels [batch] and as many of each"
        )
    _check_pixels(pixels)
    if labels.is_floating_point() or labels.dtype == torch.bool or int(labels.min()) < 0:
        raise ValueError(
            f"labels must be classes, whole numbers from 0, got {labels.dtype} from {labels.min().item():g}; "
            "give each sample the index of its true class's logit"
        )


def _check_pixels(pixels: Tensor) -> None:
    if pixels.ndim != 4 or not pixels.is_floating_point():
        raise ValueError(
            f"pixels must be floating-point [batch, channel, height, width], got {pixels.dtype} {list(pixels.shape)}; "
            "divide bytes by 255, and add the axes that are missing"
        )
    if not pixels.numel():
        raise ValueError(f"images must have pixels, got {list(pixels.shape)}; look at how they were loaded")
    if wrong := int((~pixels.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(
            f"pixels must be numbers from 0 to 1, but {wrong} of {len(pixels)} images have some that are not finite; "
            "look at how they were loaded"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"pixels must lie in [0, 1], got {low:.4g} to {high:.4g}; give raw pixels and normalise inside the model, "
            "and clamp what a resize left outside"
        )


def check_logits(answer: object, labels: Tensor) -> None:
    """Refuse a model's answer that is not logits `[batch, class]`, or not finite, and labels beyond the last class.

    Raises ValueError, and ArithmeticError for numbers that are none.
    """
    logits = tensor_of(answer)
    if logits.ndim != 2 or len(logits) != len(labels) or not logits.is_floating_point():
        raise ValueError(
            f"the model must return floating-point logits [batch, class], got {logits.dtype} {list(logits.shape)} for "
            f"{len(labels)} images; wrap it in a module that returns one row of logits an image"
        )
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(
            f"an attack needs at least 2 classes to confuse, the model has {classes}; of a single score z, "
            "return the logits [0, z]"
        )
    if int(labels.max()) >= classes:
        raise ValueError(
            f"labels must be classes of the model, 0 to {classes - 1}, got {int(labels.max())}; "
            "number them as its logits are"
        )
    if not logits.isfinite().all():
        wrong = int((~logits.isfinite()).any(1).sum())
        raise ArithmeticError(
            f"the attacked model's logits are not finite for {wrong} of {len(logits)} images; find where it divides by "
            "0 or overflows, and mask classes by a large negative number"
        )


class NoGradient(RuntimeWarning):
    """An attack that follows gradients meets a model that has none."""

    def __init__(self) -> None:
        super().__init__(
            "no gradient leads from the model's logits to the pixels, so this attack stands still and what it leaves "
            "says nothing about robustness; remove what detaches (no_grad, detach, rounding), or attack with square"
        )


def checked_gradient(gradient: Tensor) -> Tensor:
    """Return a gradient in the pixels; raises ArithmeticError where it is not finite: every step would be lost."""
    if not gradient.isfinite().all():
        wrong = int((~gradient.isfinite()).flatten(1).any(1).sum())
        raise ArithmeticError(
            f"the gradient of the attacked model's logits in the pixels is not finite for {wrong} of {len(gradient)} "
            "images; find the root, division or logarithm at 0 in it, or attack without gradients, with square"
        )
    return gradient


def tensor_of(answer: object) -> Tensor:
    """Return a model's answer if it is a tensor. Raises ValueError for any other."""
    if isinstance(answer, Tensor):
        return answer
    found = "with .logits " if hasattr(answer, "logits") or (isinstance(answer, dict) and "logits" in answer) else ""
    raise ValueError(
        f"the model must return a tensor of logits [batch, class], got a {type(answer).__name__} {found}instead; "
        "wrap it in a module whose forward returns the logits alone"
    )
