"""Golden fixtures of chat templates: template.json, made by transformers itself (PyPI:
transformers and jinja2; NumPy and PyTorch are not needed).

`python make_template.py [FOLDER]`: with the folder of supplied tokenizers, template_supplied.json
too, the renderings of the templates in FOLDER/*/tokenizer_config.json.

template.json: a list of cases {"name", "template", "input", "output"}, or "error" in the place of
"output" where the reference refuses: "raise" (raise_exception) or "error" (anything else). The
time is 2024-07-04 13:05:09 UTC everywhere.
"""
import datetime
import json
import os
import sys

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2024, 7, 4, 13, 5, 9)

TALK = [
    {"role": "system", "content": " You are brief. "},
    {"role": "user", "content": "Who wrote Emma?"},
    {"role": "assistant", "content": "Jane Austen."},
    {"role": "user", "content": "  And \"Persuasion\"? \n"},
]
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Finds a <book> & more",
        "parameters": {"type": "object", "properties": {"title": {"type": "string"}},
                       "required": ["title"]}}}
CALLS = [
    {"role": "user", "content": "Find Emma."},
    {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "look_up", "arguments": {"title": "Émma", "n": 1}}}]},
    {"role": "tool", "name": "look_up", "content": "found"},
    {"role": "tool", "name": "look_up", "content": "again"},
    {"role": "assistant", "content": "<think>\nlong\n</think>\n\nThere."},
]
VALUES = {
    "s": "Hello, World", "empty": "", "u": "naïve 日本 🙂 x", "n": 7, "neg": -3, "f": 2.5, "big": 1e20,
    "yes": True, "no": False, "nothing": None, "l": ["a", "b", "c"], "nums": [3, 1, 2],
    "d": {"k": "v", "n": 1, "items": "own", "list": [1, {"x": None}]}, "nested": [[1, 2], [3]],
    "people": [{"name": "Ann", "age": 30, "ok": True}, {"name": "bob", "age": 25, "ok": False},
               {"name": "Cy", "age": 30}],
    "text": "  two\n lines\t\n", "quotes": "it's \"so\" \\ \x07 \u200b", "html": "<a href='x'>&</a>",
}

