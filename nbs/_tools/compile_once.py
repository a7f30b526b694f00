"""For kernels of the book: a cell with compiled loops that is in the package, word for word, runs
under its file's name and lines, and as if its imports stood above, so that numba finds what it has
compiled of it already."""

import ast
import re
from pathlib import Path

DIRECTIVES = re.compile(r"(?:#\|(?! code-fold).*\n+)*")  # the fold of a cell goes into the package


def in_kernel(nb, package):
    """What a kernel of this notebook runs first. Nothing if its module is out of date, for loops
    that call a changed one, or read a changed constant, would be found as they were."""
    cells = [c.source for c in nb.cells if c.cell_type == "code"]
    name = re.search(r"(?m)^#\|\s*default_exp\s+(\S+)", "\n".join(cells))
    module = package / f"{name[1].replace('.', '/')}.py" if name else package
    own = [c for c in cells if re.match(r"#\|\s*export\b", c) and "from fashion_proto" not in c]
    if not any("@compiled" in c for c in own) or not module.is_file():
        return []
    text = module.read_text(encoding="utf-8")
    if any(DIRECTIVES.sub("", c, count=1).strip() not in text for c in own):
        return []
    call = f"['name_cells'](get_ipython(), {str(module)!r})"
    return [f"__import__('runpy').run_path({__file__!r}){call}"]  # this leaves no name behind


def name_cells(shell, module):
    "Give the cells of this kernel that have compiled loops their places in the file `module`."
    text = Path(module).read_text(encoding="utf-8")
    imports = [n for n in ast.parse(text).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    # Python calls np.sqrt by other instructions where it sees that np was imported
    never = ast.copy_location(ast.If(ast.Constant(False), imports, []), imports[0])

    class Compiler(type(shell.compile)):
        def cache(self, code, *args, **kwargs):
            start = DIRECTIVES.match(code).end()
            at = text.find(code[start:].strip()) if "@compiled" in code else -1
            if at < 0:
                self.moved = 0
                return super().cache(code, *args, **kwargs)
            self.moved = text.count("\n", 0, at) - code.count("\n", 0, start)
            return module

        def __call__(self, source, filename, *args, **kwargs):
            if filename == module and isinstance(source, ast.Module):
                source.body.insert(0, ast.fix_missing_locations(never))
            return super().__call__(source, filename, *args, **kwargs)

        def ast_parse(self, *args, **kwargs):
            return ast.increment_lineno(super().ast_parse(*args, **kwargs), self.moved)

    shell.compile.__class__ = Compiler
