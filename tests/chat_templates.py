"""Chat templates for tests, each written in the manner of a family of models that people use."""

from collections.abc import Mapping

CHATML = """
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

CHATML_WITH_A_SYSTEM = """
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{%- endif %}
{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n' }}
{%- for tool in tools %}{{- '\\n' ~ tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '<tool_call>\\n' ~ {'name': call.function.name,
                                    'arguments': call.function.arguments} | tojson }}
            {{- '\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

INSTRUCTIONS = """{{ bos_token }}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{{- message['content'] + eos_token }}{% endif %}{% endfor %}"""

INSTRUCTIONS_WITH_A_SYSTEM = """{% if messages[0]['role'] == 'system' %}
{%- set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}
{%- else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}
{%- for message in loop_messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate') }}{% endif %}
{%- if loop.index0 == 0 and system_message %}
{%- set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{%- else %}{% set content = message['content'] %}{% endif %}
{%- if message['role'] == 'user' %}{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{- ' ' + content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""

HEADERS = """{% set loop_messages = messages %}{% for message in loop_messages %}
{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
    + message['content'] | trim + '<|eot_id|>' %}
{%- if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
{{- content }}{% endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

HEADERS_WITH_A_DATE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role == 'ipython' or message.role == 'tool' %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" + message.content + "<|eot_id|>" }}
    {%- elif 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' + call.arguments | tojson + "}<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

HEADERS_WITH_IMAGES = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- set lead = messages[0].content | trim if messages[0].role == 'system' else '' %}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages %}
{%- set seen = namespace(n_images=0) %}
{%- for message in turns %}{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}{%- set seen.n_images = seen.n_images + 1 %}{%- endif %}
{%- endfor %}{%- endfor %}
{%- if seen.n_images and lead %}{{- raise_exception('no system message beside images') }}
{%- endif %}
{%- if not seen.n_images %}{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string + "\\n\\n" }}
{{- lead + "<|eot_id|>" }}{%- endif %}
{%- for message in turns %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{%- if message['content'] is string %}{{- message['content'] }}
{%- else %}{%- for part in message['content'] %}
{{- '<|image|>' if part['type'] == 'image' else part['text'] }}{%- endfor %}{%- endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
"""In the manner of Llama 3.2 Vision as released: dates without images, no system beside them."""

MODEL_TURNS = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate') }}{% endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

ENDS = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}
{{- '<|system|>\\n' + message['content'] + '<|end|>\\n' }}{% elif message['role'] == 'user' %}
{{- '<|user|>\\n' + message['content'] + '<|end|>\\n' }}{% elif message['role'] == 'assistant' %}
{{- '<|assistant|>\\n' + message['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

PLAIN_WORDS = """{%- macro turn(name, text) -%}### {{ name }}:
{{ text | trim }}

{% endmacro -%}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content | trim }}

{% elif message.role == 'user' %}{{ turn('Instruction', message.content) }}
{%- else %}{{ turn('Response', message.content) }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}### Response:
{% endif %}"""

NAMED_SPEAKERS = """{% if not add_generation_prompt is defined %}
{%- set add_generation_prompt = false %}{% endif %}
{%- for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}
{%- elif message['role'] == 'user' %}{{- 'USER: ' + message['content'] + ' ' }}
{%- else %}{{- 'ASSISTANT: ' }}{% generation %}{{- message['content'] + eos_token }}
{%- endgeneration %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{% endif %}"""

THOUGHTS = """{%- set ns = namespace(system='') %}
{%- for message in messages %}{%- if message['role'] == 'system' %}
{%- set ns.system = ns.system + message['content'] %}{% endif %}{% endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{- '<|user|>' + message['content'] }}{% endif %}
{%- if message['role'] == 'assistant' and message['content'] is not none %}
{%- set content = message['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<|assistant|>' + content + eos_token }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"""

TEMPLATES: Mapping[str, str] = {
    "chatml": CHATML, "chatml with a system": CHATML_WITH_A_SYSTEM, "zephyr": ZEPHYR,
    "instructions": INSTRUCTIONS, "instructions with a system": INSTRUCTIONS_WITH_A_SYSTEM,
    "headers": HEADERS, "headers with a date": HEADERS_WITH_A_DATE, "model turns": MODEL_TURNS,
    "ends": ENDS, "plain words": PLAIN_WORDS, "named speakers": NAMED_SPEAKERS,
    "thoughts": THOUGHTS,
}  # fmt: skip
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>",
           "<|end|>", "<start_of_turn>", "<end_of_turn>")
"""All tokens that a template writes, and a model's vocabulary would have as special."""

_CONTENTS = (
    "the cat", " the cat sat ", "Is the rat\n\non the mat?\n", "{{ messages }} {% if x %}",
    "<b>a & b</b> 'c' \"d\"", "naïve Ünïcödé 猫 \U0001f408", "  two  blanks\tand a tab  ",
    "def f(x):\n    return x[0]\n", "x", "one.</think> two", "\\n is no newline", "100% %d {0}",
)
_SYSTEMS = (None, "Be short.", " Be short.\n", "Ünïcödé & <b>")


def dialogs() -> list[list[dict[str, str]]]:
    """Sixty-four dialogs of one to five messages, of all that templates treat otherwise."""
    made = []
    for i in range(64):
        system, n_turns = _SYSTEMS[i % len(_SYSTEMS)], (1, 3, 5, 2)[i // 16]
        roles = ["user", "assistant"] * 3
        said = [{"role": roles[n], "content": _CONTENTS[(i * 5 + n * 7) % len(_CONTENTS)]}
                for n in range(n_turns)]
        made.append(said if system is None else [{"role": "system", "content": system}, *said])
    return made
