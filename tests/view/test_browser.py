"""The pages in a headless browser: by the keyboard alone, light and dark, nothing loaded."""

import threading

import pytest

from d3fast.view.server import ViewServer
from tests.view import chromium
from tests.view.runs import everything

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.path() is None, reason="needs Chromium"),
]
# Luminance of a colour as the browser gives it, 0 to 1.
LIGHTNESS = """(name => {
  const [r, g, b] = getComputedStyle(document.querySelector(name))[%r].match(/[\\d.]+/g);
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
})(%r)"""
ROWS = "[...document.querySelectorAll('.runs tbody th a')].map(a => a.textContent)"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("view")
    everything(root)
    with ViewServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory, address):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab
    loaded = [url for url in tab.requests if not url.startswith("data:")]
    assert loaded
    assert all(url.startswith((address, "about:")) for url in loaded), loaded


def test_filter_order_and_compare_by_the_keyboard_alone(page, address):
    page.open(address)
    assert len(page.evaluate(ROWS)) == 6

    page.tab_to("e.name === 'q'")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.type("net-")
    page.press("Enter", loads=True)
    assert sorted(page.evaluate(ROWS)) == ["net-one", "net-two"]

    page.tab_to("e.name === 'sort' && e.value === 'name'")
    page.press("Enter", loads=True)
    assert page.evaluate(ROWS) == ["net-one", "net-two"]
    assert page.evaluate("document.querySelector('[aria-sort]').ariaSort") == "ascending"
    assert page.evaluate("document.querySelector('[name=q]').value") == "net-"

    for name in ("net-one", "net-two"):
        page.tab_to(f"e.type === 'checkbox' && e.value === 'audit/{name}'")
        page.press(" ")
    page.tab_to("e.formAction && e.formAction.endsWith('/compare')")
    page.press("Enter", loads=True)
    assert page.evaluate("location.pathname") == "/compare"
    assert page.evaluate("document.querySelectorAll('figure svg[role=img]').length") == 5
    options = page.evaluate("document.querySelector('.options').textContent")
    assert "card: seed" in options

    page.tab_to("e.textContent === '← All runs'")
    page.press("Enter", loads=True)
    assert page.evaluate("document.querySelectorAll('.runs :checked').length") == 2
    page.tab_to("e.textContent === 'net-two'")
    page.press("Enter", loads=True)
    assert page.evaluate("document.querySelector('h2').textContent") == "Verdict"


def test_every_control_has_a_name_and_every_heading_cell_a_scope(page, address):
    page.open(address)
    assert page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "checkbox", "combobox", "link", "searchbox", "region", "form")
    named = {node["role"]["value"] for node in tree if node.get("name", {}).get("value")}
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node["role"]["value"] in controls
        and not node.get("name", {}).get("value")
    ]
    assert {"button", "checkbox", "link", "searchbox"} <= named
    assert nameless == []


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_both_colour_schemes_can_be_read_at_every_width(page, address, scheme, dark):
    for width in (1280, 390):
        page.look(width, scheme=scheme)
        page.open(f"{address}run?run=demo/demo")
        page.open(address)
        paper = page.evaluate(LIGHTNESS % ("background-color", "html"))
        ink = page.evaluate(LIGHTNESS % ("color", ".verdict"))
        field = page.evaluate(LIGHTNESS % ("background-color", "input[type=search]"))
        assert (paper < 0.2) == (field < 0.2) == dark
        assert abs(paper - ink) > 0.5
        # Wide tables scroll inside their own box.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
