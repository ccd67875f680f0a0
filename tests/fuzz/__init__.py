"""A fuzzer of every file that the library reads: `python -m tests.fuzz --mutations 100000`.

`seeds` writes a tiny whole file or folder of each format, `mutations` damages one file of it,
`cases` reads it as a user would, from opening to one token's logits, and `runs` does so many times
in a process of its own, which may be killed. What is allowed is success, or a ValueError that says
in words which file is wrong. Everything else is a finding.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what all tests share
