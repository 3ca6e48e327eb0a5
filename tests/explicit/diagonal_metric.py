"""Elliptical attention and its controls: one full matrix of stretches for each query."""

import torch
from explicit.case import Case, Inputs, Reference, mixing
from torch import Tensor, nn

STRETCH = torch.tensor([[0.2, 1, 0.5, 0.9, 0.4], [1, 0.3, 0.6, 0.1, 0.8], [0.7, 0.25, 0.15, 1, 0.35]]).double()


def metric_logits(q: Tensor, k: Tensor, m: Tensor) -> Tensor:
    """q' diag(m) k / sqrt(d) with one full matrix for each query; m is [batch, head, query, dim]."""
    return q.shape[-1] ** -0.5 * torch.einsum("bhtd,bhtde,bhse->bhts", q, torch.diag_embed(m), k)


def elliptical_metric(v: Tensor, before: Tensor, seen: Tensor, statistic: str, scaling: str) -> Tensor:
    """m of each query from the tokens it sees."""
    batch, heads, tokens, head_dim = v.shape
    rows = []
    for b in range(batch):
        for h in range(heads):
            for t in range(tokens):
                change = torch.stack([(v[b, h, s] - before[b, h, s]).abs() for s in range(tokens) if seen[b, t, s]])
                if statistic == "mean":
                    w = change.sum(0) / len(change)
                else:
                    w = change.sort(0).values[(len(change) - 1) // 2]
                rows.append(w / (w.max() if scaling == "max" else w.sum() / head_dim))
    return torch.stack(rows).view(batch, heads, tokens, head_dim)


def elliptical(statistic: str, scaling: str, gradient: str) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        m = elliptical_metric(given.v, given.previous, seen, statistic, scaling)
        m = m.detach() if gradient == "stop" else m
        return mixing(metric_logits(given.q, given.k, m), seen) @ given.v

    return reference


def mahalanobis_logits(q: Tensor, k: Tensor, m: Tensor) -> Tensor:
    """-(q - k)' diag(m) (q - k) / 2 with one full matrix for each query."""
    difference = q[:, :, :, None] - k[:, :, None]
    return -torch.einsum("bhtsd,bhtde,bhtse->bhts", difference, torch.diag_embed(m), difference) / 2


def mahalanobis(statistic: str, scaling: str, gradient: str) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        m = elliptical_metric(given.v, given.previous, seen, statistic, scaling)
        m = m.detach() if gradient == "stop" else m
        logits = mahalanobis_logits(given.q, given.k, m) / given.q.shape[-1] ** 0.5
        return mixing(logits, seen) @ given.v

    return reference


def elliptical_quest(statistic: str, scaling: str, gradient: str, form: str) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        m = elliptical_metric(given.v, given.previous, seen, statistic, scaling)
        m = m.detach() if gradient == "stop" else m
        unit = given.k / (given.k**2).sum(-1, keepdim=True).sqrt()
        if form == "mahalanobis":
            logits = mahalanobis_logits(given.q, unit, m)
        else:
            logits = torch.einsum("bhtd,bhtd,bhsd->bhts", given.q, m, unit)
        return mixing(logits, seen) @ given.v

    return reference


def stretched(given: Inputs, seen: Tensor, m: Tensor) -> Tensor:
    """Attention with one fixed diagonal for each head, `[head, dim]`."""
    return mixing(metric_logits(given.q, given.k, m[None, :, None].expand_as(given.q)), seen) @ given.v


def fixed(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    return stretched(given, seen, STRETCH)


def resampled(bottom: float) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        m = bottom + (1 - bottom) * given.noise["metric"]
        m = m / m.max(-1, keepdim=True).values
        return mixing(metric_logits(given.q, given.k, m[:, :, None].expand_as(given.q)), seen) @ given.v

    return reference


def calibrated_metric(rows: slice, scaling: str) -> Tensor:
    """m of the mean change over some calibration samples, [head, dim]."""
    calibration = Case("static_metric", fixed).calibration()
    w = (calibration.v - calibration.previous)[rows].abs().mean(dim=(0, 2))
    return w / (w.amax(-1, keepdim=True) if scaling == "max" else w.mean(-1, keepdim=True))


def calibrated(rows: slice, scaling: str) -> Reference:
    return lambda given, seen, core: stretched(given, seen, calibrated_metric(rows, scaling))


def set_stretch(core: nn.Module) -> None:
    core.get_buffer("frozen").copy_(STRETCH)


METRICS = (("mean", "max", "stop"), ("median", "mean", "stop"), ("mean", "mean", "open"))
"""Statistic, scaling and gradient: every value once, where all combinations would say no more."""
MAHALANOBIS = [
    Case(
        "elliptical",
        mahalanobis(statistic, scaling, gradient),
        {"statistic": statistic, "scaling": scaling, "gradient": gradient, "form": "mahalanobis"},
        causal=statistic == "mean",
    )
    for statistic, scaling, gradient in METRICS
]
"""Elliptical attention under the true distance, which an even metric does not make softmax."""
CASES = [
    *(
        Case(
            "elliptical",
            elliptical(statistic, scaling, gradient),
            {"statistic": statistic, "scaling": scaling, "gradient": gradient},
            causal=statistic == "mean",
        )
        for statistic in ("mean", "median")
        for scaling in ("max", "mean")
        for gradient in ("stop", "open")
    ),
    *(
        Case(
            "elliptical_quest",
            elliptical_quest(statistic, scaling, gradient, form),
            {"statistic": statistic, "scaling": scaling, "gradient": gradient, "form": form},
            causal=statistic == "mean",
        )
        for statistic, scaling, gradient in METRICS
        for form in ("dot", "mahalanobis")
    ),
    *MAHALANOBIS,
    Case("random_metric", fixed, set=set_stretch),
    Case("random_metric", resampled(0.0), {"draw": "resampled"}),
    Case("random_metric", resampled(0.3), {"draw": "resampled", "bottom": 0.3}),
    Case("static_metric", calibrated(slice(None), "max")),
    Case("static_metric", calibrated(slice(None), "mean"), {"scaling": "mean"}),
    Case("cross_sample_metric", calibrated(slice(1), "max")),
    Case("cross_sample_metric", calibrated(slice(1), "mean"), {"scaling": "mean"}),
]
