"""The page of a review in a real browser: keyboard, mouse, a phone's width, no request leaves."""

from __future__ import annotations

from browser import asked_hosts, browser, keep, needs_browser, serve, step, text

from jobs.review.server import make_app

pytestmark = needs_browser

PHONE = (390, 780)


def until(shown, marked):
    """Say unsure until a place is shown with marks, or without."""
    while shown.run("page.view.marked") != marked:
        step(shown, lambda: shown.press(" "))


def test_places_are_judged_by_key_by_mouse_and_on_a_phone(opened, package, tmp_path):
    said = {}

    def judge(shown, act, verdict):
        number = shown.run("page.view.index")
        step(shown, act)
        said[number] = verdict
        return number

    with serve(lambda: opened(package), make_app) as address, browser(address, tmp_path) as shown:
        keep(shown, "review-desk")
        for key, verdict in (("p", "partly"), ("r", "reject"), ("a", "accept")):
            until(shown, marked=True)
            assert shown.run("document.querySelector('#overlay .mark').getBBox().width") > 0
            judge(shown, lambda key=key: shown.press(key), verdict)
        until(shown, marked=False)
        shown.press("r")  # nothing is marked: there is nothing to reject
        assert shown.run("document.querySelector('[data-verdict=reject]').disabled")
        last = judge(shown, lambda: shown.press("m"), "missed")
        assert text(shown, "last-verdict") == "Missed"
        step(shown, lambda: shown.press("u"))
        assert shown.run("page.view.index") == last
        judge(shown, lambda: shown.click("[data-verdict=accept]"), "accept")
        step(shown, lambda: shown.press("o"))
        assert shown.run("document.getElementById('marks').getAttribute('aria-pressed')") == "false"
        step(shown, lambda: shown.click("#marks"))
        shown.resize(*PHONE, phone=True)
        shown.wait("document.getElementById('stage').offsetWidth <= 390")
        until(shown, marked=True)
        keep(shown, "review-phone")
        judge(shown, lambda: shown.click("[data-verdict=reject]"), "reject")
        buttons = "[...document.querySelectorAll('button')].filter((b) => b.offsetParent)"
        sizes = shown.run(f"{buttons}.map((b) => Math.min(b.offsetWidth, b.offsetHeight))")
        assert min(sizes) >= 44
        wide = shown.run("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == PHONE[0]
        assert text(shown, "precision").endswith(")")
    with opened(package) as session:
        found = {number: v for number, v in session.verdicts().items() if v != "unsure"}
    assert found == said
    assert asked_hosts(tmp_path) == {address.split("/")[2]}
