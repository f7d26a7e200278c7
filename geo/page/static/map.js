"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const CRACK_REACH_PX = 6; // how near to a line a click must be
  const SEGMENT_REACH_PX = 8;

  const map = L.map("map", { maxZoom: 26, zoomSnap: 0.25 });
  map.attributionControl.setPrefix("Leaflet 1.9.4");
  L.control.scale({ imperial: false }).addTo(map);

  // Attribute text is only ever set as text, never as markup.
  function element(name, text) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function shown(value) {
    if (value === null || value === undefined) return "–";
    return typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
  }

  const value = (column, k) => column.levels ? column.levels[column.codes[k]] : column.values[k];
  const column = (kind, name) => data[kind].columns.find((one) => one.name === name);

  function attributes(kind, k) {
    const table = element("table");
    table.className = "attributes";
    data[kind].columns.forEach((one) => {
      const row = table.insertRow();
      const head = element("th", one.name);
      head.title = one.meaning;
      row.append(head, element("td", shown(value(one, k))));
    });
    return table;
  }

  function open(kind, k, latlng) {
    L.popup({ maxWidth: 340, maxHeight: 360 }).setLatLng(latlng)
      .setContent(attributes(kind, k)).openOn(map);
    document.getElementById("said").textContent =
      data[kind].columns.map((one) => `${one.name} ${shown(value(one, k))}`).join(", ");
  }

  // One layer in a pane of its own, so that switching layers keeps their order.
  function draw(kind, classes, by, look) {
    map.createPane(kind).style.zIndex = { inspected: 410, segments: 420, networks: 425, cracks: 430 }[kind];
    const keys = classes.map((one) => one.key);
    const keyed = column(kind, by);
    const number = (k) => keys.indexOf(value(keyed, k) || "");
    return new Shapes(data[kind].shapes, classes.map(look), number, { pane: kind }).addTo(map);
  }

  const worstOnTop = (entries) => [...entries].reverse();
  map.fitBounds(data.bounds);
  const overlays = {};
  if (data.image) {
    map.createPane("imagery").style.zIndex = 300;
    const image = L.imageOverlay(data.image.url, data.image.bounds, { alt: "imagery", pane: "imagery" });
    overlays["imagery"] = image.addTo(map);
  }
  const layers = {};
  layers.inspected = draw("inspected", data.legend.status, "status", (entry) => ({
    color: entry.color, opacity: 1, weight: entry.key === "inspected" ? 0 : 1,
    fill: entry.key === "inspected" ? 0.06 : 0.3,
  }));
  overlays["inspected"] = layers.inspected;
  if (data.segments.shapes.parts.length) {
    layers.segments = draw("segments", worstOnTop(data.legend.priority), "priority",
      (entry) => ({ color: entry.color, weight: 10, opacity: 0.6, fill: 0 }));
    overlays["road segments"] = layers.segments;
  }
  if (data.networks.shapes.parts.length) {
    layers.networks = draw("networks", worstOnTop(data.legend.severity), "severity_d6433",
      (entry) => ({ color: entry.color, weight: 1.5, opacity: 1, fill: 0.25 }));
    overlays["networks"] = layers.networks;
  }
  layers.cracks = draw("cracks", worstOnTop(data.legend.severity), "severity_d6433",
    (entry) => ({ color: entry.color, weight: 2, opacity: 1, fill: 0 }));
  overlays["cracks"] = layers.cracks;
  L.control.layers(null, overlays, { collapsed: false }).addTo(map);

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
  legend("Cracks", data.legend.severity);
  if (layers.segments) legend("Road segments", data.legend.priority);
  legend("Imagery", data.legend.status);

  // A ranked table, by which the map can be used without a mouse.
  function ranked(title, kind, columns, isOpen) {
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
      columns.forEach(([name, , isText], place) => {
        const cell = row.insertCell();
        const plain = shown(value(column(kind, name), k));
        const text = isText && place === 0 ? plain.replaceAll("_", " ") : plain; // a class, no id
        if (isText) cell.className = "text";
        if (place !== 1) {
          cell.textContent = text;
          return;
        }
        const button = element("button", text);
        button.type = "button";
        button.className = "id";
        button.addEventListener("click", () => {
          map.fitBounds(layers[kind].bounds(k), { maxZoom: 24, padding: [40, 40] });
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
    if (event.key === "Escape") map.closePopup();
  });
  if (layers.segments) {
    ranked("Segments, worst first", "segments", [
      ["rank", "rank"], ["segment_id", "segment", true], ["name", "street", true],
      ["cracking_pct", "cracked %"], ["crack_length_m", "cracks m"],
    ], true);
  }
  ranked("Cracks, worst first", "cracks", [
    ["severity_d6433", "severity", true], ["crack_id", "crack", true], ["length_m", "m"],
    ["width_mean_mm", "mm"],
  ], !layers.segments);
  if (layers.networks) {
    ranked("Networks, largest first", "networks", [
      ["severity_d6433", "severity", true], ["network_id", "network", true], ["area_m2", "m2"],
      ["kind", "kind", true],
    ], false);
  }
  if (data.failures.length) {
    const box = element("details");
    const list = element("ul");
    data.failures.forEach(([where, reason]) => list.append(element("li", `${where}: ${reason}`)));
    box.append(element("summary", `Not inspected (${data.failures.length})`), list);
    document.getElementById("tables").append(box);
  }
  window.crackMap = { map, layers }; // for whoever extends or tests the page
  requestAnimationFrame(() => setTimeout(() => { // after the first picture is drawn
    document.body.dataset.ready = String(Math.round(performance.now()));
  }));
})();
