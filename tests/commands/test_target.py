import argparse

from llama_from_scratch.commands.target import add_form_arguments, print_written


def test_dtype_and_shards_are_read_and_the_usual_dtype_is_in_the_help():
    parser = argparse.ArgumentParser()
    add_form_arguments(parser, usual_dtype="as it was")
    assert "(default: as it was)" in " ".join(parser.format_help().split())
    assert vars(parser.parse_args([])) == dict(dtype=None, shards=1)
    words = ["--dtype", "float16", "--shards", "3"]
    assert vars(parser.parse_args(words)) == dict(dtype="float16", shards=3)


def test_the_files_that_were_written_are_listed_with_their_sizes(tmp_path, capsys):
    (tmp_path / "b.bin").write_bytes(b"x" * 1234)
    (tmp_path / "a.json").write_text("{}")
    print_written(tmp_path)
    *files, last = capsys.readouterr().out.splitlines()
    assert [line.split() for line in files] == [["2", str(tmp_path / "a.json")],
                                                ["1,234", str(tmp_path / "b.bin")]]
    assert last == (f"Look at it with: llama inspect {tmp_path}. "
                    f"Talk to it with: llama chat {tmp_path}")
    print_written(tmp_path, chat_format="llama-2")
    assert capsys.readouterr().out.endswith(f"llama chat {tmp_path} --chat-format llama-2\n")
    print_written(tmp_path / "b.bin")
    assert len(capsys.readouterr().out.splitlines()) == 2, "one file"
