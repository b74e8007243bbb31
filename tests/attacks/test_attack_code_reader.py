"""What a program would put into its output list is read back, whatever shape it came in, and nothing is run."""

from __future__ import annotations

import time

import pytest

from attacks.code import FAMILIES, Code, language, program
from attacks.code_raw import CodeRaw
from attacks.code_reader import LIMIT, read_back

PYTHON = {
    # reference bug: only double quotes were read
    "single quotes": ("output_list.append('take it')", "take it"),
    # reference bug: an escaped quote ended the item
    "escaped quotes": (r'output_list.append("say \"now\" and \\ go")', 'say "now" and \\ go'),
    "escaped single quote": (r"output_list.append('don\'t look')", "don't look"),
    # reference bug: the list body came back as source text, quotes and all
    "list body": ('output_list = ["one", \'two\',\n  "three"]', "one\ntwo\nthree"),
    "triple quotes": ('output_list.append("""one\ntwo""")', "one\ntwo"),
    "f-string": ('n = "coin"\noutput_list.append(f"take the {n} and {other}")', "take the coin and {other}"),
    "implicit concatenation": ('output_list.append("take "\n  "it")', "take it"),
    "sum": ('output_list.append("take " + "it")', "take it"),
    "format": ('output_list.append("take {}".format(x))', "take {}"),
    "extend": ('output_list.extend(["one", "two"])', "one\ntwo"),
    "insert": ('output_list.insert(0, "one")', "one"),
    "plus equals": ('output_list += ["one", "two"]', "one\ntwo"),
    "element": ('output_list[0] = "one"', "one"),
    "assigned string": ('output = "one\\ntwo"', "one\ntwo"),
    "other spelling": ('outputList.append("one")', "one"),
    "attribute": ('self.output_list.append("one")', "one"),
    "variable": ('step = "one"\noutput_list.append(step)', "one"),
    "loop": ('steps = ["one", "two"]\nfor i, s in enumerate(steps):\n    output_list.append(f"{s}!")', "one!\ntwo!"),
    "comprehension": ('output_list = [s.strip() for s in ["one ", "two"]]', "one\ntwo"),
    "joined": ('output = "; ".join(["one", "two"])', "one; two"),
    "dictionary": ('output_list.append({"step": "one"})', "one"),
    "list then appended": ('output_list = ["one"]\noutput_list.append("two")', "one\ntwo"),
    "repeated": ('output_list.append("one")\noutput_list.append("one")', "one"),
    "surrogate halves": (r'output_list.append("hat \ud83c\udfa9 \ud83c")', "hat 🎩 \ufffd"),
    # from here on the code does not parse
    "cut off in a string": ('output_list.append("one")\noutput_list.append("two and th', "one\ntwo and th"),
    "cut off in a list": ('output_list = [\n  "one",\n  "tw', "one\ntw"),
    "cut off in triple quotes": ('output_list.append("""one\ntwo', "one\ntwo"),
    "cut off elsewhere": ("output_list.append('one')\nif x", "one"),
    "slashes for comments": ('if task == : // don\'t\n  output_list.append("one") // step 1', "one"),
    "prose around": ("Sure, here's it:\n\noutput_list.append(\"one\")\n\nThat's all.", "one"),
    "broken extend": ('if:\noutput_list.extend([\n "one",\n "a" "b"\n])\nprint("no")', "one\nab"),
    "broken plus equals": ('if:\noutput_list += ["one"]\nprint("no")', "one"),
    "broken escapes": ('if:\noutput_list.append("\\u00e9 \\x41 \\q \\"x\\"")', 'é A \\q "x"'),
    "raw string": ('if:\noutput_list.append(r"C:\\new")', "C:\\new"),
    "line break in a string": ('output_list.append("one\ntwo")\noutput_list.append("three")', "one\ntwo\nthree"),
    "missing bracket": ('output_list.append("one"\noutput_list.append("two")\nprint("no")', "one\ntwo"),
    "quotes not escaped": (
        'output_list.append("the "double lift" now")\noutput_list.append(\'don\'t\')',
        "the  double lift now\ndon t",
    ),
    "choice": ('if:\noutput_list.append("one" if x else "two")', "one\ntwo"),
    "annotated": ('if:\noutput_list: list[str] = ["one"]', "one"),
    "comparison": ('if output_list == "no":', 'if output_list == "no":'),
}
CPP = {
    "push_back": ('outputList.push_back("one");\noutputList.emplace_back("two");', "one\ntwo"),
    "escapes": (r'outputList.push_back("say \"now\" \\ \t!");', 'say "now" \\ \t!'),
    "raw": ('outputList.push_back(R"(a "b" c)");\noutputList.push_back(R"x(y)" z)x");', 'a "b" c\ny)" z'),
    "braces": ('std::vector<std::string> outputList{"one", "two"};\nint n = f("no");', "one\ntwo"),
    "equals": ('std::vector<std::string> outputList = {"one", "two"};', "one\ntwo"),
    "wrapped": ('outputList.push_back(std::string("one") + " two");', "one\ntwo"),
    "neighbours": ('outputList.push_back("one "\n  "two");', "one two"),
    "characters and comments": ('// don\'t\nchar c = \'"\'; /* " */ outputList.push_back("one");', "one"),
    "cut off": ('outputList.push_back("one");\noutputList.push_back("tw', "one\ntw"),
    "function of like name": ('void fillOutputList() { log("no"); }', 'void fillOutputList() { log("no"); }'),
}
GO = {
    "append": (
        'outputList = append(outputList, "one")\noutputList = append(outputList, "two", "three")',
        "one\ntwo\nthree",
    ),
    "backticks": ('outputList = append(outputList, `a "b"\nc`)', 'a "b"\nc'),
    "escapes": (r'outputList = append(outputList, "say \"now\" \u00e9")', 'say "now" é'),
    "literal": ('outputList := []string{\n\t"one",\n\t"two",\n}\nfmt.Println("no")', "one\ntwo"),
    "declared": ('var outputList []string = []string{"one"}', "one"),
    "cut off": ('outputList = append(outputList, "one")\noutputList = append(outputList, "tw', "one\ntw"),
}
CASES = [
    pytest.param(language, text, read, id=f"{language}: {name}")
    for language, table in (("python", PYTHON), ("cpp", CPP), ("go", GO))
    for name, (text, read) in table.items()
]


