// The page of `wpcrack label`: shows a window, sends the answer, shows the next one.
// What is right stands on the server; here is only what the eye needs.
"use strict";

const NAMES = {crack: "Crack", road: "Road", unsure: "Unsure"};
const KEYS = {c: "crack", r: "road", " ": "unsure"};
const SWIPE_PX = 70; // a shorter move of the finger is none

Object.assign(page, {
  view: null, // what is shown
  open: null, // the next window to answer; null when all is done
  trail: null, // numbers that the arrow keys walk through
  level: "around", // how near: around, fit or close
  guess: true, // whether the model's guess is shown
  loaded: new Map(), // pictures loaded ahead
});

// ---- pictures

function picture(address) {
  const known = page.loaded.get(address);
  if (known) return known;
  const image = new Image();
  image.src = address;
  page.loaded.set(address, image);
  return image;
}

function loadAhead(views) {
  const wanted = new Set(views.map((view) => `window/${view.index}`));
  for (const address of page.loaded.keys()) if (!wanted.has(address)) page.loaded.delete(address);
  wanted.forEach(picture);
}

async function show(view) {
  const image = picture(`window/${view.index}`);
  page.loaded.delete(`window/${view.index}`);
  const broken = await image.decode().then(() => false, () => true);
  image.className = "window";
  image.alt = broken ? "This picture cannot be shown; say unsure." : "The window to be labeled";
  const around = view.around.map((part) => {
    const faint = new Image();
    faint.className = "faint";
    faint.alt = "";
    faint.src = `${part.kind}/${part.index}`;
    Object.assign(faint.style, {
      left: `${100 * part.col / view.width}%`, top: `${100 * part.row / view.height}%`,
      width: `${100 * part.width / view.width}%`, height: `${100 * part.height / view.height}%`,
    });
    return faint;
  });
  const scene = $("scene");
  scene.style.setProperty("--w", view.width);
  scene.style.setProperty("--h", view.height);
  scene.style.translate = "";
  scene.classList.toggle("broken", broken);
  scene.replaceChildren(...around, image);
  page.view = view;
  scene.hidden = false;
  $("end").hidden = true;
  zoomTo(page.level);
  caption();
}

function zoomTo(level) {
  page.level = level;
  const near = level === "around" && !page.view.around.length ? "fit" : level;
  const stage = $("stage");
  stage.classList.remove("around", "fit", "close");
  stage.classList.add(near);
  if (near === "close") stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
  else stage.scrollTo(0, 0);
}

function zoom() {
  if (!page.view) return;
  const levels = page.view.around.length ? ["around", "fit", "close"] : ["fit", "close"];
  const now = levels.findIndex((level) => $("stage").classList.contains(level));
  zoomTo(levels[(now + 1) % levels.length]);
  say({around: "With surroundings", fit: "Whole window", close: "Close"}[page.level]);
}

// ---- words

function caption() {
  const {view, open} = page;
  const elsewhere = Boolean(view) && view.index !== open?.index;
  $("resume").hidden = !elsewhere || !open;
  $("caption").replaceChildren();
  for (const button of $("answers").children) {
    button.disabled = !view;
    button.setAttribute("aria-pressed", String(view?.verdict === button.dataset.verdict));
  }
  $("zoom").disabled = !view;
  if (!view) return;
  const answer = document.createElement("b");
  if (view.verdict) answer.textContent = `Your answer: ${NAMES[view.verdict].toLowerCase()}`;
  else if (view.label) answer.textContent = `In the manifest: ${view.label}`;
  const place = `${view.source}, row ${view.row}, column ${view.col}`;
  $("caption").append(...(answer.textContent ? [answer, " · "] : []), place);
  $("caption").title = place;
  $("stage").setAttribute("aria-label", `Window ${place}. ${answer.textContent}`);
}

function agreementText({pairs, same, kappa}) {
  if (!pairs) return "";
  return `Second answers: ${same} of ${pairs} the same` + (kappa === null ? "" : `, kappa ${kappa.toFixed(2)}`);
}

function report(state) {
  const {progress, last} = state;
  const done = progress.crack + progress.road + progress.unsure;
  const number = document.createElement("b");
  number.textContent = done;
  $("count").replaceChildren(number, ` of ${progress.total}`);
  $("bar").max = progress.total;
  $("bar").value = done;
  $("pace").textContent = paceText(progress);
  for (const kind of Object.keys(NAMES)) {
    $(`n-${kind}`).textContent = progress[kind];
    document.querySelector(`#balance .${kind}`).style.flexGrow = progress[kind];
  }
  const few = Math.min(progress.crack, progress.road) < state.few;
  $("few").textContent = few ? `A training wants ${state.few} of each, better more.` : "";
  $("agreement").textContent = agreementText(progress.agreement);
  $("who").textContent = state.who;
  $("who").hidden = !state.who;
  $("last").hidden = !last;
  if (last) {
    $("last-verdict").textContent = NAMES[last.verdict];
    $("last-verdict").className = last.verdict;
    const p = last.probability;
    $("show-guess").hidden = p === null;
    $("guess").textContent = p === null ? "" : `Model: ${p >= 0.5 ? "crack" : "road"}, ${Math.round(100 * Math.max(p, 1 - p))}\u00a0%`;
    $("guess").hidden = !page.guess;
  }
}

