"use strict";
// One layer of lines or areas on one canvas. What is too small to be seen costs one pixel, what is
// outside of the view nothing: a city with 100 000 cracks is drawn like a street.
const Shapes = (function () {
  const UNIT_PX = 256 / (2 * Math.PI * 6378137) / 1000; // a unit of geo.page.map_data at zoom 0
  const POINT_PX = 2; // smaller shapes are drawn as points
  const STEP_PX = 1; // shorter steps along a line are left out
  const CASING_PX = 1.5; // by which a border makes a line wider
  const VERTICES_AT_ONCE = 4000; // of one path: in longer ones each takes more time

  // Vertices of all lines in a row, and the bounds of each shape; the inverse of `encoded`.
  function decoded(shapes) {
    const vertices = Float64Array.from(shapes.steps);
    for (let i = 2; i < vertices.length; i++) vertices[i] += vertices[i - 2];
    const lines = sums(shapes.parts); // first line of each shape
    const starts = sums(shapes.points); // first vertex of each line
    const boxes = new Float64Array(4 * shapes.parts.length);
    for (let k = 0; k < shapes.parts.length; k++) {
      let west = Infinity, south = Infinity, east = -Infinity, north = -Infinity;
      for (let i = 2 * starts[lines[k]]; i < 2 * starts[lines[k + 1]]; i += 2) {
        const x = vertices[i], y = vertices[i + 1];
        if (x < west) west = x;
        if (x > east) east = x;
        if (y < south) south = y;
        if (y > north) north = y;
      }
      boxes.set([west, south, east, north], 4 * k);
    }
    return { count: shapes.parts.length, vertices, lines, starts, boxes };
  }

  function sums(counts) {
    const total = new Uint32Array(counts.length + 1);
    for (let k = 0; k < counts.length; k++) total[k + 1] = total[k] + counts[k];
    return total;
  }

  const unprojected = (x, y) => L.CRS.EPSG3857.projection.unproject(L.point(x / 1000, y / 1000));

  return L.Renderer.extend({
    // looks: {color, casing, weight, opacity, fill} by number, the last one on top; of each shape its number.
    initialize(shapes, looks, lookOf, options) {
      L.Renderer.prototype.initialize.call(this, { padding: 0.25, ...options });
      Object.assign(this, decoded(shapes), { looks });
      this.lookOf = lookOf;
      this.keep(() => true);
    },

    // Draws and finds only the shapes that a test keeps.
    keep(test) {
      this.hidden = new Uint8Array(this.count);
      this.members = this.looks.map(() => []);
      for (let k = 0; k < this.count; k++) {
        if (test(k)) this.members[this.lookOf(k)].push(k);
        else this.hidden[k] = 1;
      }
      if (this._map) this._update();
    },

    // The lines of a shape, or the rings of an area, in degrees.
    latlngs(k) {
      const lines = [];
      for (let line = this.lines[k]; line < this.lines[k + 1]; line++) {
        const places = [];
        for (let i = this.starts[line]; i < this.starts[line + 1]; i++) {
          places.push(unprojected(this.vertices[2 * i], this.vertices[2 * i + 1]));
        }
        lines.push(places);
      }
      return lines;
    },

    bounds(k) {
      const [west, south, east, north] = this.boxes.subarray(4 * k, 4 * k + 4);
      return L.latLngBounds(unprojected(west, south), unprojected(east, north));
    },

    // A place on a shape, half way along its first line or in the middle of an area.
    middle(k) {
      if (this.looks[0].fill) return this.bounds(k).getCenter();
      const first = this.starts[this.lines[k]], last = this.starts[this.lines[k] + 1] - 1;
      const step = (i) => Math.hypot(
        this.vertices[2 * i + 2] - this.vertices[2 * i],
        this.vertices[2 * i + 3] - this.vertices[2 * i + 1]);
      let left = 0;
      for (let i = first; i < last; i++) left += step(i) / 2;
      let i = first;
      while (i < last - 1 && left > step(i)) left -= step(i++);
      const share = left / step(i) || 0;
      const at = (axis) =>
        this.vertices[2 * i + axis] * (1 - share) + this.vertices[2 * i + 2 + axis] * share;
      return unprojected(at(0), at(1));
    },

    // The shape under a place: an area that holds it, or the nearest line within some pixels; or -1.
    at(latlng, tolerance) {
      if (!this._map) return -1;
      const scale = UNIT_PX * 2 ** this._map.getZoom();
      const place = L.CRS.EPSG3857.projection.project(latlng).multiplyBy(1000);
      const reach = this.looks[0].fill ? 0 : tolerance / scale;
      let found = -1, nearest = reach;
      for (let k = 0; k < this.count; k++) {
        if (this.hidden[k]) continue;
        const b = this.boxes, i = 4 * k;
        if (place.x < b[i] - reach || place.y < b[i + 1] - reach) continue;
        if (place.x > b[i + 2] + reach || place.y > b[i + 3] + reach) continue;
        const away = this.looks[0].fill ? this._outside(k, place) : this._distance(k, place);
        if (away <= nearest) [found, nearest] = [k, away];
      }
      return found;
    },

    _sides(k, visit) {
      for (let line = this.lines[k]; line < this.lines[k + 1]; line++) {
        for (let i = 2 * this.starts[line]; i < 2 * this.starts[line + 1] - 2; i += 2) visit(i);
      }
    },

    _distance(k, place) {
      const v = this.vertices;
      let nearest = Infinity;
      this._sides(k, (i) => {
        const x = v[i + 2] - v[i], y = v[i + 3] - v[i + 1];
        const along = ((place.x - v[i]) * x + (place.y - v[i + 1]) * y) / (x * x + y * y) || 0;
        const share = Math.max(0, Math.min(1, along));
        const away = Math.hypot(v[i] + share * x - place.x, v[i + 1] + share * y - place.y);
        nearest = Math.min(nearest, away);
      });
      return nearest;
    },

    // 0 inside of a ring, else infinite.
    _outside(k, place) {
      const v = this.vertices;
      let inside = false;
      this._sides(k, (i) => {
        if (v[i + 1] > place.y === v[i + 3] > place.y) return;
        const share = (place.y - v[i + 1]) / (v[i + 3] - v[i + 1]);
        if (place.x < v[i] + share * (v[i + 2] - v[i])) inside = !inside;
      });
      return inside ? 0 : Infinity;
    },

    _initContainer() {
      this._container = document.createElement("canvas");
      this._context = this._container.getContext("2d");
    },

    _destroyContainer() {
      this._container.remove();
      delete this._container;
    },

    _update() {
      if (this._map._animatingZoom && this._bounds) return;
      L.Renderer.prototype._update.call(this);
      const size = this._bounds.getSize();
      const ratio = window.devicePixelRatio || 1;
      const canvas = this._container;
      [canvas.width, canvas.height] = [ratio * size.x, ratio * size.y];
      [canvas.style.width, canvas.style.height] = [`${size.x}px`, `${size.y}px`];
      L.DomUtil.setPosition(canvas, this._bounds.min);
      this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.looks.forEach((look, number) => this._draw(look, this.members[number], size));
    },

    _draw(look, members, size) {
      const context = this._context;
      const corner = this._map.getPixelOrigin().add(this._bounds.min);
      const half = 2 ** (this._zoom + 7);
      const view = { scale: UNIT_PX * 2 ** this._zoom, left: half - corner.x, top: half - corner.y };
      const seen = new Uint8Array(size.x * size.y); // pixels that hold a point
      let waiting = 0;
      const flush = () => {
        context.globalAlpha = look.fill;
        if (look.fill) context.fill();
        context.globalAlpha = look.opacity;
        if (look.casing) {
          Object.assign(context, { strokeStyle: look.casing, lineWidth: look.weight + CASING_PX });
          context.stroke();
          Object.assign(context, { strokeStyle: look.color, lineWidth: look.weight });
        }
        if (look.weight) context.stroke();
        context.beginPath();
        waiting = 0;
      };
      Object.assign(context, {
        strokeStyle: look.color, fillStyle: look.color, lineWidth: look.weight, lineCap: "round",
        lineJoin: "round",
      });
      context.beginPath();
      for (const k of members) {
        const west = this.boxes[4 * k] * view.scale + view.left;
        const east = this.boxes[4 * k + 2] * view.scale + view.left;
        const top = view.top - this.boxes[4 * k + 3] * view.scale;
        const bottom = view.top - this.boxes[4 * k + 1] * view.scale;
        if (east < 0 || bottom < 0 || west >= size.x || top >= size.y) continue;
        if (east - west < POINT_PX && bottom - top < POINT_PX) {
          const x = Math.max(0, Math.floor(west)), y = Math.max(0, Math.floor(top));
          if (seen[y * size.x + x]) continue;
          seen[y * size.x + x] = 1;
          context.moveTo(x, y + 0.5);
          context.lineTo(x + 1, y + 0.5);
          waiting += 2;
        } else {
          waiting += this._trace(k, view);
        }
        if (waiting > VERTICES_AT_ONCE) flush();
      }
      flush();
    },

    // Puts a shape on the path; returns the number of its vertices there.
    _trace(k, view) {
      const v = this.vertices;
      let count = 0;
      for (let line = this.lines[k]; line < this.lines[k + 1]; line++) {
        const last = 2 * this.starts[line + 1] - 2;
        let before_x = Infinity, before_y = Infinity;
        for (let i = 2 * this.starts[line]; i <= last; i += 2) {
          const x = v[i] * view.scale + view.left, y = view.top - v[i + 1] * view.scale;
          if (i === 2 * this.starts[line]) {
            this._context.moveTo(x, y);
          } else if (i < last && Math.abs(x - before_x) + Math.abs(y - before_y) < STEP_PX) {
            continue;
          } else {
            this._context.lineTo(x, y);
          }
          [before_x, before_y] = [x, y];
          count++;
        }
      }
      return count;
    },
  });
})();
