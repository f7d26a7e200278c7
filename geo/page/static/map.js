"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const CRACK_REACH_PX = 6; // how near to a line a click must be
  const SEGMENT_REACH_PX = 8;
  const PAPER_PX = { width: 680, height: 450 }; // room for the map on a page of A4
  const LONG_ID = 20; // letters that fit beside the figures of a table; more are wrapped

  const map = L.map("map", { maxZoom: 26, zoomSnap: 0.25 });
  map.attributionControl.setPrefix("Leaflet 1.9.4");
  L.control.scale({ imperial: false }).addTo(map);

  // Attribute text is only ever set as text, never as markup.
  function element(name, text) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const value = (column, k) => column.levels ? column.levels[column.codes[k]] : column.values[k];
  const column = (kind, name) => data[kind].columns.find((one) => one.name === name);
  // A phone, upright or not: there a popup or a list of layers would cover half of the map.
  const isSmall = () => window.matchMedia("(max-width: 50rem), (max-height: 30rem)").matches;

  // A value as people write it: classes in words, numbers with few digits, counts and ranks whole.
  function plain(one, found) {
    if (found === null || found === undefined) return "–";
    if (typeof found === "boolean") return found ? "yes" : "no";
    if (typeof found === "number") {
      const few = Math.abs(found) < 100 ? found.toPrecision(3) : Math.round(found);
      return String(Number(Number(few).toFixed(4))); // what is smaller is rounding
    }
    return one.words?.[found] ?? String(found);
  }

  function shown(kind, name, k) {
    const one = column(kind, name), text = plain(one, value(one, k));
    return one.unit && text !== "–" ? `${text} ${one.unit}` : text;
  }

  const known = (parts) => parts.filter((part) => part && !part.startsWith("–")).join(", ");
  // A text of a kind with the values of one thing in the place of {columns}.
  const filled = (kind, text, k) => text.replace(/\{(\w+)\}/g, (_, name) => shown(kind, name, k));

  // What a thing is, and its main figures.
  function sentences(kind, k) {
    const { begin, title, figures } = data.kinds[kind];
    return [begin + known(title.map((text) => filled(kind, text, k))),
      known(figures.map((text) => filled(kind, text, k)))];
  }

  function attributes(kind, k) {
    const table = element("table");
    table.className = "attributes";
    data[kind].columns.forEach((one) => {
      const row = table.insertRow();
      const head = element("th", one.label);
      head.scope = "row";
      head.title = one.meaning;
      row.append(head, element("td", shown(kind, one.name, k)));
    });
    return table;
  }

  // The crop of the imagery that lies nearest to a place of a crack or network.
  function crop(kind, k, latlng) {
    if (kind !== "cracks" && kind !== "networks") return null;
    const middle = layers[kind].middle(k);
    const near = data.crops.map((one) => {
      const box = L.latLngBounds(one.corners.map(([east, north]) => [north, east]));
      const holds = box.contains(latlng) || box.contains(middle) ||
        (kind === "networks" && layers[kind].bounds(k).contains(box.getCenter()));
      return { one, away: holds ? map.distance(latlng, box.getCenter()) : Infinity };
    }).reduce((best, next) => next.away < best.away ? next : best, { away: Infinity });
    if (!near.one) return null;
    const box = element("figure");
    const picture = element("img");
    picture.src = near.one.url;
    picture.alt = "original imagery";
    box.append(picture,
      element("figcaption", `Original imagery at full resolution, ${near.one.side_m} m wide`));
    return { box, corners: near.one.corners.map(([east, north]) => [north, east]) };
  }

  const chosen = document.getElementById("chosen");
  const marks = L.layerGroup().addTo(map);

  // A dark and a bright line below what is chosen, in the colors of no class.
  function highlight(kind, k, corners) {
    const below = map.getPane("chosen") || map.createPane("chosen");
    below.style.zIndex = Number(map.getPane(kind).style.zIndex) - 1;
    const weight = { cracks: 2, networks: 2, segments: 10, inspected: 2 }[kind];
    const lines = layers[kind].latlngs(k);
    const look = { pane: "chosen", interactive: false, opacity: 1, noClip: true };
    marks.clearLayers();
    marks.addLayer(L.polyline(lines, { ...look, color: "#000", weight: weight + 12 }));
    marks.addLayer(L.polyline(lines, { ...look, color: "#fff", weight: weight + 7 }));
    if (kind === "segments") { // white shining through would make its color that of a lesser class
      const { color } = layers[kind].looks[layers[kind].lookOf(k)];
      marks.addLayer(L.polyline(lines, { ...look, color, weight }));
    }
    if (corners) {
      marks.addLayer(L.polygon(corners, { ...look, color: "#000", weight: 1.5, fill: false, dashArray: "4 4" }));
    }
  }

  function open(kind, k, latlng) {
    const [title, figures] = sentences(kind, k);
    const picture = crop(kind, k, latlng);
    highlight(kind, k, picture?.corners);
    const close = element("button", "close");
    close.type = "button";
    close.className = "close";
    close.addEventListener("click", clear);
    chosen.replaceChildren(element("h2", title), close, element("p", figures));
    if (picture) chosen.append(picture.box);
    chosen.append(attributes(kind, k));
    chosen.hidden = false;
    chosen.scrollIntoView({ block: "nearest" });
    document.getElementById("side").scrollTop = Math.max(0, chosen.offsetTop - 8);
    document.getElementById("said").textContent = `${title}: ${figures}`;
    if (isSmall()) return;
    const box = element("div");
    box.append(element("strong", title), element("br"), figures);
    L.popup({ maxWidth: 260, autoClose: true }).setLatLng(latlng).setContent(box).openOn(map);
  }

  function clear() {
    map.closePopup();
    marks.clearLayers();
    chosen.hidden = true;
    chosen.replaceChildren();
  }

  // One layer in a pane of its own, so that switching layers keeps their order.
  function draw(kind, look) {
    map.createPane(kind).style.zIndex = { inspected: 410, segments: 420, networks: 425, cracks: 430 }[kind];
    const classes = [...data.legend[data.kinds[kind].legend]];
    if (kind !== "inspected") classes.reverse(); // the worst on top
    const keys = classes.map((one) => one.key);
    const keyed = column(kind, data.kinds[kind].by);
    // What people wrote into the map may be no class: it looks as the least one.
    const number = (k) => Math.max(0, keys.indexOf(keyed && value(keyed, k) || ""));
    layers[kind] = new Shapes(data[kind].shapes, classes.map(look), number, { pane: kind }).addTo(map);
    overlays[data.kinds[kind].overlay] = layers[kind];
  }

  map.fitBounds(data.bounds);
  const overlays = {};
  if (data.image) {
    map.createPane("imagery").style.zIndex = 300;
    const image = L.imageOverlay(data.image.url, data.image.bounds, { alt: "imagery", pane: "imagery" });
    overlays["imagery"] = image.addTo(map);
  }
  const layers = {};
  draw("inspected", (entry) => {
    const isUsual = entry.key === "inspected" || !entry.key;
    return { color: entry.color, opacity: 1, weight: isUsual ? 0 : 1, fill: isUsual ? 0.06 : 0.3 };
  });
  if (data.segments.shapes.parts.length) {
    draw("segments", (entry) => ({ color: entry.color, weight: 10, opacity: 0.6, fill: 0 }));
  }
  if (data.networks.shapes.parts.length) {
    draw("networks", (entry) => ({ color: entry.color, weight: 1.5, opacity: 1, fill: 0.25 }));
  }
  draw("cracks", (entry) => (
    { color: entry.color, casing: data.legend.casing, weight: 2, opacity: 1, fill: 0 }));
  L.control.layers(null, overlays, { collapsed: isSmall() }).addTo(map);

  function under(latlng) {
    for (const [kind, reach] of [["cracks", CRACK_REACH_PX], ["networks", 0], ["segments", SEGMENT_REACH_PX], ["inspected", 0]]) {
      const k = layers[kind] ? layers[kind].at(latlng, reach) : -1;
      if (k >= 0) return { kind, k };
    }
    return null;
  }

  map.on("click", (event) => {
    const found = under(event.latlng);
    if (found) open(found.kind, found.k, event.latlng);
    else clear();
  });
  map.on("mousemove", (event) => {
    const found = under(event.latlng);
    const isLine = found !== null && found.kind !== "inspected";
    map.getContainer().style.cursor = isLine ? "pointer" : "";
  });

  function legend(title, entries) {
    const box = element("div");
    box.append(element("h2", title));
    entries.forEach((entry) => {
      const row = element("div");
      const patch = element("i");
      patch.style.background = entry.color;
      row.append(patch, entry.label);
      box.append(row);
    });
    document.getElementById("legend").append(box);
  }
  ["cracks", "segments", "inspected"].filter((kind) => layers[kind]).forEach((kind) => {
    legend(data.kinds[kind].heading, data.legend[data.kinds[kind].legend]);
  });

  const rows = { cracks: [], networks: [], segments: [] }; // of the tables, with their shapes

  // A ranked table, by which the map can be used without a mouse.
  function ranked(kind, isOpen) {
    const { heading: title, columns } = data.kinds[kind].table;
    const box = element("details");
    box.open = isOpen;
    const table = element("table");
    const head = table.createTHead().insertRow();
    columns.forEach(([name, label, isText]) => {
      const cell = element("th", label);
      cell.scope = "col";
      cell.title = column(kind, name).meaning;
      if (isText) cell.className = "text";
      head.append(cell);
    });
    const body = table.createTBody();
    data[kind].ranked.forEach((k) => {
      const row = body.insertRow();
      rows[kind].push([row, k]);
      columns.forEach(([name, , isText], place) => {
        const cell = row.insertCell();
        const text = plain(column(kind, name), value(column(kind, name), k));
        if (isText) cell.className = "text";
        if (place !== 1) {
          cell.textContent = text;
          return;
        }
        const button = element("button", text);
        button.type = "button";
        button.className = text.length > LONG_ID ? "id long" : "id";
        button.addEventListener("click", () => {
          map.fitBounds(layers[kind].bounds(k), { // at once: a popup would stop it on its way
            maxZoom: 24, padding: [40, 40], animate: false,
          });
          open(kind, k, layers[kind].middle(k));
        });
        cell.append(button);
      });
    });
    box.append(element("summary", title), table);
    document.getElementById("tables").append(box);
  }

  document.getElementById("summary").textContent = data.summary;
  document.getElementById("note").textContent = data.note;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  ["segments", "cracks", "networks"].filter((kind) => layers[kind]).forEach((kind, place) => {
    ranked(kind, place === 0);
  });
  if (data.failures.length) {
    const box = element("details");
    const list = element("ul");
    data.failures.forEach(([where, reason]) => list.append(element("li", `${where}: ${reason}`)));
    const more = data.failed - data.failures.length;
    if (more > 0) list.append(element("li", `and ${more} more (layer inspected)`));
    box.append(element("summary", `Not inspected (${data.failed})`), list);
    document.getElementById("tables").append(box);
  }

  // Filters: of cracks by all four, of networks by class and street, of segments by street.
  const form = document.getElementById("filter");
  const levels = (kind, name) => {
    const one = data[kind].shapes.parts.length ? column(kind, name) : null;
    return one ? [...new Set(one.levels || one.values)].filter((found) => found !== null) : [];
  };
  function choice(name, label, options) {
    const box = element("label", label), list = element("select");
    list.name = name;
    list.append(new Option("all", ""), ...options.map(([text, key]) => new Option(text, key)));
    box.append(list);
    if (options.length > 1) form.append(box);
    return list;
  }
  const words = (kind, name) => levels(kind, name).map((key) => [plain(column(kind, name), key), key]);
  const { filter: by } = data;
  const classes = data.legend[data.kinds.cracks.legend].map((entry) => [entry.label, entry.key]);
  const byClass = choice("class", `${by.label} `, classes);
  const byType = choice("type", "Type ", words("cracks", "type"));
  const byStreet = choice("street", "Street ", levels("segments", "name").sort((a, b) => a.localeCompare(b)).map((one) => [one, one]));
  const longer = element("input");
  Object.assign(longer, { type: "number", name: "length", min: 0, step: 0.5, value: 0 });
  const lengthBox = element("label", "At least, m ");
  lengthBox.append(longer);
  form.append(lengthBox);

  const streets = new Map();
  if (layers.segments) {
    data.segments.shapes.parts.forEach((_, k) => streets.set(
      value(column("segments", "segment_id"), k), value(column("segments", "name"), k)));
  }
  function filter() {
    const of = (kind, name) => {
      const one = column(kind, name);
      return one ? (k) => value(one, k) : () => null;
    };
    const onStreet = (kind) => {
      const segment = of(kind, "segment_id");
      return (k) => !byStreet.value || streets.get(segment(k)) === byStreet.value;
    };
    const isOfClass = (kind) => { // what is no class is what it looks as: the least one
      const found = of(kind, data.kinds[kind].by);
      const least = (key) => classes.some(([, one]) => one === key) ? key : classes.at(-1)[1];
      return (k) => !byClass.value || least(found(k)) === byClass.value;
    };
    const [type, lengths] = [of("cracks", "type"), by.lengths.map((name) => of("cracks", name))];
    const length = (k) => Math.max(...lengths.map((one) => one(k)));
    const [chosen, there, least] = [isOfClass("cracks"), onStreet("cracks"), Number(longer.value)];
    const tests = {
      cracks: (k) => chosen(k) && there(k) && length(k) >= least &&
        (!byType.value || type(k) === byType.value),
      networks: (k) => isOfClass("networks")(k) && onStreet("networks")(k),
      segments: onStreet("segments"),
    };
    let [count, meters] = [0, 0];
    Object.entries(tests).forEach(([kind, test]) => {
      if (!layers[kind]) return;
      layers[kind].keep(test);
      rows[kind].forEach(([row, k]) => { row.hidden = !test(k); });
    });
    layers.cracks.hidden.forEach((hidden, k) => {
      if (!hidden) [count, meters] = [count + 1, meters + length(k)];
    });
    const all = layers.cracks.count;
    // Paper has no form: there the filter is told in words.
    const named = [byClass, byType, byStreet].filter((list) => list.value)
      .map((list) => list.selectedOptions[0].text);
    if (least > 0) named.push(`at least ${least} m`);
    document.getElementById("shown").textContent = count === all ? ""
      : `Shown: ${count} of ${all} ${by.noun}, ${meters.toFixed(1)} m`;
    document.getElementById("named").textContent = count === all ? "" : `Only ${named.join("; ")}`;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  data.header.forEach(([what, found]) => {
    document.getElementById("header").append(element("dt", what), element("dd", found));
  });

  // On paper nothing can be opened: all tables are. The map is there as it is here, but smaller.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("#tables details:not([open])")];
    closed.forEach((box) => { box.open = true; });
    const { x, y } = map.getSize(), { style } = map.getContainer();
    style.setProperty("--width", `${x}px`);
    style.setProperty("--height", `${y}px`);
    style.setProperty("--reduced", Math.min(1, PAPER_PX.width / x, PAPER_PX.height / y));
  });
  window.addEventListener("afterprint", () => closed.forEach((box) => { box.open = false; }));
  window.crackMap = { map, layers }; // for whoever extends or tests the page
  requestAnimationFrame(() => setTimeout(() => { // after the first picture is drawn
    document.body.dataset.ready = String(Math.round(performance.now()));
  }));
})();
