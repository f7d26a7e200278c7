// The page of `wpcrack review`: shows a place without and with what the map says, sends the answer.
"use strict";

const NAMES = {accept: "Accept", partly: "Partly", reject: "Reject", missed: "Missed", unsure: "Unsure"};
const KEYS = {a: "accept", p: "partly", r: "reject", m: "missed", " ": "unsure"};
const SVG = "http://www.w3.org/2000/svg";

Object.assign(page, {view: null, ahead: []});

function picture(index) {
  const image = new Image();
  image.src = `picture/${index}`;
  return image;
}

function shape(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Around the frame it is pale; the marks lie below the frame.
function drawing(view, hasMarks) {
  const all = view.around * view.side, from = (all - view.side) / 2, to = from + view.side;
  const frame = {x: from, y: from, width: view.side, height: view.side};
  const svg = shape("svg", {viewBox: `0 0 ${all} ${all}`, "aria-hidden": "true"});
  const hole = `M0 0H${all}V${all}H0ZM${from} ${from}V${to}H${to}V${from}Z`;
  if (hasMarks) {
    const marks = shape("g", {class: "marks"});
    const {network, outline} = view.marks;
    marks.append(shape("path", {class: "case", d: `${outline} ${network}`}), shape("path", {class: "area", d: network}), shape("path", {class: "mark", d: outline}));
    svg.append(marks);
  }
  svg.append(shape("path", {class: "shade", d: hole, "fill-rule": "evenodd"}), shape("rect", {class: "rim", ...frame}), shape("rect", {class: "frame", ...frame}));
  return svg;
}

async function show(view) {
  const images = [picture(view.index), picture(view.index)];
  const broken = await Promise.all(images.map((image) => image.decode())).then(() => false, () => true);
  images[0].alt = broken ? "This picture cannot be shown; say unsure." : "The place without marks";
  images[1].alt = "The place with what the map marks";
  $("plain").replaceChildren(images[0], drawing(view, false));
  $("overlay").replaceChildren(images[1], drawing(view, true));
  page.view = view;
  $("pair").hidden = false;
  $("end").hidden = true;
  caption();
}

function caption() {
  const {view} = page;
  for (const button of $("answers").children) {
    const verdict = button.dataset.verdict;
    button.disabled = !view || (!view.marked && (verdict === "partly" || verdict === "reject"));
    button.setAttribute("aria-pressed", String(view?.verdict === verdict));
  }
  $("unsure").disabled = !view;
  $("caption").replaceChildren();
  if (!view) return;
  const bold = document.createElement("b");
  bold.textContent = view.marked ? view.kind : "Nothing is marked in the frame";
  const rest = view.marked ? `, severity ${view.severity.replace("_", " ")}, confidence ${view.confidence.toFixed(2)}` : "";
  $("caption").append(bold, rest);
  $("stage").setAttribute("aria-label", bold.textContent + rest);
}

function report(state) {
  const {progress} = state;
  const number = document.createElement("b");
  number.textContent = progress.done;
  $("count").replaceChildren(number, ` of ${progress.total}`);
  $("bar").max = progress.total;
  $("bar").value = progress.done;
  $("pace").textContent = paceText(progress);
  $("precision").textContent = state.precision ?? "-";
  $("recall").textContent = state.recall ?? "-";
  $("last").hidden = !progress.last;
  $("last-verdict").textContent = NAMES[progress.last] ?? "";
}

async function goOn(state) {
  report(state);
  page.ahead = state.ahead.map(picture); // loaded before they are shown
  if (state.next) return show(state.next);
  page.view = null;
  $("pair").hidden = true;
  $("end-text").textContent = `Precision ${state.precision ?? "not known"}, recall ${state.recall ?? "not known"}.`;
  $("end").hidden = false;
  caption();
}

function answer(verdict) {
  const {view} = page;
  if (!view || (!view.marked && (verdict === "partly" || verdict === "reject"))) return;
  alone(async () => {
    const state = await ask("answer", {index: view.index, verdict});
    await goOn(state);
    say(`${NAMES[verdict]}, saved. ${state.progress.done} of ${state.progress.total}.`);
  });
}

function undo() {
  alone(async () => {
    const state = await ask("undo", {});
    if (state.undone === null) return say("There is no answer to undo.");
    report(state);
    await show(await ask(`view/${state.undone}`));
    say("Taken back.");
  });
}

function switchMarks() {
  const bare = $("drawn").classList.toggle("bare");
  $("marks").setAttribute("aria-pressed", String(!bare));
  say(bare ? "Marks hidden" : "Marks shown");
}

bindKeys({
  u: undo, o: switchMarks,
  ...Object.fromEntries(Object.entries(KEYS).map(([key, verdict]) => [key, () => answer(verdict)])),
});
for (const button of $("answers").children) button.addEventListener("click", () => answer(button.dataset.verdict));
$("unsure").addEventListener("click", () => answer("unsure"));
$("undo").addEventListener("click", undo);
$("marks").addEventListener("click", switchMarks);

alone(async () => {
  await goOn(await ask("state"));
  document.body.dataset.ready = "1";
});
