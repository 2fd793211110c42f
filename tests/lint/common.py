# SPDX-License-Identifier: MIT
"""What the lints share: the tree's files, C without its comments and strings, and how problems are told."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_TOKEN = re.compile(r"""/\*.*?\*/ | //[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' """, re.S | re.X)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def files(folder, *endings):
    """Paths below folder that end so, relative to the root, sorted."""
    found = []
    for place, folders, names in os.walk(os.path.join(ROOT, folder)):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git", ".deps")]
        for name in names:
            if name.endswith(endings):
                found.append(os.path.relpath(os.path.join(place, name), ROOT))
    return sorted(found)


def code(path):
    """C source with comments and the insides of literals blanked, line numbers kept."""
    def blank(match):
        text = match.group(0)
        if text[0] in "\"'":
            return text[0] + re.sub(r"[^\n]", " ", text[1:-1]) + text[-1]
        return re.sub(r"[^\n]", " ", text)
    return _TOKEN.sub(blank, read(path))


def exceptions(name):
    """First words of the lines of a list beside the lints; '#' begins a comment."""
    path = os.path.join(ROOT, "tests", "lint", name)
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8") as file:
        return {line.split()[0] for line in file if line.strip() and not line.startswith("#")}


def finish(problems):
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def tables():
    """{name of a C table: [(key, default or None if of a later version)]}"""
    found = {}
    for path in files("src/script", ".c"):
        for name, body in re.findall(r"^const struct option (\w+)\[\] = \{\n(.*?)^\};", read(path), re.M | re.S):
            rows = []
            for row in re.split(r"\n    (?=\{\.key = )", "\n" + body)[1:]:
                key = re.match(r'\{\.key = "(\w+)"', row)
                default = re.search(r'\.fallback = "((?:\\.|[^"\\])*)"', row)
                if key:
                    rows.append((key.group(1), default.group(1) if default and "OPTION_LATER" not in row else None))
            found[name] = rows
    return found


def kinds():
    """(the word of a section, the names of its C tables)"""
    for word, first, second in re.findall(r'\{"([a-z_ ]+)", (\w+), (\w+)\},', read("src/script/option_kinds.c")):
        yield word, [name for name in (first, second) if name != "NULL"]
