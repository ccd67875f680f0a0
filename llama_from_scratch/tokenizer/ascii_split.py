r"""What makes splitting fast: patterns for Python's `re` that split ASCII text as Llama 3 and 4 do.

The patterns of `split` need Unicode classes, which only the slower `regex` has. For ASCII text a
class is a short list of characters, so each pattern has a twin here that gives equal pieces.

Notebook 10. Llama 3 and 4.
"""

import re

# Under re.ASCII `\s` is the six ASCII blanks, as `regex` has it. A piece is recognized by its first
# character, the frequent first, and `++` gives nothing back: both for speed alone.
LLAMA3_ASCII = re.compile(
    r"[A-Za-z]++"
    r"|\n(?= *+\S)"  # a line end, when only an indent follows
    # " word", " +=" or an indent but for its last blank
    r"| (?:[A-Za-z]++|[^\sA-Za-z0-9]++[\r\n]*+| *(?= \S))"
    r"|'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL])"
    r"|[^\r\nA-Za-z0-9][A-Za-z]++"
    r"|[^\sA-Za-z0-9]++[\r\n]*+"
    r"|[0-9]{1,3}+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
_TAIL = r"(?:'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL]))?+"
_LLAMA4_WORD = rf"(?:[a-z]++|[A-Z]++[a-z]*+){_TAIL}"
LLAMA4_ASCII = re.compile(
    rf"{_LLAMA4_WORD}"
    r"|\n(?= *+\S)"
    rf"| (?:{_LLAMA4_WORD}|[^\sA-Za-z0-9]++[\r\n/]*+| *(?= \S))"
    rf"|[^\r\nA-Za-z0-9]{_LLAMA4_WORD}"
    r"|[^\sA-Za-z0-9]++[\r\n/]*+"
    r"|[0-9]{1,3}+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)

# No piece crosses a line end with an indent and a sign or letter after it, so ASCII lines can be
# split apart from the others. In Llama 4 a "/" at the beginning of a line may belong to the signs
# before it.
LINES = re.compile(r"[\x00-\x7f]*\n(?=[ \t]*\S)|(?s:.)+?(?:\n(?=[ \t]*\S)|\Z)")
LINES_BUT_SLASH = re.compile(LINES.pattern.replace(r"(?=[ \t]*\S)", r"(?=[ \t]+\S|[^\s/])"))
# No piece contains a blank that a sign or letter follows, except as its first character.
WORD_BEGIN = re.compile(r" (?=\S)")
