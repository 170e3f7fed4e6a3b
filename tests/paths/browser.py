"""A page in Chromium, as its reader uses it."""

import re
import time

KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015", "enter": "\ue007", "escape": "\ue00c"}
KEYS |= {"backspace": "\ue003", "delete": "\ue017", "space": " "}


class Page:
    def __init__(self, browser):
        self.browser = browser

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        (found,) = self.all(selector)
        return found

    def press(self, *keys):
        """To whatever has the focus."""
        for key in keys:
            self.browser.switch_to.active_element.send_keys(KEYS.get(key, key))

    def hover(self, element, x, y):
        """Pixels from the element's middle. Returns what can be done there."""
        from selenium.webdriver import ActionChains

        there = ActionChains(self.browser).move_to_element_with_offset(element, int(x), int(y))
        there.perform()
        return there

    def choose(self, selector, value):
        from selenium.webdriver.support.ui import Select

        Select(self.one(selector)).select_by_value(str(value))

    def text(self, selector):
        return self.one(selector).text

    def run(self, script):
        return self.browser.execute_script(script)

    def reload(self):
        self.browser.refresh()

    def resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features):
        """prefer(color_scheme="dark"): what the reader's system asks pages for."""
        features = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def violations(self):
        """What axe-core finds against accessibility: [(rule, the elements)]."""
        from axe_core_python.selenium import Axe

        found = Axe().run(self.browser)["violations"]
        return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]


def numbers(text):
    """The numbers of a sentence: how it is worded is not tested."""
    return re.findall(r"\d+(?:,\d{3})*", text)


def wait_until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
