"""The course and one reader: guesses, attempts, help and milestones.

    remembering  remember: from this call on, the kernel records what the reader does
    attempts     attempt: a block that checks an exercise; an exercise not tried yet is no error
    help         hints and the solution, each after a click
    guessing     parses and compares guesses
    predict      number, choice, sketch, words: ask before the answer; compare afterwards
    milestones   models, reached: the reader's own part in place of the library's
"""