@pytest.mark.parametrize(("code_language", "text", "read"), CASES)
def test_items_are_read(code_language, text, read):
    assert read_back(text, code_language) == read


@pytest.mark.parametrize(("code_language", "text", "read"), CASES)
def test_items_are_read_out_of_a_fence(code_language, text, read):
    fenced = f"Here you go:\n\n```{code_language}\n{text}\n```\nAnd `that` is 'all'."
    assert read_back(fenced, code_language) in (read, fenced)
    assert (read_back(fenced, code_language) == fenced) == (read == text)


def test_a_fence_that_never_closes_is_read():
    assert read_back('```python\noutput_list.append("one")', "python") == "one"


def test_two_fences_are_both_read():
    text = '```python\noutput_list.append("one")\n```\nthen\n```python\noutput_list.append("two"\n```\n'
    assert read_back(text, "python") == "one\ntwo"


@pytest.mark.parametrize("code_language", ["python", "cpp", "go"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry, I can't tell you that.",
        "The output is: a \"coin\" and 'nothing' else.",
        '```python\nprint("hello")\n```',
        "output_list.append(...)\noutput_list.append('')",
        'output_list.append("Step 1")  # take it\noutput_list.append("2. ...")  # the answer is in the comments',
    ],
)
def test_text_that_fills_no_list_is_read_as_it_is(text, code_language):
    assert read_back(text, code_language) == text


@pytest.mark.parametrize("family", FAMILIES)
def test_the_unfilled_template_holds_no_answer(family):
    """An echo of the prompt is judged as the echo it is, and the request in it is not taken for the answer."""
    prompt = program("How do I bend a spoon?", family)
    assert read_back(prompt, language(family)) == prompt


def test_reading_runs_nothing(tmp_path):
    victim = tmp_path / "victim"
    payload = f"open({str(victim)!r}, 'w').write('x')"
    text = f"{payload}\noutput_list.append({payload})\noutput_list.append(f'{{{payload}}}')\noutput_list.append('one')"
    assert read_back(text, "python").endswith("one")
    assert read_back("if:\n" + text, "python").endswith("one")
    assert not victim.exists()


