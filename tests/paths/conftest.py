"""A browser for the pages that an analysis writes."""

import json
import shutil

import pytest

from tests.paths.browser import Page


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs Chromium and chromedriver")
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    driver.downloads = folder / "downloads"
    yield driver
    driver.quit()


@pytest.fixture
def load(browser):
    """load(file, width, height, kind, at): the file's Page in the browser, at "#somewhere". Afterwards: no error, no
    request."""
    files = []

    def load(file, width=1400, height=900, kind=Page, at=""):
        page = kind(browser)
        page.resize(width, height)
        files.append(file.as_uri())
        browser.get(files[-1] + at)
        return page

    load.browser = browser
    browser.get_log("browser"), browser.get_log("performance")
    yield load
    assert browser.get_log("browser") == []  # what the policy forbids is logged here, and errors
    log = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in log if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("data:", "blob:", "chrome:", "chrome-untrusted:"))} <= set(
        files
    )
    resources = browser.execute_script('return performance.getEntriesByType("resource").map((e) => e.name)')
    assert [name for name in resources if not name.startswith("data:")] == []
    browser.execute_script("localStorage.clear(); window.onbeforeunload = null")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")
