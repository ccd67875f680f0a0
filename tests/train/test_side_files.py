import hashlib
import json

import pytest
from tiny_checkpoints import tiny, tokenizer_for

from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.train.side_files import SIDE_FILES


@pytest.mark.parametrize("family", ["llama-2", "llama-3.1"])
def test_the_checklist_has_the_digest_of_every_file(family, tmp_path):
    folder, tokenizer = tmp_path / "x", tokenizer_for(family)
    write(folder, tiny(family), tokenizer=tokenizer, format="meta", n_shards=2)
    SIDE_FILES["meta"](folder, tokenizer)
    lines = dict(reversed(line.split("  "))
                 for line in (folder / "checklist.chk").read_text().splitlines())
    assert sorted(lines) == ["consolidated.00.pth", "consolidated.01.pth", "params.json",
                             "tokenizer.model"]
    assert all(hashlib.md5((folder / name).read_bytes()).hexdigest() == digest
               for name, digest in lines.items())


@pytest.mark.parametrize(("family", "framing"), [
    ("llama-2", ("<s>", "</s>")), ("llama-3.1", ("<|begin_of_text|>", "<|end_of_text|>")),
])
def test_the_map_of_special_tokens_names_those_that_begin_and_end_a_text(family, framing, tmp_path):
    SIDE_FILES["hugging-face"](tmp_path, tokenizer_for(family))
    written = json.loads((tmp_path / "special_tokens_map.json").read_text())
    assert written == dict(zip(("bos_token", "eos_token"), framing, strict=True))
