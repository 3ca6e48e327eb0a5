"""How hard each corruption hits at levels 1 to 5, by the size of the images it was chosen for.

`imagenet_224` and `cifar_32` are those of github.com/hendrycks/robustness (make_imagenet_c.py, make_cifar_c.py).

`digits_8` is calibrated: on softmax networks of the standard recipe, version 1 (20 epochs), which get 94.1 % of clean
samples right, levels 1 to 5 should leave 90, 80, 65, 50 and 35 %. With two significant digits,
`examples/calibrate_digits_8.py` reaches

    gaussian_noise  90.4  80.1  64.3  50.4  35.0
    defocus_blur    90.1  81.8  64.4  48.1  35.3
    contrast        90.2  80.2  65.9  49.6  34.0

on samples of the training side that the five networks, one a fold, had not seen; no test block was looked at.
"""

from collections.abc import Mapping

Sets = Mapping[str, tuple[tuple[float, ...], ...]]
"""The constants of one corruption at each level, by the name of the set; each corruption keeps its own in its file."""


def constants_of(sets: Sets, chosen: str, level: str) -> tuple[float, ...]:
    """Return the constants of one set at one level. Raises ValueError for an unknown set or level.

    >>> constants_of({"cifar_32": ((0.3, 0.4), (0.4, 0.5))}, "cifar_32", "2")
    (0.4, 0.5)
    """
    if chosen not in sets:
        raise ValueError(f"unknown constants {chosen!r}; choose from {', '.join(sets)}")
    names = [str(i + 1) for i in range(len(sets[chosen]))]
    if level not in names:
        raise ValueError(f"unknown level {level!r}; choose from {', '.join(names)}")
    return sets[chosen][names.index(level)]
