"""Reads C++ as text: what is code, what is comment, under which conditions a line stands, where functions begin and end.

No parser: a scanner for comments and literals, a stack for `#if`, and counting of braces. It serves tidy.py, which looks for
shapes that our own style allows to be recognised by such simple means.

  T1  `code` has the same lines and columns as the file, with comments and the insides of literals blanked. So a column in it
      is a column in the file, and a word in it is a word of the program.
  T2  Of the branches of one `#if`, only the first counts for braces: the others would open the same brace twice.
"""

import re

_TOKEN = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])*'
    """,
    re.VERBOSE | re.DOTALL,
)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w+)[ \t]*(.*?)[ \t]*$")
_NO_FUNCTION = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
# What may stand between the parameters and the body: noexcept, -> type, initialisers. A lambda at namespace scope is no matter.
_FUNCTION = re.compile(r"\)[^;=]*$|\)[^;]*->[^;]*$|\)\s*:[^;]*$")


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


class Function:
    def __init__(self, first, last, head):
        self.first, self.last, self.head = first, last, head


class CppText:
    """One C++ file. Lines are counted from 1; `lines`, `code` and `comments` are lists indexed by line - 1."""

    def __init__(self, text):
        self.lines = text.split("\n")
        comments = [""] * len(self.lines)
        starts = [0]
        for line in self.lines:
            starts.append(starts[-1] + len(line) + 1)

        def replace(match):
            token = match.group(0)
            if not token.startswith(("//", "/*")):
                return token[0] + _blank(token[1:-1]) + token[-1]
            line = text.count("\n", 0, match.start())
            for offset, piece in enumerate(token.split("\n")):
                comments[line + offset] += piece
            return _blank(token)

        self.code = _TOKEN.sub(replace, text).split("\n")
        self.comments = comments
        self._read_conditions()

    def _read_conditions(self):
        """conditions[i]: the texts of the #if branches line i stands under; directives[i]: (word, rest) or None."""
        self.conditions, self.directives, self.in_first_branch = [], [], []
        stack, branches = [], []
        continued = False
        for line in self.code:
            match = None if continued else _DIRECTIVE.match(line)
            is_directive_text = continued or match is not None
            continued = is_directive_text and line.rstrip().endswith("\\")
            if match:
                word, rest = match.groups()
                if word in ("if", "ifdef", "ifndef"):
                    stack.append(f"{word} {rest}")
                    branches.append(True)
                elif word in ("elif", "else") and stack:
                    stack[-1] = f"{word} {rest} after {stack[-1]}"
                    branches[-1] = False
                elif word == "endif" and stack:
                    stack.pop()
                    branches.pop()
            self.directives.append(match.groups() if match else (("", line) if is_directive_text else None))
            self.conditions.append(tuple(stack))
            self.in_first_branch.append(all(branches))

    def in_bodies(self, index):
        return any(re.match(r"if .*\bCONCUR_BODIES\b", condition) for condition in self.conditions[index])

    def functions(self):
        """The function bodies at namespace and class scope; a lambda belongs to the function around it."""
        found, depth_of_function, depth = [], None, 0
        head, head_line = "", 1
        for index, line in enumerate(self.code):
            if self.directives[index] is not None or not self.in_first_branch[index]:
                continue
            for character in line + "\n":
                if depth_of_function is None:
                    if not head.strip():
                        head_line = index + 1
                    head += character
                if character == "{":
                    depth += 1
                    if depth_of_function is None and self._opens_function(head[:-1]):
                        depth_of_function, first = depth, head_line
                        text = " ".join(head[:-1].split())
                elif character == "}":
                    if depth == depth_of_function:
                        found.append(Function(first, index + 1, text))
                        depth_of_function = None
                    depth -= 1
                if character in "{};" and depth_of_function is None:
                    head = ""
        return found

    @staticmethod
    def _opens_function(head):
        text = re.sub(r"\b(public|private|protected)\s*:", "", head).strip()
        text = re.sub(r"^CONCUR_NAMESPACE_\w+|template\s*<[^{}]*?>\s*(?=\w)", "", text).strip()
        if not text or text.endswith(("=", ",", "(")):
            return False
        if _NO_FUNCTION.match(text) and "(" not in re.sub(r"__attribute__\s*\(\(.*?\)\)|alignas\s*\(.*?\)", "", text):
            return False
        return bool(_FUNCTION.search(text)) and "(" in text