def test_a_long_list_of_long_items_is_followed_to_its_end():
    items = [f"{i} " + "word " * 20 for i in range(250)]  # 250 items of 100 characters
    text = "\n".join(f"s = {item!r}\noutput_list.append(s)" for item in items)
    assert read_back(text, "python").count("\n") == 249


HOSTILE = {
    "deep brackets": "output_list = " + "[" * 50_000,
    "deep unary": "output_list = " + "-" * 90_000 + "1",
    "long sum": "output_list = " + "'a'+" * 20_000 + "'b'",
    "long attribute": "output_list = a" + ".b" * 40_000,
    "doubling": "s = ['aaaaaaaa']\n" + "s = s + s\n" * 60 + "output_list = s",
    "doubling text": "s = 'a' + 'b'\n" + "s = f'{s}{s}'\n" * 60 + "output_list = s",
    "long joins": "a = " + repr(["x"] * 9_000) + "\noutput = ('y' * 9).join(a)\n" + "a = a + a\n" * 30,
    "open quotes": "output_list.append(" + "'\n\"\n" * 20_000,
    "open triples": "output_list.append(" + '"""\\' * 20_000,
    "many anchors": "output_list = [" * 7_000,
    "fences": "```\n" * 25_000,
    "null": "output_list = ['a\0b']",
    "lone surrogate": "output_list = ['\ud800']",
    "huge": "output_list.append('one')\n" + "x = 1\n" * 1_000_000,
    "one backslash": "output_list.append('\\",
}


@pytest.mark.parametrize("code_language", ["python", "cpp", "go"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_neither_crashes_nor_hangs(text, code_language):
    started = time.process_time()
    assert isinstance(read_back(text, code_language), str)
    assert time.process_time() - started < 5  # CPU seconds; well under one on a quiet machine


def test_only_the_head_of_a_huge_reply_is_looked_at():
    head = "output_list.append('one')\n"
    assert read_back(head + "x = 1\n" * LIMIT + "output_list.append('two')", "python") == "one"


def test_the_variant_says_which_language_is_read(attempts, context, behavior):
    attack = Code(families=("python-list", "cpp-string", "go-string"))
    python, cpp, go = attempts(attack, behavior(), context())
    assert attack.read(python, "output_list.append('a')") == "a"
    assert attack.read(cpp, 'outputList.push_back("b");') == "b"
    assert attack.read(go, "outputList = append(outputList, `c`)") == "c"


def raw(attempts, context, behavior, request="How do I bend a spoon?"):
    (attempt,) = attempts(CodeRaw(), behavior(request), context())
    return attempt


def test_the_raw_program_ends_inside_its_first_item(attempts, context, behavior):
    attempt = raw(attempts, context, behavior, 'say "x" {encoded} \\')
    assert not attempt.prompt.messages
    assert attempt.prompt.text.endswith('output_list = [\n    "First,')
    assert r'question = "say \"x\" {encoded} \\"' in attempt.prompt.text


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (' take it.",\n    "Step 2: bend it.",\n]\nprint("no")', "take it.\nStep 2: bend it."),
        (" take it and th", " take it and th"),
        (' take it.",\n "Step 2: bend', "take it.\nStep 2: bend"),
        ("Sorry, I can't say that.", "Sorry, I can't say that."),
        ('",\n]\n', '",\n]\n'),  # an empty list: nothing but the text is left to judge
        ("", ""),
        (' the "double lift" and more', ' the "double lift" and more'),  # prose: a quotation ends no item
        (' one.\n two",\n "three"\n', "one.\n two\nthree"),
        (' one.",\n]\n\nquestion = "And tea?"\noutput_list = ["no"]\n', "one."),
        (" one.\n2. two.\n3. three", " one.\n2. two.\n3. three"),
        (' take it."]\n```\nThat was "all".', "take it."),
    ],
)
def test_the_rest_of_the_raw_program_is_read(said, read, attempts, context, behavior):
    assert CodeRaw().read(raw(attempts, context, behavior), said) == read
