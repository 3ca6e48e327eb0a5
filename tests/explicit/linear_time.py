"""Attention in linear time, with its matrix of tokens x tokens written out."""

import math

import torch
from explicit.case import Case, Inputs, Reference, mixing
from torch import Tensor, nn


def averaged(weights: Tensor, given: Inputs, seen: Tensor, eps: float = 0, floor: float = 0) -> Tensor:
    """Values weighed by the visible weights over their sum plus eps, or over the floor."""
    weights = weights * seen[:, None]
    return weights / (weights.sum(-1, keepdim=True) + eps).clamp(min=floor) @ given.v


def linear(eps: float) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        weights = torch.zeros(*given.q.shape[:3], given.q.shape[2]).double()
        for d in range(given.q.shape[-1]):
            q, k = (torch.nn.functional.elu(x[..., d]) + 1 for x in (given.q, given.k))
            weights = weights + q[..., :, None] * k[..., None, :]
        return averaged(weights, given, seen, eps)

    return reference


def cosformer(floor: float) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        tokens = given.q.shape[2]
        cosine = [[math.cos(math.pi * (i - j) / (2 * tokens)) for j in range(tokens)] for i in range(tokens)]
        weights = given.q.clamp(min=0) @ given.k.clamp(min=0).mT * torch.tensor(cosine, dtype=torch.float64)
        return averaged(weights, given, seen, floor=floor)

    return reference


def gram_schmidt(columns: Tensor) -> list[Tensor]:
    """Orthonormal vectors from the columns of a square matrix, first one first."""
    found: list[Tensor] = []
    for column in columns.T:
        for other in found:
            column = column - (other @ column) * other
        found.append(column / column.norm())
    return found


def random_rows(given: Inputs, core: nn.Module, sample: int, features: int) -> Tensor:
    if not given.noise:
        return core.get_buffer("projection")
    directions, lengths = given.noise["features"][sample]
    dim = directions.shape[-1]
    unit = [row for start in range(0, len(directions), dim) for row in gram_schmidt(directions[start : start + dim])]
    return torch.stack([row * length.norm() for row, length in zip(unit, lengths, strict=True)][:features])


def performer(features: int, eps: float) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        weights = []
        for b in range(len(given.q)):
            real = seen[b].any(0)
            w = random_rows(given, core, b, features)
            assert len(w) == features
            q, k = given.q[b] / given.q.shape[-1] ** 0.25, given.k[b] / given.q.shape[-1] ** 0.25
            along_q, along_k = q @ w.T, k @ w.T
            size_q, size_k = ((x**2).sum(-1, keepdim=True) / 2 for x in (q, k))
            if eps:
                along_q = along_q - along_q.max(-1, keepdim=True).values
                along_k = along_k - along_k[:, real].flatten(1).max(1).values[:, None, None]
            weights.append(((along_q - size_q).exp() + eps) @ ((along_k - size_k).exp() + eps).mT)
        return averaged(torch.stack(weights), given, seen)

    return reference


FRONT, ROWS, COLUMNS = 2, 3, 7


