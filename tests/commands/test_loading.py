from llama_from_scratch.commands.loading import load_model, show_loading


def test_loading_shows_how_far_it_is_in_a_terminal_and_nowhere_else(monkeypatch, capsys):
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        for n_done in (800_000_000, 1_600_000_000):
            show_loading(n_done, 1_600_000_000)
        show_loading(50, 100)  # done before one could read it
        shown = "\rloading:  50% of 1.6 GB\rloading: 100% of 1.6 GB\n"
        assert capsys.readouterr().err == (shown if is_terminal else "")


def test_without_a_name_the_bundled_mini_is_loaded(trained):
    assert load_model(None)[0].config.n_params > 500_000
    assert load_model(str(trained / "run"))[0].config.dim == 16
