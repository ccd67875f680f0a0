"""What goes on between the course and one reader: guesses, tries, help, and what was reached.

    remembering  remember: from then on this kernel keeps what the reader does
    attempts     attempt: a block in which an exercise is checked, and which ends well if untried
    help         hints and the solution, each after a click
    guessing     parses and compares guesses
    predict      number, choice, sketch, words: ask before the answer; compare afterwards
    milestones   milestone: the reader's own part inside the models that were published
"""
