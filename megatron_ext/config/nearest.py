"""The values closest to a refused one that would do, as an error names them."""


def nearest_multiples(value: int, unit: int) -> str:
    """The multiples of ``unit`` on both sides of ``value``, as text; 0 is none."""
    below = value // unit * unit
    return ", ".join(str(number) for number in (below, below + unit) if number > 0)


def nearest_divisors(number: int, value: int) -> str:
    """The divisors of ``number`` on both sides of ``value``, as text."""
    return nearest_of([candidate for candidate in range(1, number + 1) if number % candidate == 0], value)


def nearest_of(candidates: list[int], value: int) -> str:
    """Those of ``candidates`` (ascending) on both sides of ``value``, as text."""
    below = [candidate for candidate in candidates if candidate < value][-1:]
    above = [candidate for candidate in candidates if candidate > value][:1]
    return ", ".join(str(candidate) for candidate in below + above)
