"""Noise that belongs to a sample: a function of the noise seed, the shift, the purpose, the pass and the sample id.

It never depends on the variant, the training seed, the severity, the batch or the order, so all variants meet the same
noise and no number changes with batch size, sharding or resume. The streams of attacker and judge never meet, because
they draw for different purposes.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Distribution = Literal["uniform", "normal"]


class Draw(NamedTuple):
    """One family of streams; `at` moves to another pass, `named` to another tensor."""

    noise_seed: int
    """The protocol's noise seed."""
    shift: str
    """Name of the shift, settings and severity left out."""
    purpose: str
    """What the noise is for: `shift`, `attack`, `judge`, `train`."""
    repeat: int = 0
    """Restart, pass or epoch."""
    name: str = ""
    """Which tensor, where a purpose needs several."""

    def at(self, repeat: int) -> "Draw":
        """Return the streams of another restart, pass or epoch."""
        return self._replace(repeat=repeat)

    def named(self, name: str) -> "Draw":
        """Return the streams of another tensor."""
        return self._replace(name=name)

    def uniform(self, ids: Sequence[str], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Return numbers on [0, 1), float32, `[len(ids), *shape]`; row i depends on ids[i] alone."""
        return self._fill(ids, shape, "uniform").to(device)

    def normal(self, ids: Sequence[str], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Return standard normal numbers, float32, `[len(ids), *shape]`; row i depends on ids[i] alone."""
        return self._fill(ids, shape, "normal").to(device)

    def of(
        self, distribution: Distribution, ids: Sequence[str], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return numbers of the named distribution."""
        return self._fill(ids, shape, distribution).to(device)

    def _fill(self, ids: Sequence[str], shape: Sequence[int], distribution: Distribution) -> Tensor:
        out = torch.empty(len(ids), *shape)
        stream = hashlib.blake2b(
            "\0".join((str(self.noise_seed), self.shift, self.purpose, str(self.repeat), self.name)).encode(),
            digest_size=32,
        ).digest()
        generator = torch.Generator()
        for row, sample in zip(out, ids, strict=True):
            digest = hashlib.blake2b(sample.encode(), digest_size=8, key=stream).digest()
            generator.manual_seed(int.from_bytes(digest, "big") >> 1)
            if distribution == "uniform":
                row.uniform_(generator=generator)
            else:
                row.normal_(generator=generator)
        return out
