"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colors = (entries) => Object.fromEntries(entries.map((entry) => [entry.key, entry.color]));
  const CONDITION = colors(data.legend.condition);
  const SEVERITY = colors(data.legend.severity);
  const STATUS = colors(data.legend.status);

  const map = L.map("map", { renderer: L.canvas({ tolerance: 4 }), maxZoom: 26, zoomSnap: 0.25 });
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

  function attributes(record, kind) {
    const table = element("table");
    table.className = "attributes";
    data[kind].columns.forEach((name, k) => {
      const row = table.insertRow();
      const head = element("th", name);
      head.title = data[kind].meanings[k];
      row.append(head, element("td", shown(record[k])));
    });
    return table;
  }

  function open(layer, record, kind) {
    const at = layer.getCenter ? layer.getCenter() : layer.getBounds().getCenter();
    L.popup({ maxWidth: 340, maxHeight: 360 }).setLatLng(at)
      .setContent(attributes(record, kind)).openOn(map);
    document.getElementById("said").textContent =
      data[kind].columns.map((name, k) => `${name} ${shown(record[k])}`).join(", ");
  }

  function draw(kind, make) {
    const names = data[kind].columns;
    const group = L.featureGroup();
    const layers = data[kind].rows.map((record, k) => {
      const layer = make(data[kind].shapes[k], Object.fromEntries(names.map((n, i) => [n, record[i]])));
      layer.on("click", (event) => {
        L.DomEvent.stop(event);
        open(layer, record, kind);
      });
      group.addLayer(layer);
      return layer;
    });
    return { group, layers };
  }

  const line = (color, weight, opacity) => (shape) => L.polyline(shape, { color, weight, opacity });
  const coverage = draw("inspected", (shape, r) =>
    L.polygon(shape, { color: STATUS[r.status], weight: r.status === "inspected" ? 0 : 1, fillOpacity: r.status === "inspected" ? 0.06 : 0.3 }));
  const segments = draw("segments", (shape, r) => line(CONDITION[r.priority || ""], 10, 0.6)(shape));
  const cracks = draw("cracks", (shape, r) => line(SEVERITY[r.severity_d6433], 2, 1)(shape));

  const overlays = {};
  if (data.image) {
    const image = L.imageOverlay(data.image.url, data.image.bounds, { alt: "imagery" }).addTo(map);
    overlays["imagery"] = image;
  }
  overlays["inspected"] = coverage.group.addTo(map);
  if (segments.layers.length) overlays["road segments"] = segments.group.addTo(map);
  overlays["cracks"] = cracks.group.addTo(map);
  L.control.layers(null, overlays, { collapsed: false }).addTo(map);
  map.fitBounds(data.bounds);

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
  if (segments.layers.length) legend("Road segments", data.legend.condition);
  legend("Imagery", data.legend.status);

  // A ranked table, by which the map can be used without a mouse.
  function ranked(title, kind, drawn, columns, isOpen) {
    const names = data[kind].columns;
    const box = element("details");
    box.open = isOpen;
    const table = element("table");
    const head = table.createTHead().insertRow();
    columns.forEach(([name, label, isText]) => {
      const cell = element("th", label);
      cell.scope = "col";
      cell.title = data[kind].meanings[names.indexOf(name)];
      if (isText) cell.className = "text";
      head.append(cell);
    });
    const body = table.createTBody();
    data[kind].ranked.forEach((k) => {
      const record = data[kind].rows[k];
      const row = body.insertRow();
      columns.forEach(([name, , isText], column) => {
        const cell = row.insertCell();
        const text = shown(record[names.indexOf(name)]);
        if (isText) cell.className = "text";
        if (column !== 1) {
          cell.textContent = text;
          return;
        }
        const button = element("button", text);
        button.type = "button";
        button.addEventListener("click", () => {
          map.fitBounds(drawn.layers[k].getBounds(), { maxZoom: 24, padding: [40, 40] });
          open(drawn.layers[k], record, kind);
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
  if (segments.layers.length) {
    ranked("Segments, worst first", "segments", segments, [
      ["rank", "rank"], ["segment_id", "segment", true], ["name", "street", true],
      ["zeb_cell_pct", "cells %"], ["crack_length_m", "cracks m"],
    ], true);
  }
  ranked("Cracks, worst first", "cracks", cracks, [
    ["severity_d6433", "severity", true], ["crack_id", "crack", true], ["length_m", "m"],
    ["width_mean_mm", "mm"],
  ], !segments.layers.length);
  document.body.dataset.ready = String(Math.round(performance.now()));
})();