function end(state) {
  const {progress} = state;
  page.view = null;
  $("scene").hidden = true;
  $("end-title").textContent = "All windows are labeled";
  $("end-text").textContent = [
    `${progress.crack} crack, ${progress.road} road, ${progress.unsure} left out.`, agreementText(progress.agreement),
  ].filter(Boolean).join(" ");
  const disputed = progress.agreement.open.length;
  $("disputed").hidden = !disputed;
  $("disputed").textContent = disputed === 1 ? "Look at the window with two different answers" : `Look at ${disputed} windows with two different answers`;
  $("end").hidden = false;
  caption();
}

// ---- what a person does

async function goOn(state) {
  report(state);
  loadAhead(state.views);
  page.open = state.views[0] ?? null;
  if (page.open) await show(page.open);
  else end(state);
}

function answer(verdict) {
  if (!page.view) return;
  alone(async () => {
    const {index, again} = page.view;
    const state = await ask("answer", {index, verdict, again});
    const stage = $("stage");
    stage.classList.remove(...Object.keys(NAMES).map((name) => `said-${name}`));
    void stage.offsetWidth; // starts the animation anew
    stage.classList.add(`said-${verdict}`);
    const more = page.trail?.disputed ? page.trail.list.find((other) => !page.trail.seen.has(other)) : undefined;
    if (more !== undefined) {
      page.trail.seen.add(more);
      report(state);
      await show(await ask(`view/${more}`));
    } else {
      page.trail = null;
      await goOn(state);
    }
    const {crack, road, unsure, total} = state.progress;
    say(`${NAMES[verdict]}, saved. ${crack + road + unsure} of ${total}.`);
  });
}

function undo() {
  alone(async () => {
    const state = await ask("undo", {});
    if (state.undone === null) return say("There is no answer to undo.");
    page.trail = null;
    if (state.views[0]?.index === state.undone) await goOn(state);
    else {
      report(state);
      page.open = state.views[0] ?? null;
      await show(await ask(`view/${state.undone}`));
    }
    say("Taken back.");
  });
}

function browse(step) {
  alone(async () => {
    page.trail ??= {list: (await ask("queue")).queue, disputed: false};
    const {list} = page.trail;
    const here = page.view ? list.indexOf(page.view.index) : list.length;
    const there = list[here + step];
    if (there === undefined) return;
    await show(there === page.open?.index ? page.open : await ask(`view/${there}`));
    say($("stage").getAttribute("aria-label"));
  });
}

function lookAtDisputed() {
  alone(async () => {
    const list = (await ask("queue")).disputed;
    if (!list.length) return;
    page.trail = {list, disputed: true, seen: new Set([list[0]])};
    await show(await ask(`view/${list[0]}`));
  });
}

function resume() {
  alone(async () => {
    page.trail = null;
    await goOn(await ask("state"));
  });
}

function switchGuess() {
  page.guess = !page.guess;
  $("guess").hidden = !page.guess;
  $("show-guess").setAttribute("aria-pressed", String(page.guess));
}

// ---- keys, buttons, fingers

const ACTS = {
  u: undo, z: zoom, g: switchGuess, Escape: resume, ArrowLeft: () => browse(-1), ArrowRight: () => browse(1),
};

bindKeys({
  ...ACTS,
  ...Object.fromEntries(Object.entries(KEYS).map(([key, verdict]) => [key, () => answer(verdict)])),
});

const BUTTONS = {
  undo, zoom, resume, "show-guess": switchGuess, disputed: lookAtDisputed, back: () => browse(-1), forth: () => browse(1),
};
for (const [id, act] of Object.entries(BUTTONS)) $(id).addEventListener("click", act);
for (const button of $("answers").children) button.addEventListener("click", () => answer(button.dataset.verdict));

followPointer(() => page.level === "close");

// A swipe to the right says crack, to the left road: where the buttons are.
let start = null;
const moved = (touch) => ({x: touch.clientX - start.clientX, y: touch.clientY - start.clientY});
$("stage").addEventListener("touchstart", (event) => {
  start = event.touches.length === 1 && page.level !== "close" ? event.touches[0] : null;
}, {passive: true});
$("stage").addEventListener("touchmove", (event) => {
  if (start) $("scene").style.translate = `${moved(event.touches[0]).x}px`;
}, {passive: true});
$("stage").addEventListener("touchend", (event) => {
  if (!start) return;
  const {x, y} = moved(event.changedTouches[0]);
  start = null;
  $("scene").style.translate = "";
  if (Math.abs(x) > SWIPE_PX && Math.abs(x) > 2 * Math.abs(y)) answer(x > 0 ? "crack" : "road");
}, {passive: true});
$("stage").addEventListener("touchcancel", () => {
  start = null;
  $("scene").style.translate = "";
});

alone(async () => {
  await goOn(await ask("state"));
  document.body.dataset.ready = "1";
});
