"""What several tests of the command `llama` share: a small run, and a user who writes."""

import io

TEXT = ("The cat sat on the mat. The rat sat on the cat.\n"
        "Then the dog came home and all of them ate.\n\n") * 20
SMALL = ["--vocab", "280", "--dim", "16", "--layers", "2", "--heads", "2", "--kv-heads", "1",
         "--seq-len", "16", "--context", "64", "--batch", "2", "--steps", "6"]


def converse(monkeypatch, *lines):
    """Passes these lines to standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
