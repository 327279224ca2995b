"""Where the standards' tables are silent, contradict a habit of corpora, or leave a choice: every decision of ours.

A project that decides otherwise says so in its file of aliases, which wins over everything here.
"""

# What Wikipedia and corpora taken from it call a language, where BCP 47 would read something else or nothing.
# Source: https://meta.wikimedia.org/wiki/Special_language_codes. And fa-AF, which CLDR writes for prs (Dari).
WHOLE_CODES = {
    "bat-smg": "sgs",
    "be-x-old": "bel",
    "cbk-zam": "cbk",
    "fa-af": "prs",
    "fiu-vro": "vro",
    "map-bms": "jav",
    "nds-nl": "nds",
    "roa-rup": "rup",
    "roa-tara": "nap",
    "simple": "eng",
    "zh-classical": "lzh",
}

# `bih` (`bh`) is ISO 639-2's group of Bihari languages. CLDR reads it as Bhojpuri, and so does Wikipedia, whose
# bh edition is written in Bhojpuri and is where corpora have the code from.
CODES = {"bh": "bho", "bih": "bho"}

# Members of groups (ISO 639-5) that were met as labels of corpora: no text is written in a group. Only the largest.
GROUP_MEMBERS = {
    "bat": "lit (Lithuanian), lav (Latvian), ltg (Latgalian), sgs (Samogitian)",
    "ber": "kab (Kabyle), tzm (Central Atlas Tamazight), shi (Tachelhit), rif (Tarifit), zgh (Moroccan)",
    "fiu": "fin (Finnish), est (Estonian), hun (Hungarian), vro (Võro), kom (Komi), udm (Udmurt)",
    "map": "ind (Indonesian), jav (Javanese), sun (Sundanese), tgl (Tagalog), mri (Maori)",
    "nah": "nhe (Eastern Huasteca), nhw (Western Huasteca), nch (Central Huasteca), ngu (Guerrero), azz (Puebla)",
    "roa": "rup (Aromanian), nap (Neapolitan), scn (Sicilian), ast (Asturian), lmo (Lombard)",
}

# Main members of macrolanguages are CLDR's choice (langcodes carries it) but for these. CLDR counts `no` and Bokmål as
# one, and has two members for Akan, which in print is Twi.
MAIN_MEMBERS = {"nor": "nob", "aka": "twi"}

# Macrolanguages whose text stays under their own code, for no member prevails: CLDR names another than FLORES-200 does
# (ful, pus, que), two (man), or one of several that are languages apart. Serbo-Croatian and Sanskrit have none in CLDR.
NO_MAIN_MEMBER = frozenset(
    {"cre", "ful", "hmn", "luy", "man", "oji", "pus", "que", "raj", "syr", "zap", "zha"}
)

# Where the script says which member of a macrolanguage a text is in, it wins over the main member.
MEMBERS_BY_SCRIPT = {
    ("aze", "Arab"): "azb",
    ("kur", "Arab"): "ckb",
    ("mon", "Mong"): "mvf",
    ("uzb", "Arab"): "uzs",
}

# Styles of one script, which Unicode does not tell apart; parts of what Japanese and Korean mix, which are no script of
# a whole text; and what people write instead of the code.
SCRIPT_CODES = {
    "Aran": "Arab",
    "Cyrs": "Cyrl",
    "Geok": "Geor",
    "Hanb": "Hant",
    "Hang": "Kore",
    "Hira": "Jpan",
    "Hrkt": "Jpan",
    "Jamo": "Kore",
    "Japn": "Jpan",
    "Kana": "Jpan",
    "Latf": "Latn",
    "Latg": "Latn",
    "Qaac": "Copt",
    "Qaai": "Zinh",
    "Syre": "Syrc",
    "Syrj": "Syrc",
    "Syrn": "Syrc",
}

# English names that neither Unicode nor CLDR has.
SCRIPT_NAMES = {"chinese": "Hani", "hanzi": "Hani", "kanji": "Hani", "roman": "Latn", "burmese": "Mymr"}

# Scripts that a text may be declared to be in when all its letters are Han, which detection calls Hani: it cannot tell
# Hans from Hant, whose letters overlap, and short texts in Japanese and Korean may lack the others.
WITH_HAN = frozenset({"Hans", "Hant", "Jpan", "Kore"})
SCRIPT_OF_LANGUAGE = {"jpn": "Jpan", "kor": "Kore"}

# Codes that say nothing about letters: inherited, symbols, mathematics, unwritten, undetermined, unknown.
NO_SCRIPT = frozenset({"Zinh", "Zmth", "Zsye", "Zsym", "Zxxx", "Zyyy", "Zzzz"})
