// What the pages of `wpcrack label` and `wpcrack review` share: asking the server, keys, words.
"use strict";

const $ = (id) => document.getElementById(id);
const page = {busy: false}; // busy: an answer is on its way, or a picture is not there yet

async function ask(path, body) {
  const post = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  let answer;
  try {
    answer = await fetch(path, body === undefined ? {} : post);
  } catch {
    throw new Error("The program has ended. Every answer that was counted is saved; start it again with the same command.");
  }
  const values = await answer.json().catch(() => ({error: `The program answers ${answer.status}; reload the page.`}));
  if (!answer.ok) throw new Error(values.error);
  return values;
}

// One thing at a time: what comes meanwhile is dropped, so nothing is said of a window unseen.
async function alone(act) {
  if (page.busy) return;
  page.busy = true;
  try {
    await act();
    $("trouble").hidden = true;
  } catch (error) {
    $("trouble").textContent = error.message;
    $("trouble").hidden = false;
  } finally {
    page.busy = false;
  }
}

// ---- words

function say(text) {
  $("said").textContent = text;
}

function duration(seconds) {
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function paceText({left, per_minute: rate, rest_s: rest}) {
  if (!left) return "";
  return rate ? `${Math.round(rate)} a minute · about ${duration(rest)} to go` : `${left} to go`;
}

// ---- keys, buttons, pointer

const PAN = {ArrowLeft: [-90, 0], ArrowRight: [90, 0], ArrowUp: [0, -90], ArrowDown: [0, 90]}; // pixels

// Acts by key; with Shift the arrows move a view that is larger than the stage.
function bindKeys(acts) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.shiftKey && PAN[key]) {
      event.preventDefault();
      $("stage").scrollBy(...PAN[key]);
      return;
    }
    // A button reached with Tab is pressed by the space bar, as everywhere.
    if (key === " " && document.activeElement.matches("button:focus-visible")) return;
    if (!acts[key]) return;
    event.preventDefault();
    if (!event.repeat) acts[key](); // a key held down is one answer
  });
}

// The mouse leaves no focus behind: the space bar goes on to mean unsure.
document.addEventListener("click", (event) => {
  if (event.detail) event.target.closest("button")?.blur();
});

// Moves a view that is larger than the stage to where the pointer is.
function followPointer(isClose) {
  $("stage").addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || !isClose()) return;
    const stage = $("stage"), box = stage.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    stage.scrollTo(x * (stage.scrollWidth - stage.clientWidth), y * (stage.scrollHeight - stage.clientHeight));
  });
}
