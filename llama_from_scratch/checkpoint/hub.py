"""The name of a model on the Hugging Face Hub -> a folder on this machine.

An example of a name is "meta-llama/Llama-3.2-1B-Instruct". The package `huggingface_hub` downloads
the files that its cache lacks, resumes after a lost connection, keeps complete files, and serves
them without a network. This module decides which files to download, all from one commit, and
explains what to do about each kind of failure. You can always download the files by hand instead.

Notebook 18.
"""

import re
from pathlib import Path

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
         "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
         "chat_template.jinja", "additional_chat_templates/*.jinja", "LICENSE*",
         "preprocessor_config.json", "processor_config.json",
         "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
"""The files to download; not the same weights in other formats."""
_BY_HAND = ("Or put config.json, generation_config.json, the tokenizer (tokenizer.json or "
            "tokenizer.model) and the weights (model.safetensors, or all of its shards with "
            "model.safetensors.index.json) into a folder, and give its path")


def is_id(name: str) -> bool:
    """Returns whether `name` looks like a name on the Hub, owner/name."""
    return len(name) <= 96 and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name,
                                            re.ASCII) is not None and not (
        "--" in name or ".." in name or name.endswith((".", "-", ".git")))


def fetch(repo_id: str, *, revision: str | None = None) -> Path:
    """Returns the folder with the files of a model, after downloading the missing ones.

    The folder's name is the commit of the files. `revision`: a branch, a tag or a commit, by
    default the main branch. It is resolved first, so all files are from one commit. To get the same
    model again after the branch has moved, give the folder's name as `revision`.

    Raises ValueError, with what to do, if the model is gated, is not found, has no such revision or
    no weights as safetensors; if the Hub cannot be reached and the cache lacks a file; or if
    `huggingface_hub` is not installed. Raises OSError if the disk fails.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HTTPError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ValueError(f"there is nothing at {repo_id!r} on this machine, and downloading it "
                         "from the Hugging Face Hub needs the package huggingface_hub, which is "
                         f"not installed ({error}). Run pip install huggingface_hub. "
                         f"{_BY_HAND}") from error
    at = "" if revision is None else f" at revision {revision!r}"
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES)))
    except GatedRepoError as error:
        raise ValueError(f"{repo_id} is gated: its makers ask you to accept their license. 1. Sign "
                         f"in and accept it at https://huggingface.co/{repo_id}, and wait until "
                         "access is granted. 2. Make a token that may read it at "
                         "https://huggingface.co/settings/tokens. 3. Run `hf auth login` and "
                         f"paste the token. Then load again. {_BY_HAND}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"there is nothing at {repo_id!r} on this machine, and no public model of "
                         "this name on the Hugging Face Hub. Check the spelling; for a private "
                         "model run `hf auth login`. "
                         f"{_BY_HAND}") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"a revision must be a branch, a tag or a commit; {repo_id} on the "
                         f"Hugging Face Hub has none called {revision!r}. See "
                         f"https://huggingface.co/{repo_id}/commits/main, or leave the revision "
                         "out") from error
    except (HTTPError, OSError) as error:
        is_network = (isinstance(error, (HTTPError, ConnectionError, TimeoutError))
                      or error.errno is None)
        if not is_network:  # the disk
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"there is nothing at {repo_id!r} on this machine, the Hugging Face Hub "
                         f"could not give the model{at}, and the cache does not hold all of it "
                         f"({type(error).__name__}: {reason}). Connect to a network and load "
                         f"again; complete files are kept. {_BY_HAND}") from error
    if not (folder / "config.json").is_file() or not list(folder.glob("model*.safetensors")):
        raise ValueError("a model that is loaded by name must have a config.json and weights as "
                         f"safetensors; on the Hugging Face Hub {repo_id}{at}, commit "
                         f"{folder.name}, does not. Choose another name, or download its GGUF "
                         "file or its .pth files with params.json by hand and give their path")
    return folder
