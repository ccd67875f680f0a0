import sys

import pytest

from llama_from_scratch.tokenizer.chat_format import sandbox
from llama_from_scratch.tokenizer.chat_format.sandbox import render


def test_blocks_leave_no_lines_and_filters_write_json_as_it_is():
    source = "{% if x %}\n  {% if x %}\n{{ x | tojson }}\n  {% endif %}\n{% endif %}\n"
    assert render(source, {"x": {"a": "<é>"}}) == '{"a": "<é>"}\n'
    assert render("{{ x | tojson(indent=2) }}", {"x": [1]}) == "[\n  1\n]"
    assert render("{% for i in x %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
                  {"x": [1, 2, 3]}) == "1"
    assert render("{% generation %}{{ x }}{% endgeneration %}!", {"x": "said"}) == "said!"
    assert render("{{ strftime_now('%d') }}", {}, today="26 Jul 2024") == "26 Jul 2024"


@pytest.mark.parametrize(("source", "message"), [
    ("{% if %}", "must be valid Jinja, and line 1"),
    ("\n{{ x", "line 2 of this one is not"),
    ("{{ raise_exception('no system here') }}", "no system here"),
    ("{{ missing.thing }}", "'missing' is undefined"),
    ("{{ 1 / 0 }}", "division by zero"),
    ("{{ x + 1 }}", "concatenate"),
    ("{{ x[5].y }}", "has no element 5"),
    ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "recursion"),
    ("{{ x.__class__.__mro__ }}", "unsafe"),
    ("{{ x.append('y') }}", "is not safely callable|has no attribute"),
    ("{{ messages.append(1) }}", "unsafe"),
    ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    ("{{ 'x' * 10000000 }}", "repeated too often"),
    ("{{ 10 ** 100000 }}", "power of large numbers"),
    ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
    ("{% include '/etc/passwd' %}", "no loader"),
    ("{% import 'os' as os %}", "no loader"),
    ("x" * 1_000_001, "at most 1,000,000 characters"),
])
def test_what_a_template_must_not_do_is_refused_in_words(source, message):
    with pytest.raises(ValueError, match=message):
        render(source, {"x": "text", "messages": [{"role": "user"}]})


def test_a_template_cannot_change_what_it_is_given():
    values = {"messages": [{"role": "user"}]}
    with pytest.raises(ValueError, match="unsafe"):
        render("{{ messages[0].update({'role': 'x'}) }}", values)
    assert values == {"messages": [{"role": "user"}]}


@pytest.mark.parametrize("source", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
])
def test_a_template_that_does_not_end_is_ended(source, monkeypatch):
    monkeypatch.setattr(sandbox, "_MAX_SECONDS", 0.2)
    monkeypatch.setattr(sandbox, "_MAX_WRITTEN", 1_000_000)
    before = sys.gettrace()
    with pytest.raises(ValueError, match="runs for more than|writes more than"):
        render(source, {})
    assert sys.gettrace() is before


def test_an_older_jinja_is_refused(monkeypatch):
    import jinja2

    monkeypatch.setattr(jinja2, "__version__", "3.1.5")
    with pytest.raises(ValueError, match="need Jinja 3.1.6 or later; got 3.1.5"):
        render("a template that no test rendered before", {})
