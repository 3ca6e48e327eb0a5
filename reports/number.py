"""Numbers as readers see them: percent for shares, thin digits for the rest, one precision within an interval."""

from .estimate import Estimate

MINUS = "\N{MINUS SIGN}"
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def decimals(value: float) -> int:
    """Return how many decimals a plain number is shown with.

    >>> [decimals(x) for x in (0.5, 9.3, 12.0, 512.0, 2048.0)]
    [3, 3, 2, 1, 0]
    """
    size = abs(value)
    return 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0


def shown(value: float, share: bool = False, like: float | None = None, sign: bool = False) -> str:
    """Return a number as text; `like` is the number whose precision it shares.

    >>> shown(0.4125, share=True), shown(203434), shown(12345678.0), shown(-0.25, sign=True), shown(0.0000123)
    ('41.2', '203,434', '12.35 M', '−0.250', '1.23e−05')
    """
    plus = "+" if sign else ""
    if share:
        text = f"{100 * value:{plus}.1f}"
    else:
        size = abs(value if like is None else like)
        for scale, prefix in PREFIXES:
            if size >= scale:
                return f"{value / scale:{plus}.4g} {prefix}".replace("-", MINUS)
        small = 0 < size < 0.001
        text = f"{value:{plus}.2e}" if small else f"{value:{plus},.{decimals(size)}f}"
    if float(text.replace(",", "")) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def span(
    low: float | None, high: float | None, share: bool = False, like: float | None = None, sign: bool = False
) -> str:
    """Return an interval as text, empty without one."""
    if low is None or high is None:
        return ""
    return f"[{shown(low, share, like, sign)}, {shown(high, share, like, sign)}]"


def phrase(estimate: Estimate, share: bool) -> str:
    """Return an estimate for a sentence."""
    if estimate.value is None:
        return f"not known ({estimate.reason})"
    interval = span(estimate.low, estimate.high, share, estimate.value)
    doubt = f", suspect ({estimate.doubt})" if estimate.doubt else ""
    return f"{shown(estimate.value, share)}{' %' if share else ''}" + (f" {interval}" if interval else "") + doubt


def p_value(p: float | None) -> str:
    """Return a p value as text.

    >>> p_value(0.0001), p_value(0.0312), p_value(None)
    ('< 0.001', '0.031', '-')
    """
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def plural(number: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "network"), plural(3, "network")
    ('1 network', '3 networks')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
