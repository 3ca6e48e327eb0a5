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

Levels = tuple[tuple[float, ...], ...]

CONSTANTS: Mapping[str, Mapping[str, Levels]] = {
    "digits_8": {
        "gaussian_noise": ((0.12,), (0.21,), (0.29,), (0.37,), (0.5,)),
        "defocus_blur": ((0.79,), (1.1,), (1.6,), (1.9,), (2.2,)),
        "contrast": ((0.58,), (0.39,), (0.28,), (0.2,), (0.13,)),
    },
    "cifar_32": {
        "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
        "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    },
    "imagenet_224": {
        "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        "defocus_blur": ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
        "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    },
}
"""By set, corruption and level, from level 1 on."""


def constants_of(chosen: str, corruption: str, level: str) -> tuple[float, ...]:
    """Return the constants of one corruption at one level. Raises ValueError for an unknown set or level.

    >>> constants_of("cifar_32", "defocus_blur", "4")
    (1.0, 0.2)
    """
    if chosen not in CONSTANTS:
        raise ValueError(f"unknown constants {chosen!r} for {corruption}; choose from {', '.join(CONSTANTS)}")
    levels = CONSTANTS[chosen][corruption]
    names = [str(i + 1) for i in range(len(levels))]
    if level not in names:
        raise ValueError(f"unknown level {level!r} of {corruption}; choose from {', '.join(names)}")
    return levels[names.index(level)]
