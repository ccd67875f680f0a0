# Short names for the commands. Without make, type the command below the name.
.PHONY: lab test notebooks check

lab:
	python3 start.py

test:
	python3 start.py test

notebooks:
	.venv/bin/python -m llama_from_scratch.lessons.authoring run

check:
	.venv/bin/ruff check .
	.venv/bin/python -m llama_from_scratch.lessons.authoring check
