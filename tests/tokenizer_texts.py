"""Texts for the tests of tokenizers: a corpus of code, prose and scripts, and random odd texts."""

import unicodedata

from llama_from_scratch.tokenizer.pieces import Kind, Piece

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
BYTES = {bytes([value]): value for value in range(256)}

# A small vocabulary can learn something from it, and upper and lower case, digits and spaces meet.
CORPUS = (
    "The cat sat on the mat, and the cat's hat WASN'T there. "
    "They'll say: I'm sure we've met, haven't we?\n"
    "def forward(self, x):\n    return self.w2(silu(self.w1(x)) * self.w3(x))\n\n"
    "\tif x == 1234567890:\r\n\t\tpass/\n"
    "naïve café, Ärger über Öl; привет мир, здравствуй; "
    "日本語テスト、東京タワー; 👍🏽👍🏽 1½ ² Ⅳ ΑΒγ Ǆǅ\n   \n"
)
# Every vocabulary of Llama 1 and 2 begins with these.
FIRST_PIECES = [
    Piece("<unk>", 0.0, Kind.UNKNOWN),
    Piece("<s>", 0.0, Kind.CONTROL),
    Piece("</s>", 0.0, Kind.CONTROL),
    *(Piece(f"<0x{value:02X}>", 0.0, Kind.BYTE) for value in range(256)),
]


def random_text(rng, *more, characters=0x110000):
    """Returns a text of words, spaces, digits, controls, characters of all scripts, and `more`."""
    kinds = [
        lambda: rng.choice(CORPUS.split()),
        lambda: rng.choice(CORPUS.split()) + " ",
        lambda: rng.choice(" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000") * rng.randint(1, 4),
        lambda: rng.choice("' ") + rng.choice(["s", "T", "re", "VE", "m", "lL", "d", "ſ", "x"]),
        lambda: str(rng.randrange(10 ** rng.randint(1, 9))),
        lambda: rng.choice("!?.,;:()[]{}<>|=+-_*/\\\"'#@\x00\x07\x7f") * rng.randint(1, 30),
        lambda: assigned_character(rng, characters),
        lambda: rng.choice("éßДж日本👍🏽½²Ⅳ٣\u0301\u200dǄǅʰA"),
        lambda: rng.choice(" ▁") * rng.randint(1, 20),
        *(lambda of=of: rng.choice(of) for of in more),
    ]
    return "".join(rng.choice(kinds)() for _ in range(rng.randint(0, 12)))


def assigned_character(rng, characters):
    """Returns a character that Python's version of Unicode has.

    Libraries with different versions of Unicode may disagree on whether a newer one is a letter.
    """
    while True:
        character = chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, characters)]))
        if unicodedata.category(character) != "Cn":
            return character
