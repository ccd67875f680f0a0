import errno
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest
import torch
from huggingface_hub import constants
from tiny_checkpoints import TOKENIZER, same_weights, tiny

import llama_from_scratch
from llama_from_scratch.checkpoint import hub, hugging_face, hugging_face_shards
from llama_from_scratch.checkpoint.inspect import facts
from llama_from_scratch.checkpoint.load import load, open_checkpoint

NAME = "meta-llama/Llama-3.2-tiny"
OLD, NEW = "a" * 40, "b" * 40


class Hub(http.server.ThreadingHTTPServer):
    """The Hub's addresses that a download needs, on this machine: what a model is, its list of
    files, and the files.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {}  # by commit, then by path
        self.branches = {}
        self.refuses = {}  # first part of an address -> status and error code
        self.break_once_at = {}  # file -> bytes after which the connection ends, the first time
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def downloaded(self):
        return [path.partition("/resolve/")[2].partition("/")[2] for method, path, _ in self.asked
                if method == "GET" and "/resolve/" in path]


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append((self.command, path, self.headers.get("Range")))
        for begin, (status, code) in hub.refuses.items():
            if path.startswith(begin):
                return self.say(status, b"{}", {"X-Error-Code": code} if code else {})
        if found := re.fullmatch(f"/api/models/{NAME}(?:/revision/(.+))?", path):
            commit = hub.branches.get(found[1] or "main", found[1])
            if commit not in hub.files:
                return self.say(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            names = [{"rfilename": name} for name in hub.files[commit]]
            return self.say(200,
                            json.dumps({"id": NAME, "modelId": NAME, "sha": commit,
                                        "siblings": names}).encode())
        if found := re.fullmatch(f"/api/models/{NAME}/tree/([^/]+)", path):
            tree = [{"type": "file", "path": name, "size": len(data),
                     "oid": f"{hash(data) & (1 << 160) - 1:040x}"}
                    for name, data in hub.files[found[1]].items()]
            return self.say(200, json.dumps(tree).encode())
        if found := re.fullmatch(f"/{NAME}/resolve/([^/]+)/(.+)", path):
            data = hub.files[found[1]][found[2]]
            about = {"X-Repo-Commit": found[1], "ETag": f'"{abs(hash(data)):040x}"',
                     "Accept-Ranges": "bytes"}
            begin = (int(self.headers["Range"][len("bytes=") :].partition("-")[0])
                     if "Range" in self.headers else 0)
            if begin:
                about["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            cut = hub.break_once_at.pop(found[2], None) if self.command == "GET" else None
            return self.say(206 if begin else 200, data[begin:], about, cut=cut)
        return self.say(401, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def say(self, status, data, headers=(), *, cut=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json",
                            **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two commits of one model: other weights, in one file and in shards."""
    root, models = tmp_path_factory.mktemp("models"), {}
    for commit, generation, shard_bytes in ((OLD, "llama-3.2", None), (NEW, "llama-3.1", 200_000)):
        folder = root / commit
        hugging_face.write(folder, tiny(generation).bfloat16(), tokenizer=TOKENIZER,
                           shard_bytes=shard_bytes)
        models[commit] = {file.name: file.read_bytes() for file in folder.iterdir()}
        models[commit] |= dict.fromkeys(
            ("original/consolidated.00.pth", "original/params.json", "onnx/model.safetensors",
             "README.md", "pytorch_model.bin", "model.gguf"), b"not needed")
        models[commit] |= {"chat_template.jinja": b"{{ messages }}", "LICENSE.txt": b"A license",
                           "additional_chat_templates/tool_use.jinja": b"{{ tools }}"}
    return models


@pytest.fixture
def server(models, monkeypatch, tmp_path):
    server = Hub()
    server.files, server.branches = models, {"main": NEW, "old": OLD}
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # before it tries again
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def test_a_name_on_the_hub_gives_the_model_and_only_what_it_needs_is_fetched(server):
    model, tokenizer = llama_from_scratch.load(NAME)
    assert same_weights(model, tiny("llama-3.1").bfloat16())
    assert tokenizer.encode("the cat", bos=True) == TOKENIZER.encode("the cat", bos=True)
    needed = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              hugging_face_shards.INDEX, "chat_template.jinja", "LICENSE.txt",
              "additional_chat_templates/tool_use.jinja"}
    shards = {name for name in server.files[NEW] if name.startswith("model-")}
    assert len(shards) > 2 and sorted(server.downloaded) == sorted(needed | shards), "each once"
    opened = open_checkpoint(NAME)
    assert opened.where.name == NEW, "the folder says which commit it is"
    assert tokenizer.prompting.templates.keys() == {"default", "tool_use"}
    assert facts(opened)["license file"] == "LICENSE.txt: A license"
    assert len(server.downloaded) == len(needed | shards), "what is there is not fetched again"


def test_a_revision_is_one_commit_also_when_its_branch_has_moved(server):
    for revision in ("old", OLD):
        model, _ = load(NAME, revision=revision)
        assert same_weights(model, tiny("llama-3.2").bfloat16())
        assert open_checkpoint(NAME, revision=revision).where.name == OLD
    server.branches["old"] = NEW
    assert open_checkpoint(NAME, revision="old").where.name == NEW
    assert open_checkpoint(NAME, revision=OLD).where.name == OLD


