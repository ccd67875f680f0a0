"""Runs what may fail, hang or never end: calls in bounded time, and programs in a child process.

- `timed`: a call in a thread, with a limit
- `isolated`, `isolated_worker`: a call in a process of its own, which is ended
- `child`: a process that gets jobs as lines of JSON
- `python_file`: a reader's Python file as a module
- `sandbox_runner`: what the child of the sandbox does; it imports nothing of this library

Notebooks 54, 55, 56 and 58.
"""