# Each is rendered with VALUES.
EXPRESSIONS = """
s|s + '!'|s ~ n ~ yes ~ nothing ~ f|n + 1|n - 10|n * 2|n / 2|n // 2|neg // 2|neg % 2|-n % 4|n % 4|2 ** 10|2 ** -1|-2 ** 2
-n|+n|- n + 3|f * 2|f // 1|f % 1|7.0|1e3|1.5e-7|1e16|1e15|123456789.123|0.1 + 0.2|big|1_000|n / 0|n % 0|n // 0
'a' * 3|3 * 'ab'|l + ['d']|(1, 2) + (3,)|(1,)|()|[]|{}|[1, 'a', none, true, 2.0]|{'a': 1, 'b': [2]}|{'a': {'b': 1}}['a'].b
s == 'Hello, World'|s != 'x'|n == 7.0|yes == 1|n < 8|n <= 7|n > 7|n >= 7|1 < n < 10|1 < n < 5|'a' < 'b'|[1, 2] < [1, 3]|l == ['a', 'b', 'c']|d == {'k': 'v'}
'a' in l|'z' not in l|'World' in s|'k' in d|'z' in d|3 in nums|n in [1, 2]|'' in s|none in [none]|not yes|not no and yes|no or 'x'|yes and 'y'|nothing or empty or 'last'|not 'a' in l
s[0]|s[-1]|s[100] is defined|s[1:4]|s[:-1]|s[::-1]|s[::2]|s[10:2:-3]|u[2]|u[6:8]|u[::-1]|u[-3:]|l[0]|l[-1]|l[1:]|l[::-1]|l[5:]|nested[0][1]|nested[1][0]|l[100] is undefined
d.k|d['k']|d['items']|d.missing is defined|d['missing'] is undefined|d.list[1].x|d.list.1.x is none|d.get('k')|d.get('z')|d.get('z', 5)|d.keys() | list|d.values() | list|d.items() | list
'yes' if yes else 'no'|'yes' if no else 'no'|'only' if no|('a' if no else 'b') ~ 'c'|1 if yes else 2 if no else 3|(missing | default('x')) if missing is not defined else 'y'
s is defined|missing is defined|missing is not defined|nothing is none|n is not none|s is string|n is string|d is mapping|l is mapping|n is number|f is number|yes is number|n is integer|yes is integer|f is float|yes is boolean|n is boolean|yes is true|no is false|yes is false|n is true
l is iterable|s is iterable|n is iterable|l is sequence|d is sequence|n is odd|n is even|n is divisibleby 7|n is divisibleby(2)|n is eq 7|n is equalto(8)|n is ne 7|n is lt 8|n is ge(7)|n is gt 7|'a' is in l|n is in [7]|missing is iterable|missing is string|loop is defined
text | trim|text | trim | length|'xxaxx' | trim('x')|s | length|u | length|l | length|d | length|missing | length|l | count|s | upper|s | lower|u | upper|'hello wORLD' | capitalize|'hello wORLD-foo (bar) x' | title|'ñandú ÉCOLE' | upper|'ÉCOLE' | lower
missing | default('x')|missing | default|empty | default('x')|empty | default('x', true)|nothing | default('x', boolean=true)|nothing | d('x')|l | join(', ')|l | join|nums | join('-')|s | join('.')|people | join(', ', attribute='name')|[1, none, true] | join(' ')
s | replace('l', 'L')|s | replace('l', 'L', 2)|s | replace('zz', 'x')|'abc' | replace('', '-')|n | replace('7', '8')|l | first|l | last|s | first|[] | first is defined|[] | last is defined|s | list|d | list|nums | sort|nums | sort(reverse=true)|people | sort(attribute='name') | map(attribute='name') | list
n | string ~ 'x'|'42' | int|'4.7' | int|'x' | int|'x' | int(9)|f | int|'1.5' | float|n | float|'x' | float|neg | abs|f | abs|l | reverse | list|s | reverse|d | items | list|missing | items | list|s | safe|[3, 'a'] | string
people | selectattr('ok') | map(attribute='name') | list|people | rejectattr('ok') | map(attribute='name') | join|people | selectattr('age', 'equalto', 30) | list | length|people | selectattr('ok', 'defined') | list | length|nums | select('gt', 1) | list|nums | reject('odd') | list|l | select('equalto', 'b') | list|l | map('upper') | join|l | reject('in', ['a']) | list
people | map(attribute='ok', default='?') | list|people | rejectattr('age', '>', 26) | list|{'b': 1, 'A': 2} | dictsort|{'b': 1, 'A': 2} | dictsort(true)|{'b': 1, 'a': 2} | dictsort(by='value')|text | indent|'a\\n\\nb' | indent(2)|'a\\n\\nb' | indent(2, true, true)|'a\\nb' | indent('> ')
d | tojson|u | tojson|u | tojson(ensure_ascii=true)|html | tojson|quotes | tojson|l | tojson|[] | tojson(indent=2)|{} | tojson|d | tojson(indent=2)|d | tojson(indent=2, sort_keys=true)|d | tojson(separators=(',', ':'))|f | tojson|big | tojson|yes | tojson|nothing | tojson|n | tojson|(1, 2) | tojson|{1: 2, none: 3, true: 4, 1.5: 5} | tojson|[1.0, 1e100, 5e-324] | tojson|missing | tojson
s.upper()|s.lower()|text.strip()|text.lstrip()|text.rstrip()|text.rstrip('\\n')|'xyzzy'.strip('xy')|s.startswith('Hello')|s.startswith(('x', 'H'))|s.endswith('d')|s.endswith('x')|s.split(', ')|s.split()|text.split()|'a,b,c'.split(',', 1)|'a b  c '.split(none, 1)|'a  b'.split(' ')|s.split('z')|'</think>x'.split('</think>')[-1]
s.replace('l', 'L')|s.replace('l', 'L', 1)|'-'.join(l)|'hello'.capitalize()|'abcd'.removeprefix('ab')|'abcd'.removesuffix('cd')|'abcd'.removeprefix('x')|[quotes]|[u]|[html]|['a\\'b']|['\\u2028\\x85\\xa0']|{'q': 'it\\'s'}
range(3) | list|range(1, 4) | list|range(5, 0, -2) | list|range(0) | list|dict(a=1, b='x')|dict({'a': 1}, b=2)|namespace(a=1).a|strftime_now('%d %b %Y')|strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %%')|'%d' in strftime_now('x')
'a' 'b'|"a\\tb\\x41\\u00e9\\q\\'"|'\\101\\60'|'a' ~ 'b' ~ 1 + 2|1 ~ 2 * 3|'a' ~ (1, 2)|n | string | length|-n | abs|(n) is odd|n is odd and f is float|not n is even|n if n is defined else 3|s | upper | lower | length + 1|[l | length, 1][0]|{'a': 1}.a|'%s' | length|(l | first).upper()|l | join(', ') | upper|nothing ~ 'x'|[missing]|{'a': missing}
missing.x|missing['x']|missing + 'a'|'a' + missing|'a' + 1|1 + 'a'|l + (1,)|s - 1|n()|s()|nothing.x|nothing.x.y|nothing[0]|nothing[1:]|missing[1:]|'a' < 1|none < 1|1 in 5|1 in 'a'|l.append(1)|d.pop('k')|d.update({})|n | items | list|none | length|5 | join|s | nosuch|s is nosuch|nosuch(1)|s.nosuch()|s | trim(1)|s | replace('a')|[1, 'a'] | sort|raise_exception('stop: ' ~ n)|range(1000000) | length|s[::0]|l['x']|l['x'] is defined|dict(1)|{[]: 1}|'a' is in 5|-s|s.split('')
""".strip().split("\n")

