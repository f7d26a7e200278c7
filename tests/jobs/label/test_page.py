"""The page in a real browser: keyboard, mouse, fingers, at the width of a desk and of a phone."""

from __future__ import annotations

import pytest
from browser import asked_hosts, browser, keep, needs_browser, serve, step, text

from jobs.label.answers import read_events
from jobs.label.server import make_app
from jobs.label.session import Who, open_session
from jobs.page.journal import replay

pytestmark = needs_browser

PHONE = (390, 780)


def served(folder, who=None):
    """The page's address while a server runs in a thread."""
    return serve(lambda: open_session(folder, who or Who()), make_app)


def answers(folder):
    return [
        (a.file.split("_r")[0], a.verdict) for a in replay(read_events(folder / "labels.jsonl"))
    ]


def assert_centered(shown):
    """The window's middle is that of the stage, whatever lies around it."""
    boxes = "['#stage', '#scene .window'].map((s) => document.querySelector(s)"
    boxes += ".getBoundingClientRect()).map((b) => [b.x + b.width / 2, b.y + b.height / 2])"
    stage, window = shown.run(boxes)
    assert window == pytest.approx(stage, abs=2)


def test_the_keyboard_does_everything(folder, tmp_path, labels_of):
    with served(folder) as address, browser(address, tmp_path) as shown:
        keep(shown, "desk-start")
        for key in ("c", "r", " "):
            step(shown, lambda key=key: shown.press(key))
        assert answers(folder) == [("a", "crack"), ("a", "road"), ("a", "unsure")]
        assert text(shown, "count") == "3 of 12"
        assert text(shown, "last-verdict") == "Unsure"
        assert text(shown, "guess") == "Model: crack, 90\xa0%"
        keep(shown, "desk-guess")
        shown.press("g")
        assert shown.run("document.getElementById('guess').hidden")
        step(shown, lambda: shown.press("u"))
        assert answers(folder) == [("a", "crack"), ("a", "road")]
        assert shown.run("page.view.index") == 2
        for level in ("fit", "close", "around"):
            step(shown, lambda: shown.press("z"))
            assert shown.run(f"document.getElementById('stage').classList.contains({level!r})")
            assert_centered(shown)
            keep(shown, f"desk-{level}")
            if level == "close":
                before = shown.run("document.getElementById('stage').scrollLeft")
                shown.press("ArrowRight", shift=True)
                shown.wait(f"document.getElementById('stage').scrollLeft > {before}")
        step(shown, lambda: shown.press("ArrowLeft"))
        assert "Your answer: road" in text(shown, "caption")
        keep(shown, "desk-back")
        step(shown, lambda: shown.press("c"))
        assert (shown.run("page.view.index"), answers(folder)[-1]) == (2, ("a", "crack"))
        step(shown, lambda: shown.press("ArrowRight"))
        assert shown.run("page.view.index") == 3
        shown.press("Escape")
        shown.wait("page.view.index === 2 && !page.busy")
        while shown.run("page.view !== null"):
            step(shown, lambda: shown.press("r"))
        assert "2 crack, 10 road" in text(shown, "end")
        keep(shown, "desk-end")
        shown.press("c")  # there is nothing left to answer
        assert len(answers(folder)) == 13
        step(shown, lambda: shown.press("ArrowLeft"))
        assert shown.run("page.view.index") == 11
        names = "performance.getEntriesByType('resource').map((entry) => entry.name)"
        assert all(name.startswith((address, "data:")) for name in shown.run(names))
    assert sorted(labels_of(folder).values()) == ["crack"] * 2 + ["road"] * 10
    assert asked_hosts(tmp_path) == {address.split("/")[2]}


@pytest.mark.slow
def test_a_key_held_down_is_one_answer_and_shortcuts_of_the_browser_are_none(folder, tmp_path):
    with served(folder) as address, browser(address, tmp_path) as shown:
        step(shown, lambda: shown.press("c"))
        for _ in range(5):
            shown.press("c", repeat=True)
        event = "new KeyboardEvent('keydown', {key: 'c', ctrlKey: true, bubbles: true})"
        shown.run(f"document.body.dispatchEvent({event})")
        shown.run("new Promise((done) => setTimeout(done, 300))")
        assert len(answers(folder)) == 1


