"""What weighs tokens against contamination: every weight is formed token by token."""

from itertools import combinations, product

import torch
from explicit.case import HEAD_DIM, HEADS, Case, Inputs, mixing
from torch import Tensor, nn

from attnbench.models.attention import Attention


def unit(k: Tensor) -> Tensor:
    return k / (k**2).sum(-1, keepdim=True).sqrt()


def kernel(points: Tensor, scale: float) -> Tensor:
    """exp(-scale |x - y|^2) of the tokens of one head, [token, token], pair by pair."""
    return torch.stack([torch.stack([(-scale * ((x - y) ** 2).sum()).exp() for y in points]) for x in points])


def loss_weight(r: Tensor, loss: str, a: float) -> Tensor:
    """psi(r) / r of one point, by the pieces of the loss."""
    if r < a:
        return torch.ones_like(r)
    if loss == "huber" or r < 2 * a:
        return a / r
    falling = a * (3 * a - r) / (3 * a - 2 * a) / r
    return falling if r < 3 * a and falling > 0.01 else torch.full_like(r, 0.01)


def robust_weights(points: Tensor, scale: float, loss: str, form: str, a: float, iterations: int) -> Tensor:
    """Weights of some tokens, [token]; the distance in feature space is a quadratic form of coefficients."""
    gram, n = kernel(points, scale), len(points)
    w = torch.full((n,), 1 / n, dtype=torch.float64)
    for _ in range(iterations):
        psi = []
        for single in torch.eye(n).double():
            if form == "corrected":
                square = (single - w) @ gram @ (single - w)
            else:
                square = single @ gram @ single + single @ gram @ w + w @ gram @ w
            psi.append(loss_weight(square.sqrt(), loss, a))
        w = torch.stack(psi) / torch.stack(psi).sum()
    return w


def rkde(loss: str = "huber", form: str = "corrected", a: float = 0.2, iterations: int = 1) -> Case:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        batch, heads, tokens, head_dim = given.v.shape
        scale, k, rows = head_dim**-0.5, unit(given.k), []
        for b, h, i in product(range(batch), range(heads), range(tokens)):
            read = seen[b, i]
            near = (-scale * ((given.q[b, h, i] - k[b, h, read]) ** 2).sum(-1)).exp()
            keys, values = k[b, h, read], given.v[b, h, read]
            joint = robust_weights(torch.cat((keys, values), -1), scale, loss, form, a, iterations)
            marginal = robust_weights(keys, scale, loss, form, a, iterations)
            rows.append((joint * near) @ values / (marginal * near).sum())
        return torch.stack(rows).view_as(given.v)

    settings = {"loss": loss, "form": form, "threshold": a, "iterations": iterations}
    return Case("rkde", reference, settings)


def dealt(form: str, blocks: int, given: Inputs, b: int) -> list[list[int]]:
    """The real tokens of each block."""
    tokens = [t for t in range(given.v.shape[-2]) if given.mask is None or given.mask[b, t]]
    if form == "resampled":
        tokens.sort(key=lambda t: float(given.noise["blocks"][b, t]))
    return [tokens[block::blocks] for block in range(blocks)]


