"""Templates of chats: as Jinja has them, and harmless."""

import time

import pytest

from jaxcore.errors import UserError
from jaxcore.tokenizers import render

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]

HARMLESS = {
    "{% for m in messages %}{{ loop.index }}{{ m['role'][0] | upper }}{% endfor %}": "1S2U",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}": (
        "['Hi']"
    ),
    "{{ messages[1] | tojson }}": '{"role": "user", "content": "Hi"}',
    "{% generation %}{{ 'a' ~ (1 + 2) }}{% endgeneration %}": "a3",
    "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}": "01",
    "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ bos_token }}": "1<s>",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}{{ f(messages[0].content.strip('.')) }}": (
        "<a><Be brief>"
    ),
    "{% if tools %}1{% elif add_generation_prompt and messages[-1].role == 'user' %}2{% endif %}": (
        "2"
    ),
    "{{ 'x' if unknown is defined else 'a,b'.split(',') | join('+') }}": "a+b",
    "{%- for m in messages if m.role != 'system' -%}\n  {{ m.content }}\n{%- endfor %}": "Hi",
    "{% set parts = messages[1].content is string %}{{ parts }}": "True",
}

LETTERS = "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}"
HARMFUL = {
    "{{ 10 ** 10 }}": "the operator **",
    "{{ 'a' * 1000000000 }}": "repeats a text",
    "{{ '%1000000000d' % 1 }}": "the operator %",
    "{{ '{:>1000000000}'.format(1) }}": "formats texts",
    "{{ 'a'.ljust(1000000000) }}": "calls ljust",
    "{{ 'a' | center(1000000000) }}": "No filter named 'center'",
    "{% for a in range(9999) %}{% for b in range(999) %}{% endfor %}{% endfor %}": "too many steps",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    LETTERS + "{% set n.x = n.x ~ n.x %}{% endfor %}": "too long",
    LETTERS + "{% set n.x = n.x + n.x %}{% endfor %}": "too long",
    LETTERS + "{% set n.x = n.x | replace('a', 'aa') %}{% endfor %}": "too long",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}": ("too many steps"),
    "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}": (
        "too large"
    ),
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ render.__globals__ }}": "undefined",
    "{{ range.__init__.__globals__ }}": "unsafe",
    "{{ open('/etc/passwd') }}": "'open' is undefined",
    "{% include '/etc/passwd' %}": "no loader",
    "{{ messages.append(1) }}": "unsafe",
    "{{ raise_exception('roles must alternate') }}": "roles must alternate",
    "{% if %}": "Expected an expression",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "recursion",
    "a" * 300_000: "more than 262,144",
}


@pytest.mark.parametrize("template", HARMLESS)
def test_templates_say_what_jinja_says(template):
    assert render(template, CHAT, tokens={"bos_token": "<s>"}) == HARMLESS[template]


@pytest.mark.parametrize("template", HARMFUL, ids=lambda text: text[:40])
def test_harm_ends_in_one_sentence(template):
    began = time.process_time()
    with pytest.raises(UserError) as error:
        render(template, CHAT, source="model.gguf")
    assert HARMFUL[template] in str(error.value) and "of model.gguf" in str(error.value)
    assert "\n" not in str(error.value) and time.process_time() - began < 5


def test_templates_are_read_as_transformers_reads_them():
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system = messages[0]['content'] %}\n"
        "{%- else %}\n    {%- set system = 'none' %}\n{%- endif %}\n"
        "{{- system }}\n{% for m in messages[1:] %}\n  {{ m | tojson }}\n{% endfor %}\n"
    )
    theirs, _ = render_jinja_template([CHAT], chat_template=template, add_generation_prompt=True)
    assert render(template, CHAT) == theirs[0]