def test_a_download_that_breaks_half_way_goes_on_where_it_broke(server, monkeypatch):
    # the file is smaller than the usual 10 MB
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    data = server.files[OLD]["model.safetensors"]
    server.break_once_at = {"model.safetensors": len(data) // 2}
    model, _ = load(NAME, revision=OLD)
    assert same_weights(model, tiny("llama-3.2").bfloat16())
    asked = [part for method, path, part in server.asked if method == "GET"
             and path.endswith("/model.safetensors")]
    assert len(asked) == 2 and asked[0] is None
    assert 0 < int(asked[1][len("bytes=") : -1]) <= len(data) // 2


def test_without_a_network_the_cache_serves_what_it_holds(server, monkeypatch):
    fetched = open_checkpoint(NAME).where
    server.shutdown()
    server.server_close()
    assert open_checkpoint(NAME).where == fetched
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_checkpoint(NAME).where == fetched
    assert open_checkpoint(NAME, revision=NEW).where == fetched
    assert same_weights(load(NAME)[0], tiny("llama-3.1").bfloat16())


@pytest.mark.parametrize("is_offline", [False, True])
def test_without_a_network_and_a_cache_it_is_told_which_files_to_put_where(
    server, monkeypatch, is_offline
):
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
    with pytest.raises(ValueError, match=r"nothing at 'meta-llama/Llama-3.2-tiny' on this "
                                         r"machine, .* Or put config.json, .*tokenizer.model.* "
                                         r"model.safetensors.index.json.* into a folder, and give "
                                         r"its path"):
        load(NAME)


def test_a_download_that_was_not_finished_is_not_taken_for_a_model(server):
    server.refuses = {f"/{NAME}/resolve/{NEW}/model-00002": (500, None)}
    with pytest.raises(ValueError, match="could not give the model.* complete files are kept"):
        load(NAME)
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="does not hold all of it"):
        load(NAME)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where",
                         [f"/{NAME}/resolve", f"/api/models/{NAME}/tree", f"/api/models/{NAME}"])
def test_a_gated_model_is_explained_step_by_step(server, where, status):
    server.refuses = {where: (status, "GatedRepo")}
    with pytest.raises(ValueError, match=r"is gated.* accept it at "
                                         r"https://huggingface.co/meta-llama/Llama-3.2-tiny, .*"
                                         r"token.*https://huggingface.co/settings/tokens.*`hf "
                                         r"auth login`.*Or put"):
        load(NAME)


def test_a_model_that_is_not_there_may_be_a_misspelled_path_or_a_private_one(server):
    with pytest.raises(ValueError, match=r"nothing at 'runs/storys' on this machine, and no "
                                         r"public model of this name.* `hf auth"):
        load("runs/storys")


def test_a_revision_that_is_not_there_is_named(server):
    with pytest.raises(ValueError, match=r"has none called 'v9'. See "
                                         r"https://huggingface.co/.*/commits/main"):
        load(NAME, revision="v9")


def test_a_model_without_safetensors_says_how_to_get_at_its_other_files(server, models):
    server.files = {
        NEW: {name: data for name, data in models[NEW].items() if "safetensors" not in name}}
    with pytest.raises(ValueError, match=rf"commit {NEW}, does not. .*GGUF.* by hand"):
        load(NAME)


def test_what_exists_is_a_path_and_what_is_neither_is_told_both_readings(server):
    hugging_face.write("meta-llama/mine", tiny(), tokenizer=TOKENIZER)
    assert open_checkpoint("meta-llama/mine").config == tiny().config and not server.asked
    with pytest.raises(ValueError, match="a revision needs a name on the Hugging Face Hub.* "
                                         "Leave the revision out"):
        open_checkpoint("meta-llama/mine", revision="main")
    for neither in ("llama", "a/b/c", "../x", "/no/such", "nobody/", "a--b/c", "a/b.git", "a b/c",
                    "é/a"):
        with pytest.raises(ValueError, match="an existing path or a name on the Hugging Face "
                                             "Hub, owner/name"):
            open_checkpoint(neither)
    assert not server.asked


@pytest.mark.parametrize("name", [NAME, "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "0-hero/Matter_0.2"])
def test_names_of_the_hub_are_recognized(name):
    assert hub.is_id(name)


def test_without_huggingface_hub_it_is_told_how_to_install_it_and_nothing_else_needs_it(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    script = """
import sys
sys.modules["huggingface_hub"] = None
from llama_from_scratch import load
load(sys.argv[1])
load("meta-llama/x")
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "m"], capture_output=True,
                          text=True)
    assert done.returncode == 1
    assert "ValueError: there is nothing at 'meta-llama/x'" in done.stderr
    assert "pip install huggingface_hub. Or" in done.stderr


def test_the_endpoint_and_the_cache_of_the_environment_are_those_of_huggingface_hub(
    server, tmp_path
):
    script = ("from llama_from_scratch.checkpoint import open_checkpoint; "
              f"print(open_checkpoint({NAME!r}).where)")
    environment = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(tmp_path / "home"), "PATH": "",
                   "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env=environment)
    assert done.stdout.strip().startswith(str(tmp_path / "home")), done.stderr
    assert torch.equal(load(done.stdout.strip())[0].norm.weight,
                       tiny("llama-3.1").bfloat16().norm.weight)


def test_a_full_disk_is_no_matter_of_the_network(server, monkeypatch):
    def raises(error):
        def download(*_, **__):
            raise error
        monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    raises(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        load(NAME)
    raises(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    with pytest.raises(ValueError, match=r"could not give the model.*ConnectionResetError"):
        load(NAME)
