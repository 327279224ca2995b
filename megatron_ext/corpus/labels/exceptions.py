"""Where the standards' tables are silent, contradict a habit of corpora, or leave a choice: every decision of ours.

A project that decides otherwise says so in its file of aliases, which wins over everything here.
"""

# What Wikipedia and corpora taken from it call a language, where BCP 47 would read something else or nothing.
# Source: https://meta.wikimedia.org/wiki/Special_language_codes
WIKIMEDIA_CODES = {
    "bat-smg": "sgs",
    "be-x-old": "bel",
    "cbk-zam": "cbk",
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
    ("lah", "Guru"): "pan",
    ("mon", "Mong"): "mvf",
    ("uzb", "Arab"): "uzs",
}

# Styles and subsets of one script, which Unicode does not tell apart, and what people write instead of the code.
SCRIPT_CODES = {
    "Aran": "Arab",
    "Cyrs": "Cyrl",
    "Geok": "Geor",
    "Hanb": "Hant",
    "Hang": "Kore",
    "Hrkt": "Jpan",
    "Jamo": "Kore",
    "Japn": "Jpan",
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

# Scripts that are written with the letters of others. Detection cannot answer Hans or Hant: their letters overlap.
LETTERS_OF = {
    "Jpan": frozenset({"Hira", "Kana", "Hani"}),
    "Kore": frozenset({"Hang", "Hani"}),
    "Hans": frozenset({"Hani"}),
    "Hant": frozenset({"Hani"}),
}

# Codes that say nothing about letters: inherited, symbols, mathematics, unwritten, undetermined, unknown.
NO_SCRIPT = frozenset({"Zinh", "Zmth", "Zsye", "Zsym", "Zxxx", "Zyyy", "Zzzz"})

# Languages that are never written in only one of the scripts whose letters they mix, however short the text.
SCRIPT_OF_LANGUAGE = {"jpn": "Jpan", "kor": "Kore"}
