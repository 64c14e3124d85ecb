"""Text as LaTeX: names in results may hold anything, and what is written compiles with pdfLaTeX and runs no command."""

from __future__ import annotations

import unicodedata

# fmt: off
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    # Other signs in LaTeX's default font encoding, or shorthands of babel.
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedblright{}",
    "`": r"{}\textquoteleft{}",  # after ? and ! it would turn them over
    # After the end of a row they would be an option of it.
    "[": "{[}", "*": "{*}",
    "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "−": "$-$", "≥": r"$\geq$",
    "≤": r"$\leq$", "→": r"$\rightarrow$", "†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--", "—": "---",
    "…": r"\ldots{}", "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}", "‘": r"{}\textquoteleft{}",
    "’": r"\textquoteright{}", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}",
}
ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`", "\N{COMBINING ACUTE ACCENT}": "'", "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~", "\N{COMBINING DIAERESIS}": '"', "\N{COMBINING RING ABOVE}": "r ",
    "\N{COMBINING CEDILLA}": "c ", "\N{COMBINING CARON}": "v ", "\N{COMBINING BREVE}": "u ",
    "\N{COMBINING MACRON}": "=", "\N{COMBINING DOT ABOVE}": ".", "\N{COMBINING DOUBLE ACUTE ACCENT}": "H ",
}
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
    "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega",
))
# fmt: on
BREAKS = frozenset(",=[")
"""Signs after which a name may be broken."""


def escaped(text: str) -> str:
    """The text as LaTeX shows it; a character that pdfLaTeX's default fonts lack stands as `[U+4E2D]`."""
    return "".join(map(_character, _spread(text)))


def breakable(text: str) -> str:
    """The same, and lines may break within names of many parameters: `quick[epochs=10,`, `lr=1]`."""
    spread = _spread(text)
    return "".join(
        _character(c) + (r"\allowbreak{}" if c in BREAKS and after.isalpha() else "")
        for c, after in zip(spread, [*spread[1:], ""], strict=False)
    )


def _spread(text: str) -> list[str]:
    """The characters, with nothing (`""`) between two that LaTeX would draw as one sign: `--`, `''`, `,,`."""
    joined = " ".join(text.split())
    apart = (["", c] if c in "-'," and c == before else [c] for before, c in zip(" " + joined, joined, strict=False))
    return [c for some in apart for c in some]


def _character(character: str) -> str:
    if not character:
        return "{}"
    if character in SPECIAL:
        return SPECIAL[character]
    if character.isascii() and character.isprintable():
        return character
    base, marks = unicodedata.normalize("NFD", character)[0], unicodedata.normalize("NFD", character)[1:]
    if marks in ACCENTS and base.isascii() and base.isalpha():
        letter = {"i": r"\i", "j": r"\j"}.get(base, base)  # the accent stands in place of the dot
        return f"\\{ACCENTS[marks]}{{{letter}}}"
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"] and len(words) == 4:
        name = words[3].replace("LAMDA", "LAMBDA").lower()
        name = name if words[1] == "SMALL" else name.capitalize()
        if name in GREEK:
            return f"$\\{name}$"
    return f"{{[}}U+{ord(character):04X}]"
