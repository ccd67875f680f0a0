import pytest
import torch
from tiny_checkpoints import TOKENIZER, tiny

import llama_from_scratch
from llama_from_scratch.checkpoint import hugging_face, machine
from llama_from_scratch.checkpoint.machine import refuse_absent_device
from llama_from_scratch.checkpoint.opened import build

HAS_GPU = torch.cuda.is_available()


@pytest.mark.parametrize(("device", "message"), [
    ("gpu", r"got device='gpu', which is not a device. Choose \"cpu\", \"cuda\""),
    ("cuda:x", r"got device='cuda:x', which is not a device"),
    pytest.param("cuda", r"got device='cuda', and (no NVIDIA GPU|this PyTorch is built without "
                         r"CUDA).* Choose device=\"cpu\"",
                 marks=pytest.mark.skipif(HAS_GPU, reason="there is a GPU")),
    pytest.param("cuda:1", r"got device='cuda:1', and ",
                 marks=pytest.mark.skipif(HAS_GPU, reason="there is a GPU")),
    ("cuda:99", r"got device='cuda:99', "), ("mps:7", r"got device='mps:7', which it cannot use"),
    ("meta", r"got device='meta', which keeps shapes and no numbers"),
    ("xla", r"got device='xla', which it cannot use"),
])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    device, message, tmp_path, monkeypatch
):
    rule = r"a model needs a device that PyTorch can use on this machine; "
    with pytest.raises(ValueError, match=rule + message):
        llama_from_scratch.load(tmp_path / "no such checkpoint", device=device)
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    opened = hugging_face.open_checkpoint(tmp_path / "m")
    monkeypatch.setattr(hugging_face, "to_ours", lambda *_, **__: pytest.fail("a weight was read"))
    with pytest.raises(ValueError, match=rule + message):
        build(opened, device=device)


def test_a_device_may_be_given_as_an_object():
    refuse_absent_device(torch.device("cpu"))
    if not HAS_GPU:
        with pytest.raises(ValueError, match=r"got device='cuda:0'"):
            refuse_absent_device(torch.device("cuda", 0))


def test_the_machine_says_how_much_memory_is_free():
    free = machine.free_bytes(torch.device("cpu"))
    assert 10**8 < free < 10**14
    assert machine.free_bytes(torch.device("meta")) is None


def test_a_container_leaves_its_limit_less_what_it_uses_and_cannot_drop(tmp_path):
    about = {"memory.max": "1000", "memory.current": "700",
             "memory.stat": "anon 400\nactive_file 200\ninactive_file 100"}
    for name, content in about.items():
        (tmp_path / name).write_text(content + "\n")
    assert machine._container_free_bytes(tmp_path, 5000) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._container_free_bytes(tmp_path, 5000) == 5000
