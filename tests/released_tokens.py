"""What is known of the released ranks of Llama 3 and 4, and whole rank files that hold it."""

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
IN_NO_TEXT = [0xC0, 0xC1, *range(0xF5, 0x100)]  # bytes that UTF-8 never has
# What is known of the 128,000 and 200,000 tokens.
KNOWN_3 = {
    "This": 2028, " is": 374, " a": 264, " test": 1296, " sentence": 11914, "Hello": 9906,
    " world": 1917, " Hello": 22691, " two": 1403, " spaces": 12908, "\n\n": 271, "system": 9125,
    "user": 882, "assistant": 78191, "123": 4513, "456": 10961, "789": 16474, "don": 15357,
    "'t": 956, " DON": 45373, "'T": 17773, "él": 19010, "lo": 385, "   ": 262, "\tif": 748,
    " x": 865, ":\r\n": 2904, "ot": 354, "_id": 851, "é": 300,
}  # fmt: skip
KNOWN_4 = {
    "This": 3231, " is": 373, " a": 262, " test": 1600, " sentence": 17705, "Hello": 19873,
    " world": 3817, "\n\n": 368, "system": 15651, "user": 1556, "assistant": 140680, "123": 7235,
    "456": 19596, "789": 30054, "don't": 127161, "I'm": 23752, " I": 300, " I'": 5384, "/y": 28889,
    "//": 405,
}  # fmt: skip


def ranks_with(known: dict[str, int], bytes_in_order: list[int], size: int) -> dict[bytes, int]:
    """`size` ranks: the bytes, the `known` tokens in their places, tokens of no text elsewhere."""
    ranks = {bytes([value]): i for i, value in enumerate(bytes_in_order)}
    ranks |= {text.encode(): i for text, i in known.items()}
    taken = set(ranks.values())
    return ranks | {b"\xff\xfe%d" % i: i for i in range(size) if i not in taken}


def in_order(first: list[int]) -> list[int]:
    rest = [value for value in PRINTABLE if value not in first]
    return [*first, *rest, *(value for value in range(256) if value not in {*first, *rest})]
