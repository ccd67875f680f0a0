"""Tools that run, store, check, show, copy and test the notebooks.

    form         read_notebook, canonical: the form in which every notebook is stored
    executing    run: executes a notebook and stores it; `palette` makes its pictures small
    rules        check: lists the rules of the course that a stored notebook breaks
    text         show: a notebook as text, for `git diff`
    copies       student: the reader's copy, with blanks instead of solutions
    stored       difference: what a cell shows, compared with what is stored
    proof        prove: every solution passes, and every blank and known mistake does not

The command is `python -m llama_from_scratch.lessons.authoring run|check|show|student|twice`.
"""
