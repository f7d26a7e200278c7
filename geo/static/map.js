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

  function attributes(record, names) {
    const table = element("table");
    table.className = "attributes";
    names.forEach((name, k) => {
      const row = table.insertRow();
      row.append(element("th", name), element("td", shown(record[k])));
    });
    return table;
  }

  function open(layer, record, names) {
    const at = layer.getCenter ? layer.getCenter() : layer.getBounds().getCenter();
    L.popup({ maxWidth: 340, maxHeight: 360 }).setLatLng(at)
      .setContent(attributes(record, names)).openOn(map);
  }

  function draw(kind, make) {
    const names = data[kind].columns;
    const group = L.featureGroup();
    const layers = data[kind].rows.map((record, k) => {
      const layer = make(data[kind].shapes[k], Object.fromEntries(names.map((n, i) => [n, record[i]])));
      layer.on("click", (event) => {
        L.DomEvent.stop(event);
        open(layer, record, names);
      });
      group.addLayer(layer);
      return layer;
    });
    return { group, layers };
  }

  const line = (color, weight) => (shape) => L.polyline(shape, { color, weight });
  const coverage = draw("inspected", (shape, r) =>
    L.polygon(shape, { color: STATUS[r.status], weight: r.status === "inspected" ? 0 : 1, fillOpacity: r.status === "inspected" ? 0.06 : 0.3 }));
  const segments = draw("segments", (shape, r) => line(CONDITION[r.priority || ""], 6)(shape));
  const cracks = draw("cracks", (shape, r) => line(SEVERITY[r.severity_d6433], 2)(shape));

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

  const legend = L.control({ position: "bottomright" });
  legend.onAdd = function () {
    const box = element("div");
    box.className = "legend";
    const entry = (color, text) => {
      const row = element("div");
      const patch = element("i");
      patch.style.background = color;
      row.append(patch, text);
      box.append(row);
    };
    const classes = (what, entries) => entries.forEach((e) => entry(e.color, `${what}: ${e.label}`));
    if (segments.layers.length) classes("segment", data.legend.condition);
    classes("crack", data.legend.severity);
    classes("imagery", data.legend.status.filter((e) => e.key !== "inspected"));
    return box;
  };
  legend.addTo(map);

  function ranked(kind, drawn, columns) {
    const names = data[kind].columns;
    const places = columns.map((name) => names.indexOf(name));
    const table = element("table");
    const head = table.createTHead().insertRow();
    columns.forEach((name) => head.append(element("th", name)));
    const body = table.createTBody();
    data[kind].ranked.forEach((k) => {
      const record = data[kind].rows[k];
      const row = body.insertRow();
      places.forEach((place, column) => {
        const cell = row.insertCell();
        if (column !== 1) {
          cell.textContent = shown(record[place]);
          return;
        }
        const button = element("button", shown(record[place]));
        button.type = "button";
        button.addEventListener("click", () => {
          map.fitBounds(drawn.layers[k].getBounds(), { maxZoom: 24, padding: [40, 40] });
          open(drawn.layers[k], record, names);
        });
        cell.append(button);
      });
    });
    document.getElementById("table").append(table);
  }

  document.getElementById("summary").textContent = data.summary;
  document.getElementById("note").textContent = data.note;
  const title = document.getElementById("table-title");
  if (segments.layers.length) {
    title.textContent = "Segments, worst first";
    ranked("segments", segments, ["rank", "segment_id", "name", "zeb_cell_pct"]);
  } else {
    title.textContent = "Longest cracks";
    ranked("cracks", cracks, ["length_m", "crack_id", "width_mean_mm"]);
  }
  document.body.dataset.ready = String(Math.round(performance.now()));
})();