@pytest.mark.slow
def test_space_presses_a_button_reached_by_tab_and_means_unsure_after_a_click(folder, tmp_path):
    with served(folder) as address, browser(address, tmp_path) as shown:
        step(shown, lambda: shown.click("[data-verdict=crack]"))
        step(shown, lambda: shown.press(" "))
        assert [verdict for _, verdict in answers(folder)] == ["crack", "unsure"]
        while not shown.run("document.activeElement.dataset.verdict === 'road'"):
            shown.press("Tab")
        keep(shown, "desk-focus")
        step(shown, lambda: shown.press(" "))
        assert [verdict for _, verdict in answers(folder)] == ["crack", "unsure", "road"]


def test_a_phone_has_three_big_buttons_and_swipes(folder, tmp_path):
    with served(folder, Who("anna")) as address, browser(address, tmp_path) as shown:
        shown.resize(*PHONE, phone=True)
        shown.wait("document.getElementById('stage').offsetWidth === 390")
        assert_centered(shown)
        keep(shown, "phone-start")
        for verdict in ("road", "unsure", "crack"):
            step(shown, lambda verdict=verdict: shown.click(f"[data-verdict={verdict}]"))
        step(shown, lambda: shown.swipe("#scene", 150))
        step(shown, lambda: shown.swipe("#scene", -150))
        shown.swipe("#scene", 30)
        shown.swipe("#scene", 90, 200)
        shown.run("new Promise((done) => setTimeout(done, 300))")
        keep(shown, "phone")
        said = [a.verdict for a in replay(read_events(folder / "labels-anna.jsonl"))]
        assert said == ["road", "unsure", "crack", "crack", "road"]
        sizes = "[...document.querySelectorAll('button')].filter((b) => b.offsetParent)"
        boxes = shown.run(f"{sizes}.map((b) => [b.offsetWidth, b.offsetHeight])")
        assert min(min(box) for box in boxes) >= 44
        wide = shown.run("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == PHONE[0]
        step(shown, lambda: shown.click("#undo"))
        assert len(replay(read_events(folder / "labels-anna.jsonl"))) == 4


@pytest.mark.slow
def test_two_different_answers_are_offered_for_another_look(folder, tmp_path):
    with open_session(folder, Who("bob")) as bob:
        while views := bob.choices():
            bob.answer(views[0].index, "road")
    with served(folder, Who("anna", again=0.25)) as address, browser(address, tmp_path) as shown:
        for key in ("c", "c", "r"):
            step(shown, lambda key=key: shown.press(key))
        assert "1 of 3 the same" in text(shown, "end-text")
        assert text(shown, "disputed") == "Look at 2 windows with two different answers"
        keep(shown, "desk-disputed")
        shown.click("#disputed")
        shown.wait("page.view !== null && !page.busy")
        for _ in range(2):
            step(shown, lambda: shown.press("r"))
        assert "3 of 3 the same" in text(shown, "end-text")
        assert shown.run("document.getElementById('disputed').hidden")


@pytest.mark.slow
def test_the_page_says_when_the_program_has_ended(folder, tmp_path):
    with served(folder) as address, browser(address, tmp_path) as shown:
        step(shown, lambda: shown.press("c"))
        shown.run("window.fetch = () => Promise.reject(new TypeError('gone')); null")
        shown.press("r")
        shown.wait("!document.getElementById('trouble').hidden")
        assert "start it again" in text(shown, "trouble")
        keep(shown, "desk-trouble")
    assert len(answers(folder)) == 1


@pytest.mark.slow
def test_texts_have_contrast(folder, tmp_path):
    """Of 4.5:1 or more against what lies below, by the formula of WCAG 2."""
    script = """
    (() => {
      const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
      const light = (color) => {
        const [r, g, b] = numbers(color).map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const below = (element) => {
        for (let e = element; e; e = e.parentElement) {
          const color = getComputedStyle(e).backgroundColor;
          if (numbers(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
      };
      const texts = [...document.querySelectorAll("body *")].filter((e) => e.offsetParent
        && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
      return texts.map((e) => {
        const [a, b] = [getComputedStyle(e).color, below(e)].map(light).sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 60)];
      });
    })()
    """
    with served(folder) as address, browser(address, tmp_path) as shown:
        step(shown, lambda: shown.press("c"))
        found = shown.run(script)
    assert len(found) > 20
    assert [what for contrast, what in found if contrast < 4.5] == []
