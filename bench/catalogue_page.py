"""The page of all variants, `docs/variants.md`: made from the declarations alone, so that the two always agree."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..models.variant import Setting, Variant
from .catalog import PACKAGE, ROOT, Catalog
from .declaration import Declared
from .markdown import code, setting_texts, table, text_of, words

COMMAND = "attnbench ls variants --markdown"
PAGE = "docs/variants.md"

INTRODUCTION = f"""\
# Attention variants

Made by `{COMMAND} > {PAGE}` from what the files in `models/variants/` declare: change a declaration, not this page.
The tests hold every declaration against the code: each variant equals a textbook form in explicit matrices, and what is
said here of gradients, masks, noise, batches and memory is tried out.

How to read it:

- **Family**: members are near-duplicates and count once in statistics across variants.
- **Formula**: the output of one head, unless it says otherwise. q, k and v are queries, keys and values, one token a
  row; d is the width of a head; `'` transposes; A is the attention map.
- **Map**: the matrix that multiplies the values. *Row-stochastic*: weights from 0 that sum to 1 in each row;
  *nonnegative*: weights from 0; *signed*: some are negative; *implicit*: no fixed matrix acts on the values.
- **Cost**: *fused* is one fused call or a few, with memory linear in the tokens; *matrix* forms matrices of tokens x
  tokens; *linear* takes time and memory linear in the tokens. Then the parameters beyond those of softmax attention.
- **Where**: *causal* works under a causal mask as it is, *causal by prefix* in a form that differs from the paper's,
  *not causal* not at all. Then what it reads and draws, and where it is not applicable.
- **Into trained weights**: put into weights trained with softmax it is the same function (*lossless*), another one
  (*lossy*), or does not fit (*impossible*).
"""

REPORTED = """\
## Numbers that papers report

They cannot be compared with each other, nor with a run of attnbench: networks, data, budgets and eps differ from row to
row, and most come from one seed. They stand here so that a replication knows what it meets, and how that was made.
"""

HEADINGS = (
    *("variant and settings", "family", "what it does differently", "formula", "map", "cost", "where"),
    *("into trained weights", "source", "what to know"),
)
CAUSAL: Mapping[str, str] = {"yes": "causal", "prefix": "causal by prefix", "no": "not causal"}


def built_in(catalog: Catalog) -> list[Declared]:
    """Return the variants that attnbench brings."""
    found = (catalog.found["variant"][name] for name in catalog.names("variant"))
    return [declared for declared in found if declared.origin.module.partition(".")[0] == PACKAGE]


def catalogue_page(declared: Iterable[Declared]) -> str:
    """Return the page in Markdown, sorted by family and name; whole networks are left out."""
    found = ((d, d.value) for d in declared if isinstance(d.value, Variant) and d.value.builds == "core")
    pairs = sorted(found, key=lambda pair: (pair[1].family, pair[1].name))
    families = {variant.family for _, variant in pairs}
    count = f"{len(pairs)} variants in {len(families)} families.\n"
    parts = [INTRODUCTION, count, table(HEADINGS, (_row(d, variant) for d, variant in pairs))]
    numbers = [
        (code(variant.name), *map(words, (f"{r.value:g} {r.unit}", r.of, r.protocol, r.source)))
        for _, variant in pairs
        for r in variant.reported
    ]
    if numbers:
        parts += [REPORTED, table(("variant", "number", "of what", "how", "read in"), numbers)]
    return "\n".join(parts)


def _row(declared: Declared, variant: Variant) -> tuple[str, ...]:
    path = Path(declared.origin.path)
    known = declared.origin.module.partition(".")[0] == PACKAGE and path.is_relative_to(ROOT)
    name = f"[{code(variant.name)}](../{path.relative_to(ROOT).as_posix()})" if known else code(variant.name)
    settings = "".join(f"<br>{code(text)}" for text in setting_texts(variant.settings, variant.choices))
    return (
        name + settings,
        code(variant.family),
        words(variant.summary),
        code(variant.formula),
        words(variant.attention_map.replace("_", "-")),
        words(f"{variant.cost}; added parameters: {variant.extra_parameters}"),
        words("; ".join(_where(variant))),
        variant.pretrained,
        words(variant.source),
        words(" ".join(_to_know(variant))) or "-",
    )


def _where(variant: Variant) -> list[str]:
    found = [CAUSAL[variant.causal]]
    found += [f"reads the {state} layer's projections" for state in variant.layer_state]
    if variant.noise:
        found.append(f"may draw noise ({', '.join(variant.noise)})")
    if not variant.equivariant:
        found.append("depends on the order of the tokens")
    if variant.minimum_tokens > 1:
        found.append(f"not applicable below {variant.minimum_tokens} tokens")
    if variant.heads_multiple_of > 1:
        found.append(f"not applicable unless the number of heads is a multiple of {variant.heads_multiple_of}")
    if variant.needs_grid:
        found.append("not applicable without a grid of patches")
    return found


def _to_know(variant: Variant) -> list[str]:
    """Return caveats and hazards, one sentence each."""
    found = []
    if variant.control_for:
        found.append(f"A control for {', '.join(variant.control_for)}.")
    if variant.norm != "layer_norm":
        found.append(f"It asks the backbone for the norm {variant.norm}.")
    if variant.extra_tokens:
        found.append(f"It asks the backbone for extra tokens, as many as {variant.extra_tokens} says.")
    if variant.calibrates:
        found.append("It measures on training samples after every epoch and keeps that frozen.")
    if variant.measured:
        found.append(f"It is built with what is measured on a trained donor ({', '.join(variant.measured)}).")
    if variant.detaches:
        found.append(f"By default no gradient flows through {', '.join(variant.detaches)}.")
    if variant.open_settings:
        found.append(f"{_set(variant.open_settings)} opens every gradient path.")
    if variant.batch_coupled:
        found.append("The samples of a batch mix.")
    if variant.coupling_settings:
        found.append(f"With {_set(variant.coupling_settings)} the samples of a batch mix.")
    return [*found, *variant.caveats]


def _set(settings: Mapping[str, Setting]) -> str:
    return ", ".join(f"{name}={text_of(value)}" for name, value in settings.items())
