"""Sphinx settings. A page is its notebook: `lesson` turns nbdev's directives into cell tags and
names into links."""

import re
import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import yaml
from nbdev.config import get_config

cfg = get_config(path=Path(__file__).parent)
sys.path[:0] = [str(cfg.config_path)]
project, author, release, copyright, language = (
    cfg.title,
    cfg.author,
    cfg.version,
    cfg.copyright,
    "en",
)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_*", "**/.ipynb_checkpoints"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_code_prompt_show, nb_code_prompt_hide = "Imports and preparations", "Fold"
nb_number_source_lines = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
add_module_names = False
python_maximum_signature_line_length = 80
default_role = "code"

html_theme = "furo"
html_title = cfg.title
html_baseurl = f"{cfg.doc_host}{cfg.doc_baseurl}/"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["fashion.css"]
html_js_files = ["code.js"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
fonts = {
    "font-stack": "system-ui, sans-serif",
    "font-stack--monospace": "ui-monospace, monospace",
    "code-font-size": "80%",
}
html_theme_options = {
    "source_repository": cfg.git_url,
    "source_branch": cfg.branch,
    "source_directory": "nbs/",
    "top_of_page_buttons": ["view"],  # the notebook that the page is
    "light_css_variables": fonts
    | {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": fonts
    | {"color-brand-primary": "#7db8f0", "color-brand-content": "#7db8f0"},
}

# The parts of the core, each before those that import it
PARTS = (
    "checks estimators storage files sources fast_csv fetch products sketches eight_bits scan "
    "flat bounds neighbours pieces shards graph engines patch_loops scatter findings report pages"
).split()

# The site serves MathJax itself: one script that draws with SVG and needs no font files
mathjax_path = "mathjax/tex-svg-full.js"


def public_names():
    "Each exported name of the package and its full name, as nbdev's index has them."
    from fashion_proto._modidx import d

    full = {k.split(".", 2)[-1]: k for syms in d["syms"].values() for k in syms}
    return {
        name: f"{'.'.join(k.split('.')[:2])}.{name}"
        for name, k in full.items()
        if not re.search(r"(^|\.)_|^core\.", name)
    }


def linked(text, names):
    """Markdown `text` with backticked public names as links to the API page; headings, links
    and code blocks stay."""
    role = lambda m: f"{{py:obj}}`{m[1]} <{names[m[2]]}>`" if m[2] in names else m[0]
    parts = re.split(r"(?ms)(^```.*?^```|^#+ .*?$|\[[^\]]*\]\([^)]*\))", text)
    return "".join(
        p if i % 2 else re.sub(r"(?<!`)`(([\w.]+)(?:\(\))?)`(?!`)", role, p)
        for i, p in enumerate(parts)
    )


BUILT = re.compile(r"\[([^\]]*)\]\(\.\./_docs/([^)]*)\)")  # a link to what only the site has


def shown(cell):
    "A code cell without its directives, which become tags; None for a hidden cell."
    found = re.match(r"(?:#\|.*\n?)*", cell.source)[0]
    opts = dict((k, v) for k, v in re.findall(r"#\|\s*([\w-]+):?[ \t]*(.*)", found))
    if "hide" in opts or "default_exp" in opts:
        return None
    cell.source = cell.source[len(found) :].strip("\n")
    if "export" in opts:  # the rest of a docstring is on the API page
        cell.source = re.sub(r'(?ms)^( +""".*?)\n\n.*?"""', r'\1"""', cell.source)
    tags = {"echo": "remove-input", "code-fold": "hide-input"}
    cell.metadata = nbformat.from_dict({"tags": [t for k, t in tags.items() if k in opts]})
    if "code-fold" in opts and "import" not in cell.source:
        cell.metadata["mystnb"] = {"code_prompt_show": "The code"}
    if "solution" in opts:  # of an exercise
        cell.metadata = nbformat.from_dict(
            {"tags": ["hide-cell"], "mystnb": {"code_prompt_show": "A solution"}}
        )
    if "fig-alt" in opts:
        image = {"image": {"alt": yaml.safe_load(opts["fig-alt"])}}
        cell.metadata["mystnb"] = cell.metadata.get("mystnb", {}) | image
    return cell


# The sidebar: each group and the pages in it, by number
GROUPS = {
    "Look": ["0[0-2]*"],
    "Prototypes": ["0[3-5]*"],
    "Neighbours": ["0[67]*", "08_*", "08a*"],
    "Is the data in order?": ["08b*", "09*"],
    "Further": ["1[0-4]*"],
    "The verdict": ["15*"],
    "The workshop": ["core/index", *(f"core/{part}" for part in PARTS)],
    "Reference": ["api"],
}


def toctree(caption, pages):
    lines = [f":caption: {caption}", ":hidden:", ":glob:", "", *pages]
    return "\n".join(["```{toctree}", *lines, "```"])


def elsewhere(name):
    "Where a chapter can be run without installing anything."
    path, place = f"nbs/{name}.ipynb", f"{cfg.user}/{cfg.repo}"
    binder = f"https://mybinder.org/v2/gh/{place}/{cfg.branch}?labpath={path}"
    colab = f"https://colab.research.google.com/github/{place}/blob/{cfg.branch}/{path}"
    return f"Run this chapter elsewhere: [Binder]({binder}) · [Colab]({colab})"


def lesson(app, docname, source):
    "Read a notebook as a page."
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    nb, names = nbformat.reads(source[0], as_version=4), public_names()
    nb.cells = [c for c in (shown(c) if c.cell_type == "code" else c for c in nb.cells) if c]
    for c in nb.cells:
        if c.cell_type == "markdown":
            text = c.source
            text = BUILT.sub(r'<a class="reference" href="\2">\1</a>', text)
            if "/" not in docname:
                text = text.replace("](../../", f"]({cfg.git_url}/").replace(
                    "](../", f"]({cfg.git_url}/blob/{cfg.branch}/"
                )
            c.source = linked(text, names)
    if "/" not in docname and docname != "index":
        nb.cells.append(nbformat.v4.new_markdown_cell(elsewhere(docname)))
    if docname == "index":
        nb.cells += [nbformat.v4.new_markdown_cell(toctree(*group)) for group in GROUPS.items()]
    source[0] = nbformat.writes(nb)


def finish(app, error):
    name = "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js"
    target = Path(app.outdir, "_static", mathjax_path)
    target.parent.mkdir(exist_ok=True)
    shutil.copy(distribution("sphinx-mathjax-offline").locate_file(name), target)
    for source_map in Path(app.outdir, "_static").rglob("*.map"):
        source_map.unlink()  # for debuggers of the theme


def skip(app, what, name, obj, skipped, options):
    "Leave out what scikit-learn adds to every estimator for routing metadata."
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app):
    app.connect("autodoc-skip-member", skip)
    app.connect("source-read", lesson)
    app.connect("build-finished", finish)
