"""The site in a real browser, wide and narrow, and its links."""
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

from conftest import ROOT

PAGES = ["index", "api", *sorted(str(p.relative_to(ROOT / "nbs").with_suffix("")) for p in (ROOT / "nbs").glob("**/[!_i.]*.ipynb") if "_" not in p.parts[-2][:1])]


class Links(HTMLParser):
    "The ids of a page, and where it leads."
    def __init__(self, text):
        super().__init__()
        self.ids, self.urls = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get("id"), attrs.get("name")}
        self.urls += [attrs[k] for k in ("href", "src") if attrs.get(k)]


def test_links_lead_somewhere(site):
    found = {p: Links(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}
    assert {f"{name}.html" for name in PAGES} <= {str(p.relative_to(site)) for p in found}
    bad = []
    for path, page in found.items():
        for url in page.urls:
            if re.match(r"[a-z]+:|//", url): continue
            file, anchor = urldefrag(unquote(url))
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            if not target.exists(): bad.append((path.name, url))
            elif target.parent.name == "play": continue         # their scripts read what follows the #
            elif anchor and target in found and anchor not in found[target].ids: bad.append((path.name, url))
    assert not bad


def test_readme_links_lead_somewhere():
    for url in re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text()):
        assert url.startswith(("http", "../../")) or (ROOT / url).exists(), url


def test_pages(browser, pages):
    "Each page in four looks: as it was loaded (every other one wide and light, the rest narrow and dark), and as it changes then."
    page = browser.new_page()
    page.add_init_script("""new MutationObserver((_, observer) => { if (!document.documentElement) return;
        document.documentElement.style.visibility = 'hidden'; observer.disconnect(); }).observe(document, { childList: true })""")      # laid out, not painted
    errors, outside = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: None if r.url.startswith((pages, "data:", "blob:")) else outside.append(r.url))
    looks = [(1280, "light"), (360, "light"), (1280, "dark"), (360, "dark")]
    for name in PAGES:
        for width, scheme in looks:
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            if (width, scheme) == looks[0]: page.goto(f"{pages}/{name}.html", wait_until="load")
            scroll, broken, unnamed = page.evaluate("""() => { const images = [...document.images];
                return [document.documentElement.scrollWidth - innerWidth,
                        images.filter(i => !i.complete || !i.naturalWidth).map(i => i.src), images.filter(i => !i.alt).map(i => i.src)] }""")
            assert scroll <= 0, f"{name} scrolls sideways by {scroll} at {width}, {scheme}"
            assert not broken and not unnamed, (name, broken, unnamed)
        looks.reverse()
    page.close()
    assert not errors and not outside


def test_search(browser, pages):
    page = browser.new_page()
    page.goto(f"{pages}/search.html?q=load_fashion_mnist")
    page.wait_for_selector("#search-results li a")
    hits = page.eval_on_selector_all("#search-results li a", "links => links.map(a => a.getAttribute('href'))")
    page.close()
    assert any("00_data.html" in h for h in hits) and any("api.html" in h for h in hits)


def test_code_of_exported_functions_is_shown(site):
    text, core = (re.sub(r"<[^>]+>", "", (site / page).read_text()) for page in ("00_data.html", "core/fast_csv.html"))
    assert "def load_fashion_mnist(path=None):" in text and "#| export" not in text + core and "def read_block" in core