TEMPLATES = {
    "text alone": "Hello\nworld\n",
    "two newlines at the end": "Hello\n\n",
    "carriage returns": "a\r\nb\rc\n",
    "empty": "",
    "comment": "a{# one\n two #}b\n  {# line #}\nc{#- x -#}  d",
    "comment signs": "a {#+ x +#}\n b {#-#} c",
    "trim_blocks": "a\n{% if yes %}\nb\n{% endif %}\nc\n\n{% if yes %}  \nd{% endif %}\n\ne",
    "lstrip_blocks": "a\n   {% if yes %}\n  b\n \t {% endif %}\n c  {% if yes %}x{% endif %}\n   {{ n }}\n  d",
    "lstrip at the start": "  {% if yes %}\n  {% if yes %}x{% endif %}  {% endif %}  {% if yes %}y{% endif %}",
    "plus": "a\n   {%+ if yes %}b{% endif +%}\nc\n {% if yes +%}\nd{%+ endif %}",
    "minus": "a \n  {%- if yes -%} \n b \n {%- endif -%} \n c {{- n -}} \n d {{ n -}} e {{- n }} f",
    "minus and unicode space": "a\u3000\u00a0{{- n -}}\u2003\u2028b",
    "print keeps a line's end": "{{ n }}\n{{ n }}\n\n{{ n }}",
    "raw": "a {% raw %}{{ x }} {% if %} {# #}{% endraw %} b",
    "raw with signs": "a\n  {%- raw -%}  {{ x }} \n {%- endraw -%}  b",
    "raw on lines": "a\n  {% raw %}\n  {{ x }}\n  {% endraw %}\nb",
    "braces in print": "{{ {'a': {'b': 1}}['a'] }}{{ {} }}{{ {'a': {}} }}",
    "end signs in strings": "{{ '}}' }}{{ \"%}\" }}{% if '%}' %}x{% endif %}",
    "tuple printed": "{{ 1, 'a' }}|{{ (1, 'a') }}",
    "if": "{% if no %}a{% elif nothing %}b{% elif n == 7 %}c{% else %}d{% endif %}",
    "if else": "{% if no %}a{% elif nothing %}b{% else %}d{% endif %}{% if no %}x{% endif %}",
    "if with colon": "{% if yes: %}a{% else: %}b{% endif %}",
    "for": "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ x }};{% endfor %}",
    "for previtem": "{% for x in l %}{{ loop.previtem is defined }}{{ loop.previtem }}{{ loop.nextitem | default('-') }};{% endfor %}",
    "for depth": "{% for x in nested %}{{ loop.depth }}{% for y in x %}{{ loop.index }}{{ loop.depth0 }}{% endfor %}{{ loop.index }};{% endfor %}",
    "for else": "{% for x in [] %}a{% else %}none{% endfor %}{% for x in l %}{{ x }}{% else %}none{% endfor %}",
    "for if": "{% for x in nums if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% else %}none{% endfor %}",
    "for if none": "{% for x in nums if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "for over a dictionary": "{% for k in d %}{{ k }},{% endfor %}{% for k, v in people[0].items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in people[1] | items %}{{ k }}={{ v }};{% endfor %}",
    "for over text": "{% for c in u %}[{{ c }}]{% endfor %}",
    "for over a tuple": "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }}{% endfor %}",
    "for over undefined": "{% for x in missing %}a{% else %}none{% endfor %}",
    "for unpacks wrongly": "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "for over a number": "{% for x in n %}a{% endfor %}",
    "for over range": "{% for i in range(2, 5) %}{{ i }}{{ ', ' if not loop.last }}{% endfor %}",
    "break and continue": "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}!{% for a in l %}{% for b in l %}{% if b == 'b' %}{% break %}{% endif %}{{ a }}{{ b }}{% else %}never{% endfor %};{% endfor %}",
    "scope of set in for": "{% set x = 0 %}{% for i in range(3) %}{{ x }}{% set x = x + 1 %}{{ x }};{% endfor %}{{ x }}",
    "scope of set in if": "{% if yes %}{% set x = 1 %}{% endif %}{{ x }}{% if no %}{% set y = 1 %}{% endif %}{{ y is defined }}",
    "scope of a loop variable": "{% set x = 'o' %}{% for x in l %}{{ x }}{% endfor %}{{ x }}{{ loop is defined }}",
    "set hides a variable": "{% set s = 'new' %}{{ s }}{% for i in [1] %}{% set n = 2 %}{{ n }}{% endfor %}{{ n }}",
    "set several": "{% set a, b = 1, 'two' %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set a, b = b, a %}{{ a }}{{ b }}",
    "set block": "{% set x %}a{{ n }}\n{% if yes %}b{% endif %}{% endset %}[{{ x }}]{{ x | upper }}{{ x is string }}",
    "scope of a set block": "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}",
    "namespace": "{% set ns = namespace(a=1, b='x') %}{% for i in l %}{% set ns.a = ns.a + 1 %}{% set ns.b = ns.b ~ i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}{{ ns['a'] }}{% set ns.c = l %}{{ ns.c }}",
    "namespace of a dictionary": "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}",
    "set an attribute of no namespace": "{% set d.k = 1 %}",
    "macro": "{% macro f(a, b='B', c=n) %}<{{ a }}|{{ b }}|{{ c }}>{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(c=3, a='x') }}{{ f() }}{{ f('q') | upper }}",
    "macro and scope": "{% set x = 1 %}{% macro f() %}{{ x }}{% set x = 5 %}{{ x }}{% endmacro %}{{ f() }}{% set x = 2 %}{{ f() }}{{ x }}",
    "macro calls macros": "{% macro a(n) %}{% if n > 0 %}{{ n }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(4) }}{% macro b(x) %}[{{ a(x) }}]{% endmacro %}{{ b(2) }}",
    "macro with too many arguments": "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "macro with an unknown argument": "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}",
    "macro prints white space": "{%- macro f(a) %}\n  {%- for x in a %}\n{{ x }}\n  {%- endfor %}\n{%- endmacro -%}\n{{ f(l) }}.",
    "generation": "a{% generation %}\nb{{ n }}{% endgeneration %}\nc",
    "keyword arguments": "{{ l | join(d='+') }}{{ missing | default(default_value='z') }}",
    "comments in tags": "{% if yes %}{# {% endif %} #}x{% endif %}",
    "numbers compare": "{% if n > 5 and f < 3 or no %}a{% endif %}{% if not (n > 5) %}b{% endif %}",
    "raise": "{% if n == 7 %}{{ raise_exception('Only 6 is allowed') }}{% endif %}",
    "raise not reached": "{% if n == 6 %}{{ raise_exception('no') }}{% endif %}fine",
    "unknown filter not reached": "{% if no %}{{ s | nosuch }}{% endif %}fine",
    "no end of if": "{% if yes %}a",
    "no end of a print": "{{ n ",
    "no end of a tag": "{% if yes ",
    "no end of a comment": "a {# b",
    "no end of a string": "{{ 'a }}",
    "unexpected end": "a{% endif %}",
    "unknown statement": "{% frobnicate %}",
    "wrong bracket": "{{ (1] }}",
    "empty print": "{{ }}",
    "odd character": "{{ n ? 1 }}",
    "break outside a loop": "{% break %}",
    "line statements are text": "# for x in l\n## no\n{{ n }}",
}

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
THINKING = """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
GLM = """[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>
tools{% for tool in item['tools'] %}{% if tool['type'] == 'function' %}

## {{ tool['function']['name'] }}

{{ tool['function'] | tojson(indent=4) }}{% endif %}{% endfor %}{% endif %}{% if item['content'] %}<|{{ item['role'] }}|>{{ item['metadata'] }}
{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
VICUNA = """{%- for m in messages -%}
  {%- if m.role == 'system' -%} {{- m.content | trim }} {% elif m.role == 'user' -%}
    USER: {{ m.content | trim }} {%- else %} ASSISTANT: {{ m.content }}{{ eos_token -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %} ASSISTANT:{% endif -%}"""
MACROS = """{%- macro render(items, tag) -%}
    {%- if items is mapping -%}
        {%- for key, value in items | dictsort %}<{{ key }}>{{ render(value, key) }}</{{ key }}>{% endfor -%}
    {%- elif items is iterable and items is not string -%}
        {%- for i in items %}<{{ tag }}>{{ render(i, tag) }}</{{ tag }}>{% endfor -%}
    {%- else -%}
        {{ items if items is string else items | tojson }}
    {%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] %}{{ render(tool.function, 'tool') }}
{% endfor -%}
{%- for m in messages %}{{ m.role | upper }}: {{ m.content | default('', true) | trim }}
{% endfor %}"""


def families():
    def given(messages, **more):
        return {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "tools": None,
                "documents": None, "add_generation_prompt": True, **more}

    for name, template in dict(llama3=LLAMA3, llama2=LLAMA2, thinking=THINKING, glm=GLM, vicuna=VICUNA,
                               macros=MACROS).items():
        yield name, template, given(TALK)
        yield name + ", no system", template, given(TALK[1:], add_generation_prompt=False,
                                                    enable_thinking=False)
        yield name + ", thinking off", template, given(TALK[1:2], enable_thinking=False)
        yield name + ", tools", template, given(CALLS, tools=[TOOL, TOOL])
        yield name + ", two users", template, given([TALK[1], TALK[3]])
    yield "glm, tools in a message", GLM, given([{"role": "system", "content": "x", "tools": [TOOL]}])


def expressions():
    """The rows' cells: a bar with white space on both sides is a filter."""
    for row in EXPRESSIONS:
        cell = ""
        for i, c in enumerate(row):
            bar = c == "|" and not (row[i - 1:i] == " " and row[i + 1:i + 2] == " ")
            if bar:
                yield cell
            cell = "" if bar else cell + c
        yield cell


def render(template, values):
    """The case's outcome: ("output", text) or ("error", kind)."""
    try:
        compiled = _compile_jinja_template(template)
        compiled.globals["strftime_now"] = NOW.strftime
        return "output", compiled.render(**values)
    except jinja2.exceptions.TemplateError as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return "error", "raise" if raised else "error"
    except Exception:  # a TypeError of Python's, a wrong unpacking, ...
        return "error", "error"


def case(name, template, values):
    kind, what = render(template, values)
    return {"name": name, "template": template, "input": values, kind: what}


def save(name, cases):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
    print(name, len(cases))


def supplied(folder):
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name, "tokenizer_config.json")
        config = json.load(open(path, encoding="utf-8")) if os.path.exists(path) else {}
        template = config.get("chat_template")
        if not template:
            continue
        tokens = {key: value["content"] if isinstance(value, dict) else value
                  for key, value in config.items() if key.endswith("_token") and
                  isinstance(value, (str, dict))}
        for talk, tools, generate in ((TALK, None, True), (TALK[1:], None, False),
                                      (CALLS, [TOOL], True), (TALK[1:3], [TOOL], False)):
            request = {"messages": talk, "tools": tools, "add_generation_prompt": generate}
            kind, what = render(template, {"documents": None, **tokens, **request})
            yield {"model": name, "input": request, kind: what}


def main():
    # VALUES is written once: the cases that use it say "values".
    cases = [{"name": "values", "input": VALUES}]
    for name, template in [(e, "{{ " + e + " }}") for e in expressions()] + list(TEMPLATES.items()):
        made = case(name, template, VALUES)
        del made["input"]
        cases.append(made)
    cases += [case(*family) for family in families()]
    save("template.json", cases)
    if len(sys.argv) > 1:
        save("template_supplied.json", list(supplied(sys.argv[1])))


main()