def convolved(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution of `[row, column, channel]` by loops, zeros outside."""
    rows, columns, _ = image.shape
    side = weight.shape[-1]
    out = []
    for r in range(rows):
        for c in range(columns):
            total = bias
            for i in range(side):
                for j in range(side):
                    y, x = r + i - side // 2, c + j - side // 2
                    if 0 <= y < rows and 0 <= x < columns:
                        total = total + weight[:, 0, i, j] * image[y, x]
            out.append(total)
    return torch.stack(out)


def focused_linear(power: float, length: str, positions: bool) -> Reference:
    def focus(x: Tensor, core: nn.Module) -> Tensor:
        r = (x.clamp(min=0) + 1e-6) / (1 + core.get_parameter("scale").exp()).log()
        p = r**power
        sizes = [(a**2).sum(-1, keepdim=True) for a in (r, p)]
        if length == "token":
            sizes = [s.sum(1, keepdim=True) for s in sizes]
        return (sizes[0] / sizes[1]).sqrt() * p

    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        k = given.k + core.get_parameter("position") if positions else given.k
        counts = seen[:, 0].sum(-1).double()[:, None, None, None]
        weights = focus(given.q, core) @ focus(k, core).mT * seen[:, None]
        y = weights / counts / (weights.sum(-1, keepdim=True) / counts + 1e-6) @ given.v
        weight, bias = core.get_parameter("conv.weight"), core.get_parameter("conv.bias")
        v = given.v * seen[:, None, 0, :, None]
        images = v[:, :, FRONT:].reshape(*v.shape[:2], ROWS, COLUMNS, v.shape[-1])
        local = torch.stack([torch.stack([convolved(image, weight, bias) for image in heads]) for heads in images])
        return y + torch.cat((torch.zeros_like(v[:, :, :FRONT]), local), 2)

    return reference


def nystromformer(lengths: tuple[int, ...], iterations: int, kernel: int, batch: bool) -> Reference:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        real = seen[:, None, 0, :, None]
        q, k, v = (x * real for x in (given.q, given.k, given.v))
        scale, tokens = q.shape[-1] ** -0.5, q.shape[2]
        means = torch.zeros(len(lengths), tokens).double()
        for row, length in enumerate(lengths):
            means[row, sum(lengths[:row]) :][:length] = 1 / length
        everything = torch.ones(len(q), 1, 1).bool()
        between = mixing(scale * (means @ q) @ (means @ k).mT, everything)
        columns = between.sum(-2)
        z = between.mT / (columns.max() if batch else columns.max(-1).values[..., None, None])
        for _ in range(iterations):
            a = between @ z
            z = (13 * z - 15 * z @ a + 7 * z @ a @ a - z @ a @ a @ a) / 4
        left, right = mixing(scale * q @ (means @ k).mT, everything), mixing(scale * (means @ q) @ k.mT, seen[:, :1])
        y = left @ z @ right @ v
        if kernel:
            weight = core.get_parameter("conv.weight")
            band = torch.zeros(q.shape[1], tokens, tokens).double()
            for offset in range(kernel):
                shift = offset - kernel // 2
                band = band + weight[:, 0, offset][..., None] * torch.ones(tokens).double().diag().roll(shift, 1).tril(
                    shift
                ).triu(shift)
            y = y + band @ v
        return y

    return reference


def focused(settings: dict[str, str | int | float | bool], *form: object) -> Case:
    reference = focused_linear(*form)  # type: ignore[arg-type]
    tokens = FRONT + ROWS * COLUMNS
    return Case(
        "focused_linear", reference, settings, causal=False, tokens=tokens, grid=(ROWS, COLUMNS), prefix_tokens=FRONT
    )


CASES = [
    Case("linear", linear(1e-6)),
    Case("linear", linear(0), {"eps": 0.0}),
    Case("linear", linear(0.25), {"eps": 0.25}, tokens=131),
    Case("cosformer", cosformer(1e-6)),
    Case("cosformer", cosformer(0.5), {"eps": 0.5}, tokens=67),
    Case("performer", performer(8, 0)),
    Case("performer", performer(13, 0), {"features": 13, "draw": "resampled"}),
    Case("performer", performer(8, 1e-4), {"eps": 1e-4}, causal=False),
    focused({}, 3, "token", True),
    focused({"power": 1.5, "kernel": 3, "length": "head", "positions": "none"}, 1.5, "head", False),
    Case(
        "nystromformer",
        nystromformer((2, 2, 3), 6, 33, False),
        {"landmarks": 3},
        causal=False,
    ),
    Case(
        "nystromformer",
        nystromformer((3, 3, 3, 4), 2, 5, True),
        {"landmarks": 4, "iterations": 2, "kernel": 5, "start": "batch"},
        causal=False,
        tokens=13,
    ),
    Case(
        "nystromformer",
        nystromformer((2, 2, 2), 6, 0, False),
        {"landmarks": 3, "kernel": 0},
        causal=False,
        tokens=6,
    ),
]
