"""How the notebooks are made: run, stored in one form, checked, shown, copied for readers, proved.

    form         the one form in which a notebook is stored; read_notebook, canonical
    executing    run: executes a notebook and stores it, with pictures made small by `palette`
    rules        check: every rule of the course that a stored notebook breaks, each as a Complaint
    text         show: a notebook as text, for `git diff`
    copies       student: the reader's copy, with blanks for solutions
    proof        prove: every solution passes, every stub fails

The command is `python -m llama_from_scratch.lessons.authoring run|check|show|student`.
"""
