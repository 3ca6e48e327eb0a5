"""Another attention on trained weights, and the control for it: the logits moved just as far, in a random direction."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attention import Context
from .initial_value import generator_for
from .logit_spread import spread
from .network import Network
from .sight import Seen, logits_of, sight

ROUNDS = 20
"""Corrections of the control's strength; logits that are linear in the queries need one."""
CORE = re.compile(r"(^|\.)cores?\.")
"""What the name of every tensor that belongs to a core and not to its host holds."""


class Exchange(NamedTuple):
    """What became of the tensors when a network took over the weights of another."""

    kept: tuple[str, ...]
    """Tensors around the attention, taken over."""
    initial: tuple[str, ...]
    """Tensors of the new attention; they keep their initial values, or are measured anew."""
    dropped: tuple[str, ...]
    """Tensors of the old attention that nobody reads any more."""


def exchange(weights: Mapping[str, Tensor], network: nn.Module) -> Exchange:
    """Fill a network with weights that were trained with another attention.

    All tensors outside the cores must be there with their shapes; raises ValueError naming the first that is not. No
    tensor of a core is taken over: two mechanisms may call different things by one name.
    """
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if not CORE.search(name) and (name not in weights or weights[name].shape != tensor.shape):
            got = list(weights[name].shape) if name in weights else "nothing"
            raise ValueError(
                f"the weights have {got} for '{name}', which needs {list(tensor.shape)}; swap variants that share it"
            )
    strange = [name for name in weights if not CORE.search(name) and name not in wanted]
    if strange:
        raise ValueError(
            f"the weights hold '{strange[0]}', which the swapped network lacks; swap variants that share it"
        )
    kept = {name: weights[name] for name in wanted if not CORE.search(name)}
    network.load_state_dict({**wanted, **kept})
    initial, dropped = sorted(wanted.keys() - kept.keys()), sorted(weights.keys() - kept.keys())
    return Exchange(tuple(sorted(kept)), tuple(initial), tuple(dropped))


def logit_change(own: nn.Module, other: nn.Module, at: Seen) -> Float[Tensor, " head"]:
    """Return how far the logits of two cores on the same inputs differ: spread of the difference, one number a head.

    Raises TypeError where a core has no logits, naming it.
    """
    return spread(logits_of(other, at) - logits_of(own, at))


class PerturbedAttention(nn.Module):
    """A core whose queries are stretched at random: q * (1 + strength * direction), with fixed normal directions."""

    strength: Tensor
    """One factor a head."""
    direction: Tensor
    """Standard normal, `[head, head_dim]`."""

    def __init__(self, core: nn.Module, direction: Float[Tensor, "head dim"]) -> None:
        super().__init__()
        self.inner = core
        self.register_buffer("direction", direction)
        self.register_buffer("strength", torch.zeros(len(direction)))

    def _moved(self, q: Tensor) -> Tensor:
        return q * (1 + self.strength[:, None] * self.direction)[:, None].to(q.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the heads' outputs."""
        y: Tensor = self.inner(self._moved(q), k, v, ctx)
        return y

    def logits(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context) -> Tensor:
        """Return the logits of the stretched queries."""
        return logits_of(self.inner, Seen(self._moved(q), k, v, ctx))

    @torch.no_grad()
    def meet(self, wanted: Float[Tensor, " head"], at: Seen) -> Float[Tensor, " head"]:
        """Set the strengths so that the logits change as far as asked; return how far they do."""
        self.strength.copy_((wanted > 0).to(self.strength) * 0.1)
        for _ in range(ROUNDS):
            change = logit_change(self.inner, self, at)
            self.strength.mul_(torch.where(change > 0, wanted / torch.where(change > 0, change, 1), 1))
        return logit_change(self.inner, self, at)


@torch.no_grad()
def perturb(
    network: Network, others: Sequence[nn.Module], pixels: Tensor, seed: int
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """Perturb every attention of a network as far as another attention in its place would move its logits.

    Each layer is measured on what the unperturbed network shows it. `others` are the other attention's cores, one a
    layer; directions are a function of the seed and the layer. Returns the change that was asked for and the one met.
    """
    asked, met = [], []
    for layer, (own, other, at) in enumerate(
        zip(network.attentions(), others, sight(network, pixels).places, strict=True)
    ):
        wanted = logit_change(own, other, at)
        direction = torch.randn(at.q.shape[1], at.q.shape[3], generator=generator_for(seed, f"perturbation.{layer}"))
        core = PerturbedAttention(own, direction).to(at.q.device)
        met.append(core.meet(wanted, at))
        asked.append(wanted)
        network.replace_attention(layer, core)
    return torch.stack(asked), torch.stack(met)
