"""Names of classes that break programs which paste them into a line, a page, a table or a format string."""

HOSTILE_NAMES = (
    "a \"double\" and a 'single' quote",
    "</script><script>alert(1)</script>",
    "two\nlines\r\nand a tab\t",
    "cat 🐈‍⬛ naïve 猫",
    "\u202eright to left\u202c \u200f",
    "long " * 60,
    "=1+1",
    "{name} %s \\u0041 $HOME `id`",
    "comma, semicolon; and a | bar",
    " spaces around ",
)