def mom(form: str, blocks: int, **sizes: int) -> Case:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        batch, heads, tokens, head_dim = given.v.shape
        scale, k, rows = head_dim**-0.5, unit(given.k), []
        for b, h, i in product(range(batch), range(heads), range(tokens)):
            near = (-scale * ((given.q[b, h, i] - k[b, h]) ** 2).sum(-1)).exp()
            readable = [[t for t in block if seen[b, i, t]] for block in dealt(form, blocks, given, b)]
            densities = sorted((near[block].mean().item(), block) for block in readable if block)
            _, median = densities[len(densities) // 2]
            rows.append(near[median] @ given.v[b, h, median] / near[median].sum())
        return torch.stack(rows).view_as(given.v)

    return Case("mom", reference, {"form": form, "blocks": blocks}, **sizes)


def released_mom(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
    """Three subsets of all tokens but one, drawn by the first sample's noise; the middle one of summed log-kernels."""
    k, uniform = unit(given.k), given.noise["blocks"][0]
    logs = -(given.q.shape[-1] ** -0.5) * ((given.q[:, :, :, None] - k[:, :, None]) ** 2).sum(-1)
    subsets = [[t for t in range(len(u)) if u[t] < u.max()] for u in uniform]
    _, median = sorted((logs[..., subset].sum().item(), subset) for subset in subsets)[1]
    return logs[..., median].softmax(-1) @ given.v[:, :, median]


def projection(gram: Tensor, boost: float) -> Tensor:
    """The least of a' G a / 2 - boost mean(G) a on the simplex, [token], by its conditions on the right support."""
    n = len(gram)
    linear = boost * gram.mean(0)
    for size in range(n, 0, -1):
        for chosen in combinations(range(n), size):
            on = torch.tensor(chosen)
            bordered = torch.cat((gram[on][:, on], torch.ones(size, 1)), 1)
            bordered = torch.cat((bordered, torch.cat((torch.ones(1, size), torch.zeros(1, 1)), 1)))
            solved = torch.linalg.solve(bordered.double(), torch.cat((linear[on], torch.ones(1))))
            a = torch.zeros(n).double().index_add(0, on, solved[:-1])
            slack = gram @ a - linear + solved[-1]
            if (a >= 0).all() and (slack > -1e-12).all():
                return a
    raise AssertionError


def spkde(form: str = "sample", gradient: str = "stop", outliers: float = 0.1) -> Case:
    def weights(points: Tensor, read: Tensor) -> Tensor:
        """[batch, head, token]"""
        scale = (points.shape[-1] if points.shape[-1] == HEAD_DIM else points.shape[-1] / 2) ** -0.5
        points = points.detach() if gradient == "stop" else points
        every = list(product(range(points.shape[0]), range(points.shape[1])))
        grams = [kernel(points[b, h, read[b]], scale) for b, h in every]
        if form == "released":
            grams = [torch.stack(grams).mean(0)] * len(grams)
        found = [projection(gram, 1 / (1 - outliers)) for gram in grams]
        spread = [
            torch.zeros(points.shape[2]).double().masked_scatter(read[b], (1 - 1e-6) * a + 1e-6 / len(a))
            for (b, _), a in zip(every, found, strict=True)
        ]
        return torch.stack(spread).view(points.shape[:3])

    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        k, read = unit(given.k), seen[:, 0]
        joint, marginal = weights(torch.cat((k, given.v), -1), read), weights(k, read)
        near = (-(given.q.shape[-1] ** -0.5) * ((given.q[:, :, :, None] - k[:, :, None]) ** 2).sum(-1)).exp()
        return ((near * joint[:, :, None]) @ given.v) / (near * marginal[:, :, None]).sum(-1, keepdim=True)

    settings = {"form": form, "gradient": gradient, "outliers": outliers, "steps": 200}
    return Case("spkde", reference, settings, causal=False, masked=form == "sample")


def protransformer(penalty: str = "mcp", steps: int = 3, threshold: float = 4.0, gradient: str = "stop") -> Case:
    def weight(r: Tensor) -> Tensor:
        if penalty == "l1":
            return 1 / r
        if penalty == "huber":
            return torch.where(r < threshold, torch.ones_like(r), threshold / r)
        return torch.where(1 / r - 1 / threshold > 0.01, 1 / r - 1 / threshold, torch.full_like(r, 0.01))

    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        batch, heads, tokens, head_dim = given.v.shape
        rows = []
        for b, h, i in product(range(batch), range(heads), range(tokens)):
            read = seen[b, i]
            v = given.v[b, h, read]
            attention = (head_dim**-0.5 * given.k[b, h, read] @ given.q[b, h, i]).exp()
            z = attention @ v / attention.sum()
            for _ in range(steps):
                centre, points = (z.detach(), v.detach()) if gradient == "stop" else (z, v)
                w = attention * weight(torch.stack([(centre - point).norm() for point in points]) + 0.01)
                z = w @ v / w.sum()
            rows.append(z)
        return torch.stack(rows).view_as(given.v)

    settings = {"penalty": penalty, "steps": steps, "threshold": threshold, "gradient": gradient}
    return Case("protransformer", reference, settings)


def principal_components(
    k: Tensor, v: Tensor, seen: Tensor, iterations: int, strength: float, threshold: str
) -> Tensor:
    """One head of all samples, in the paper's letters: multiplier Y, penalty mu, one number for each token."""
    head_dim = k.shape[-1]
    scale = head_dim**-0.5
    sizes = (seen.double() @ k.abs().sum(-1, keepdim=True)) / (seen.sum(-1, keepdim=True) * head_dim)
    mu = HEADS / (4 * sizes)
    cut = strength * mu if threshold == "released" else strength / mu
    smooth, multiplier = torch.zeros_like(k), torch.zeros_like(k)
    for _ in range(iterations):
        rest = k - smooth + multiplier / mu
        sparse = torch.where(rest > cut, rest - cut, torch.where(rest < -cut, rest + cut, torch.zeros_like(rest)))
        clean = k - sparse - multiplier / mu
        smooth = mixing((scale * clean @ clean.mT)[:, None], seen)[:, 0] @ v
        multiplier = multiplier + mu * (k - smooth - sparse)
    return smooth


def rpc(iterations: int = 4, strength: float = 4.0, layers: str = "all", threshold: str = "released") -> Case:
    def head(k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        if layers == "first":  # the harness stands in layer 1
            return mixing((k.shape[-1] ** -0.5 * k @ k.mT)[:, None], seen)[:, 0] @ v
        return principal_components(k, v, seen, iterations, strength, threshold)

    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        return torch.stack([head(given.k[:, h], given.v[:, h], seen) for h in range(HEADS)], 1)

    def whole(given: Inputs, seen: Tensor, host: Attention) -> Tensor:
        keys, values = (linear(given.x).chunk(HEADS, -1) for linear in (host.q, host.v))
        heads = [head(k, v, seen) for k, v in zip(keys, values, strict=True)]
        projected: Tensor = host.out(torch.cat(heads, -1))
        return projected

    settings = {"iterations": iterations, "strength": strength, "layers": layers, "threshold": threshold}
    return Case("rpc", reference, settings, whole)


def p_laplacian(p: float, softening: float) -> Case:
    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        apart = torch.zeros(*given.v.shape[:3], given.v.shape[2]).double()
        for coordinate in range(HEAD_DIM):
            one = given.v[..., coordinate]
            apart = apart + (one[..., :, None] - one[..., None, :]) ** 2
        factor = (apart + softening**2).sqrt() ** (p - 2)
        attention = mixing(HEAD_DIM**-0.5 * given.q @ given.k.mT, seen) * factor
        return (attention / attention.sum(-1, keepdim=True)) @ given.v

    return Case("p_laplacian", reference, {"p": p, "softening": softening})


def tropical(distance: str, **sizes: int) -> Case:
    def highest(x: Tensor, weight: Tensor) -> Tensor:
        logs = (1 + torch.where(x > 0, x, torch.zeros_like(x))).log()
        return torch.stack([torch.stack([w + logs[..., i] for i, w in enumerate(row)]).amax(0) for row in weight], -1)

    def apart(q: Tensor, k: Tensor) -> Tensor:
        differences = [a - b for a, b in zip(q, k, strict=True)]
        ordered = sorted(differences, key=lambda d: d.item())
        if distance == "symmetric":
            return ordered[-1] - ordered[0]
        return torch.stack([d - ordered[0] for d in differences]).sum()

    def reference(given: Inputs, seen: Tensor, core: nn.Module) -> Tensor:
        maps = [core.get_parameter(f"{name}_map") for name in ("query", "key", "value")]
        q, k, v = (highest(x, w) for x, w in zip((given.q, given.k, given.v), maps, strict=True))
        batch, heads, tokens, _ = v.shape
        rows = []
        for b, h, i in product(range(batch), range(heads), range(tokens)):
            read = [v[b, h, j] - apart(q[b, h, i], k[b, h, j]) for j in range(tokens) if seen[b, i, j]]
            rows.append(torch.stack(read).amax(0).exp() - 1)
        return torch.stack(rows).view_as(v)

    return Case("tropical", reference, {"distance": distance}, **sizes)


CASES = [
    rkde(),
    rkde(form="released"),
    rkde(a=0.7, iterations=3),
    rkde(form="released", a=1.2, iterations=2),
    rkde("hampel", a=0.3),
    rkde("hampel", a=0.35, iterations=2),
    rkde("hampel", form="released", a=0.5),
    mom("fixed", 3),
    mom("fixed", 4, tokens=11),
    mom("resampled", 3),
    Case("mom", released_mom, {"form": "released", "blocks": 3, "kept": 0.9}, causal=False, masked=False),
    spkde(),
    spkde(gradient="open"),
    spkde(outliers=0.4),
    spkde("released"),
    spkde("released", "open", 0.3),
    protransformer(),
    protransformer(gradient="open"),
    protransformer("mcp", 2, 1.5, "open"),
    protransformer("huber", 3, 1.5),
    protransformer("huber", 2, 2.0, "open"),
    protransformer("l1"),
    protransformer("l1", 1, gradient="open"),
    rpc(layers="first"),
    rpc(),
    rpc(2, 0.7),
    rpc(3, 0.5, threshold="usual"),
    p_laplacian(1.5, 0.1),
    p_laplacian(1.0, 0.3),
    p_laplacian(3.0, 0.1),
    tropical("symmetric"),
    tropical("asymmetric"),
]
