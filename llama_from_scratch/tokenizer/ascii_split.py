r"""Fast splitting: patterns for Python's `re` that split ASCII text as Llama 3 and 4 do.

The patterns of `split` need Unicode classes, which only the slower module `regex` has. In ASCII a
class is a short list of characters, so each pattern has a twin here that gives the same pieces.

Notebook 10. Llama 3 and 4.
"""

import re

# With re.ASCII, `\s` is the six ASCII white-space characters, as in `regex`. Alternatives differ in
# the first character of a piece, the frequent ones come first, and `++` never backtracks. Both only
# make it faster.
LLAMA3_ASCII = re.compile(
    r"[A-Za-z]++"
    r"|\n(?= *+\S)"  # a line end, when only an indent follows
    # " word", " +=" or an indent without its last space
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

# No piece crosses a line end that is followed by an indent and a sign or letter. So ASCII lines can
# be split separately from the others. In Llama 4 a "/" at the beginning of a line may belong to the
# signs before it.
LINES = re.compile(r"[\x00-\x7f]*\n(?=[ \t]*\S)|(?s:.)+?(?:\n(?=[ \t]*\S)|\Z)")
LINES_BUT_SLASH = re.compile(LINES.pattern.replace(r"(?=[ \t]*\S)", r"(?=[ \t]+\S|[^\s/])"))
# A space before a sign or letter can only be the first character of a piece.
WORD_BEGIN = re.compile(r" (?=\S)")
