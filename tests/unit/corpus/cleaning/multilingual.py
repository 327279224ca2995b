"""Texts of many scripts to try things on, and real ones."""

import gzip
import json
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

UDHR = Path(__file__).parents[4] / "examples/udhr/udhr.jsonl.gz"

_WORDS = (
    "the of and a hello World naïve façade Straße … ... # # 12 3.5 - • “quote” (end.) yes! Привет мир ქართული ἀρχή "
    "שלום مرحبا السلام، नमस्ते दुनिया। ప్రపంచం ሰላም፡ለዓለም። 你好世界。 日本語です。 한국어 สวัสดี ພາສາ བོད་ཡིག། မြန်မာ ភាសាខ្មែរ "
    "😀 \ufffd \u200b e\u0301 &amp; Ã© â€™"
)
WORDS = _WORDS.split(" ")
SEPARATORS = (" ", " ", " ", "  ", "\t", "\n", "\n", "\n\n", " \n \n", "\u3000", "\u2028", "\r\n", "\u00a0")

texts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SEPARATORS)), max_size=60).map(
    lambda pairs: "".join(word + separator for word, separator in pairs)
)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@cache
def udhr() -> list[dict[str, str]]:
    """Articles of the Universal Declaration of Human Rights: code, text and others."""
    with gzip.open(UDHR, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
