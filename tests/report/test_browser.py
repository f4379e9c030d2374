"""The page in a real browser: no errors, no requests but for itself, all of it visible in light, dark and print."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtscodec.errors import BackendError
from dtscodec.report.browser import NAMES, Browser, find_browser, picture
from dtscodec.report.pack_statistics import directory_statistics, pack_statistics
from dtscodec.report.page import page
from tests.report.conftest import HOSTILE, LAYERS, Tensors

needs_browser = pytest.mark.skipif(find_browser() is None, reason=f"needs a browser, one of {', '.join(NAMES)}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(
    pack: Path, fine: Tensors, base: Tensors, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    made = {"pack": page(pack_statistics(pack, fine, base)), "folder": page(directory_statistics(folder))}
    for name, markup in made.items():
        (root / f"{name}.html").write_text(markup, "utf-8")
    return {name: root / f"{name}.html" for name in made}


def evaluate(browser: Browser, expression: str) -> Any:
    result = browser.call("Runtime.evaluate", expression=expression, returnByValue=True)
    assert "exceptionDetails" not in result
    return result["result"]["value"]


def problems(browser: Browser) -> list[str]:
    """Errors and warnings of the page that is shown, and what it did besides showing itself."""
    evaluate(browser, "document.body.offsetHeight")  # What it asks for is asked for by now.
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
    return [str(event) for event in browser.events if event.get("method") in kinds]


def requests(browser: Browser) -> list[str]:
    sent = [event for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
    urls = [event["params"]["request"]["url"] for event in sent]
    return [url for url in urls if not url.startswith("data:")]


@needs_browser
@pytest.mark.parametrize("name", ["pack", "folder"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_the_page_is_quiet_and_whole(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str, media: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", media=media, features=features)
    url = pages[name].as_uri()
    browser.show(url)
    assert problems(browser) == []
    assert requests(browser) == [url]
    seen = "[...document.querySelectorAll('svg.heat rect')].filter(e => e.getBoundingClientRect().width > 0).length"
    assert evaluate(browser, seen) >= 2 * LAYERS
    assert evaluate(browser, "document.documentElement.scrollWidth <= innerWidth")
    background = evaluate(browser, "getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert not evaluate(browser, "document.querySelector('h1').textContent.includes('&')")


@needs_browser
def test_the_table_of_all_tensors_is_folded_on_screen_and_open_in_print(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.show(pages["pack"].as_uri())
    visible = "document.querySelector('details table').checkVisibility()"
    browser.call("Emulation.setEmulatedMedia", media="screen", features=[])
    assert not evaluate(browser, visible)
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert evaluate(browser, visible)
    assert browser.call("Page.printToPDF", printBackground=True)["data"]


@needs_browser
def test_hostile_names_are_shown_as_text(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["pack"].as_uri())
    assert evaluate(browser, "document.querySelectorAll('script, img, h1 *').length") == 0
    names = evaluate(browser, "[...document.querySelectorAll('details tbody th')].map(e => e.textContent)")
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[4]} <= set(names)


@needs_browser
def test_these_tests_would_notice(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('told'); undefined.x</script>")
    browser.show(path.as_uri())
    assert any("told" in problem for problem in problems(browser))
    assert any("exceptionThrown" in problem for problem in problems(browser))
    assert "http://127.0.0.1:9/x.png" in requests(browser)


@needs_browser
def test_a_picture_is_the_whole_page(pages: dict[str, Path]) -> None:
    data = picture(pages["pack"].read_text("utf-8"))
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 900
    assert int.from_bytes(data[20:24], "big") > 1500


@needs_browser
def test_a_picture_waits_until_all_is_drawn(browser: Browser, pages: dict[str, Path]) -> None:
    browser.call("Emulation.setEmulatedMedia", media="screen", features=[])
    taken = set()
    for _ in range(4):
        browser.show(pages["pack"].as_uri())
        browser.picture(720, 1)
        taken.add(browser.picture(400, 1))
    assert len(taken) == 1


def test_without_a_browser_the_error_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="apt-get install chromium"):
        Browser()


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 100", "echo nonsense >&4; exec sleep 100"])
def test_a_browser_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("dtscodec.report.browser._SECONDS", 0.5)
    with pytest.raises(BackendError, match="expected an answer, got none"):
        picture("<p>page</p>")
