"""A plan as a picture: an HTML file with SVG in it, which needs nothing but a browser."""

import html
import math
from collections.abc import Iterator, Sequence

from megatron_ext.corpus.mixture.plan import Plan
from megatron_ext.corpus.mixture.summary import NO_TIER, Group, amount, as_text, category_groups, tier_groups

# Okabe and Ito's colours, which people with colour vision deficiency tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
UNREAD = "#999999"
WIDTH, HEIGHT, MARGIN = 860, 600, 80
EPOCH_LINES = (0.1, 1, 4, 10, 100)
BAR_HEIGHT, BAR_WIDTH, NAME_WIDTH = 15, 520, 150

STYLE = (
    "body{font:14px sans-serif;max-width:900px;margin:2em auto;color:#222}pre{font-size:12px;overflow:auto}"
)


def as_html(plan: Plan) -> str:
    """The page: available against sampled tokens of each set, shares of tiers and categories, the plan's text."""
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Mixture</title>",
        f"<style>{STYLE}</style></head><body><h1>Mixture</h1>",
        f"<p>Each point is a set; lines are numbers of epochs. Tokens are {html.escape(plan.counted.unit)}.</p>",
        scatter(plan),
    ]
    for title, found in (("Tiers", tier_groups(plan)), ("Categories", category_groups(plan))):
        if len(found) > 1:
            parts += [f"<h2>{title}: share of what is available (grey) and of what is read</h2>", bars(found)]
    parts += ["<h2>Figures</h2>", f"<pre>{html.escape(as_text(plan, every_set=True))}</pre></body></html>"]
    return "\n".join(parts) + "\n"


def scatter(plan: Plan) -> str:
    """Tokens read over tokens available, both logarithmic; sets that are not read lie on the lower edge."""
    available, tokens = plan.available, plan.tokens
    there = available > 0
    xs = _Axis(float(available[there].min()), float(available.max()), MARGIN, WIDTH - 20)
    read = tokens[tokens > 0]
    ys = _Axis(float(read.min()), float(read.max()), HEIGHT - MARGIN, 20)
    colours = _colours(plan)
    parts = [*_grid(xs, ys), *_epoch_lines(xs, ys)]
    epochs = plan.epochs
    for index in range(len(plan.sets)):
        if not there[index]:
            continue
        one, tier = plan.sets[index], plan.tiers[index] or NO_TIER
        count = int(tokens[index])
        y = ys.at(count) if count else HEIGHT - MARGIN
        title = f"{one.name} ({tier}): {amount(one.tokens)} available, {amount(count)} read, {epochs[index]:.3g} epochs"
        colour = colours[tier if plan.config.tiers else one.category] if count else UNREAD
        parts.append(
            f"<circle cx='{xs.at(one.tokens):.1f}' cy='{y:.1f}' r='3' fill='{colour}' fill-opacity='.65'>"
            f"<title>{html.escape(title)}</title></circle>"
        )
    parts += _legend(colours)
    return _svg(WIDTH, HEIGHT, parts)


def bars(found: Sequence[Group]) -> str:
    """Two bars for each group: its share of what is available, and of what is read."""
    total = max(sum(one.available for one in found), 1)
    largest = max(max(one.available / total, one.share) for one in found)
    parts = []
    for index, one in enumerate(found):
        top = BAR_HEIGHT // 2 + index * 3 * BAR_HEIGHT
        parts.append(
            f"<text x='{NAME_WIDTH - 8}' y='{top + 1.25 * BAR_HEIGHT}' text-anchor='end'>{html.escape(one.name)}</text>"
        )
        pairs = ((one.available / total, UNREAD, ""), (one.share, COLOURS[0], f" · {one.epochs:.3g} epochs"))
        for row, (share, colour, note) in enumerate(pairs):
            y, width = top + row * BAR_HEIGHT, BAR_WIDTH * share / largest
            parts.append(
                f"<rect x='{NAME_WIDTH}' y='{y}' width='{width:.1f}' height='{BAR_HEIGHT - 2}' fill='{colour}'/>"
                f"<text x='{NAME_WIDTH + width + 5:.1f}' y='{y + 11}'>{share:.2%}{note}</text>"
            )
    return _svg(WIDTH, (len(found) * 3 + 1) * BAR_HEIGHT, parts)


class _Axis:
    """From a logarithmic range of values, widened to whole powers of ten, to one of pixels."""

    def __init__(self, least: float, most: float, start: float, end: float) -> None:
        self.first, self.last = math.floor(math.log10(least)), math.ceil(math.log10(most))
        self.last = max(self.last, self.first + 1)
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        part = (math.log10(value) - self.first) / (self.last - self.first)
        return self.start + part * (self.end - self.start)

    @property
    def ticks(self) -> list[int]:
        return [10**power for power in range(self.first, self.last + 1)]


def _grid(xs: _Axis, ys: _Axis) -> Iterator[str]:
    for tick in xs.ticks:
        x = xs.at(tick)
        yield f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{ys.end}' y2='{ys.start}' stroke='#eee'/>"
        yield f"<text x='{x:.1f}' y='{ys.start + 18}' text-anchor='middle'>{amount(tick)}</text>"
    for tick in ys.ticks:
        y = ys.at(tick)
        yield f"<line x1='{xs.start}' x2='{xs.end}' y1='{y:.1f}' y2='{y:.1f}' stroke='#eee'/>"
        yield f"<text x='{xs.start - 6}' y='{y + 4:.1f}' text-anchor='end'>{amount(tick)}</text>"
    middle = (xs.start + xs.end) / 2
    yield f"<text x='{middle}' y='{HEIGHT - 20}' text-anchor='middle'>tokens available</text>"
    height = (ys.start + ys.end) / 2
    yield f"<text transform='translate(14 {height}) rotate(-90)' text-anchor='middle'>tokens read</text>"


def _epoch_lines(xs: _Axis, ys: _Axis) -> Iterator[str]:
    """Where the tokens read are so many times those available: the part of each line that is in the picture."""
    for epochs in EPOCH_LINES:
        left = max(10.0**xs.first, 10.0**ys.first / epochs)
        right = min(10.0**xs.last, 10.0**ys.last / epochs)
        if left < right:
            x, y = xs.at(right), ys.at(right * epochs)
            yield (
                f"<line x1='{xs.at(left):.1f}' y1='{ys.at(left * epochs):.1f}' x2='{x:.1f}' y2='{y:.1f}' "
                "stroke='#bbb' stroke-dasharray='4 3'/>"
                f"<text x='{x - 4:.1f}' y='{y + 12:.1f}' text-anchor='end'>{epochs:g}×</text>"
            )


def _colours(plan: Plan) -> dict[str, str]:
    """By tier, or by category where there are no tiers."""
    if plan.config.tiers is None:
        names = list(dict.fromkeys(one.category for one in plan.sets))
    else:
        used = {tier for tier, tokens in zip(plan.tiers, plan.tokens, strict=True) if tokens > 0}
        names = [tier or NO_TIER for tier in (*plan.config.tiers.thresholds, None) if tier in used]
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def _legend(colours: dict[str, str]) -> Iterator[str]:
    for index, (name, colour) in enumerate([*colours.items(), ("not read", UNREAD)]):
        y = 34 + 18 * index
        yield f"<circle cx='{MARGIN + 16}' cy='{y - 4}' r='5' fill='{colour}'/>"
        yield f"<text x='{MARGIN + 28}' y='{y}'>{html.escape(name)}</text>"


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' "
        f"height='{height}' font-family='sans-serif' font-size='12' fill='#444'>\n{inside}\n</svg>"
    )
