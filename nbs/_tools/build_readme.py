"""Write README.md, and the pictures it shows, from nbs/index.ipynb and the outputs stored in it.

python nbs/_tools/build_readme.py
"""

import base64
import re

import nbformat
import yaml
from nbdev.config import get_config

cfg = get_config()
folder = cfg.nbs_path / "index_files"


def outputs(cell, alt, pictures):
    "What a cell gave, as Markdown; pictures are put aside in `pictures`."
    for o in cell.outputs:
        data = o.get("data", {})
        if "image/png" in data:
            name = f"figure-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode(data["image/png"])
            yield f"![{alt}](nbs/{folder.name}/{name})"
        elif "text/markdown" in data:
            yield data["text/markdown"]
        elif "text/html" in data:
            yield re.sub(r"(?s)<style.*?</style>\s*", "", data["text/html"]).strip()
        elif text := data.get("text/plain") or o.get("text"):
            yield f"```text\n{text.rstrip()}\n```"


def readme(nb):
    "The text of README.md and its pictures, by name."
    parts, pictures = (
        [f"<!-- Made from nbs/{cfg.readme_nb} by `make prepare`: edit that, not this. -->"],
        {},
    )
    for cell in nb.cells:
        if cell.cell_type == "markdown":  # its links are relative to nbs/
            text = re.sub(r"\]\((?!https?:|#|\.\./)", f"]({cfg.nbs_path.name}/", cell.source)
            text = text.replace("](../_docs/", f"]({cfg.doc_host}{cfg.doc_baseurl}/")
            parts.append(re.sub(r"\]\(\.\./(?!\.\./)", "](", text))
            continue
        found = re.match(r"(?:#\|.*\n?)*", cell.source)[0]
        opts = dict(re.findall(r"#\|\s*([\w-]+):?[ \t]*(.*)", found))
        if "hide" in opts:
            continue
        if "echo" not in opts:
            parts.append(f"```python\n{cell.source[len(found) :].strip()}\n```")
        parts += outputs(cell, yaml.safe_load(opts.get("fig-alt", "")) or "", pictures)
    return "\n\n".join(p.strip("\n") for p in parts) + "\n", pictures


if __name__ == "__main__":
    text, pictures = readme(nbformat.read(cfg.nbs_path / cfg.readme_nb, as_version=4))
    (cfg.config_path / "README.md").write_text(text, encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, png in pictures.items():
        (folder / name).write_bytes(png)
