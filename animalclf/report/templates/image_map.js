// The map of the images: draws the points of image_map_data on the canvas, with thumbnails where the pointer is.
(() => {
  "use strict";
  const element = (name) => document.getElementById(`image_map_${name}`);
  const data = JSON.parse(element("data").textContent);
  const canvas = element("canvas"), tip = element("tip"), mistakesOnly = element("mistakes"), legend = element("legend");
  const colours = canvas.dataset.colours.split(" "), shapes = 5;
  const count = data.x.length, radius = count < 500 ? 5 : count < 5000 ? 3.2 : 2.2, margin = 14;
  const counts = data.classes.map(() => 0);
  data.label.forEach((number) => { counts[number] += 1; });
  const isMistake = data.label.map((label, row) => label !== data.predicted[row]);
  const order = [...data.x.keys()].sort((a, b) => isMistake[a] - isMistake[b]);  // mistakes on top
  const sprite = new Image();
  if (data.sprite) sprite.src = data.sprite;
  let chosen = -1, zoom = 1, centreX = 0.5, centreY = 0.5, drag = null;

  const colour = (number) => colours[number % colours.length];

  // The outline of the shape of a class around (x, y): circle, square, triangle, diamond or plus.
  function outline(path, number, x, y, r) {
    const shape = Math.floor(number / colours.length) % shapes, s = r * 0.9, t = r * 0.38;
    if (shape === 0) { path.moveTo(x + r, y); path.arc(x, y, r, 0, 2 * Math.PI); return; }
    const corners = [
      [[-s, -s], [s, -s], [s, s], [-s, s]],
      [[0, -1.2 * r], [1.15 * r, 0.9 * r], [-1.15 * r, 0.9 * r]],
      [[0, -1.3 * r], [1.3 * r, 0], [0, 1.3 * r], [-1.3 * r, 0]],
      [[-t, -r], [t, -r], [t, -t], [r, -t], [r, t], [t, t], [t, r], [-t, r], [-t, t], [-r, t], [-r, -t], [-t, -t]],
    ][shape - 1];
    corners.forEach(([dx, dy], index) => { index ? path.lineTo(x + dx, y + dy) : path.moveTo(x + dx, y + dy); });
    path.closePath();
  }

  function place(row) {
    const width = canvas.clientWidth - 2 * margin, height = canvas.clientHeight - 2 * margin;
    return [
      margin + ((data.x[row] / data.levels - centreX) * zoom + 0.5) * width,
      margin + ((data.y[row] / data.levels - centreY) * zoom + 0.5) * height,
    ];
  }

  const isShown = (row) => !mistakesOnly.checked || isMistake[row];
  const isChosen = (row) => chosen < 0 || data.label[row] === chosen || data.predicted[row] === chosen;

  function draw() {
    const ratio = window.devicePixelRatio || 1, style = getComputedStyle(canvas), context = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const size = radius * Math.sqrt(zoom);
    for (const visible of [false, true]) {  // other classes lie below the chosen one
      for (const row of order) {
        if (!isShown(row) || isChosen(row) !== visible) continue;
        const [x, y] = place(row);
        context.globalAlpha = visible ? (isMistake[row] ? 1 : 0.75) : 0.25;
        context.fillStyle = visible ? colour(data.label[row]) : style.getPropertyValue("--soft");
        context.beginPath();
        outline(context, data.label[row], x, y, size);
        context.fill();
        if (isMistake[row] && visible) {
          context.strokeStyle = style.getPropertyValue("--ink");
          context.lineWidth = count < 5000 ? 1.5 : 0.8;
          context.beginPath();
          context.arc(x, y, size + (count < 5000 ? 2.5 : 1.2), 0, 2 * Math.PI);
          context.stroke();
        }
      }
    }
    canvas.style.touchAction = zoom > 1 ? "none" : "pan-y";
  }

  function nearest(x, y) {
    let best = -1, distance = 14 ** 2;
    for (let row = 0; row < count; row += 1) {
      if (!isShown(row) || !isChosen(row)) continue;
      const [px, py] = place(row), squared = (px - x) ** 2 + (py - y) ** 2;
      if (squared < distance) { best = row; distance = squared; }
    }
    return best;
  }

  function show(row, x, y) {
    tip.hidden = row < 0;
    if (row < 0) return;
    const picture = tip.querySelector("canvas"), tile = data.tile[row], side = data.side;
    picture.hidden = tile < 0 || !sprite.complete || !sprite.naturalWidth;
    if (!picture.hidden) {
      const aspect = data.aspect[row] / 100;
      picture.width = Math.round(aspect < 1 ? 128 * Math.max(aspect, 0.3) : 128);
      picture.height = Math.round(aspect < 1 ? 128 : 128 / Math.min(aspect, 3.3));
      const left = (tile % data.columns) * side, top = Math.floor(tile / data.columns) * side;
      picture.getContext("2d").drawImage(sprite, left, top, side, side, 0, 0, picture.width, picture.height);
    }
    const label = data.classes[data.label[row]], predicted = data.classes[data.predicted[row]];
    const [title, detail, path] = tip.querySelectorAll("p");
    title.textContent = label;
    detail.textContent = isMistake[row] ? `predicted ${predicted}, ${data.percent[row]} %` : `${data.percent[row]} %`;
    path.textContent = data.path[row];
    tip.style.left = `${Math.max(0, Math.min(x + 14, canvas.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${y + 14 + tip.offsetHeight > canvas.clientHeight ? Math.max(0, y - tip.offsetHeight - 14) : y + 14}px`;
  }

  function move(dx, dy) {
    const half = 0.5 / zoom;
    centreX = Math.min(1 - half, Math.max(half, centreX - dx / (canvas.clientWidth - 2 * margin) / zoom));
    centreY = Math.min(1 - half, Math.max(half, centreY - dy / (canvas.clientHeight - 2 * margin) / zoom));
    draw();
  }

  function enlarge(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const width = canvas.clientWidth - 2 * margin, height = canvas.clientHeight - 2 * margin;
    const mapX = ((x - margin) / width - 0.5) / zoom + centreX, mapY = ((y - margin) / height - 0.5) / zoom + centreY;
    zoom = Math.min(32, Math.max(1, zoom * factor));
    centreX = mapX - ((x - margin) / width - 0.5) / zoom;
    centreY = mapY - ((y - margin) / height - 0.5) / zoom;
    show(-1);
    move(0, 0);
  }

  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY };
    if (zoom > 1) canvas.setPointerCapture(event.pointerId);
    show(nearest(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && zoom > 1) {
      move(event.clientX - drag.x, event.clientY - drag.y);
      drag = { x: event.clientX, y: event.clientY };
      show(-1);
    } else {
      show(nearest(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { drag = null; show(-1); });
  canvas.addEventListener("dblclick", (event) => enlarge(2, event.offsetX, event.offsetY));
  element("larger").addEventListener("click", () => enlarge(2));
  element("smaller").addEventListener("click", () => enlarge(0.5));
  mistakesOnly.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  data.classes.forEach((name, number) => {
    if (!counts[number]) return;
    const button = document.createElement("button"), swatch = document.createElement("canvas");
    swatch.width = swatch.height = 28;
    const context = swatch.getContext("2d");
    context.fillStyle = colour(number);
    context.beginPath();
    outline(context, number, 14, 14, 10);
    context.fill();
    button.type = "button";
    button.append(swatch, `${name} (${counts[number].toLocaleString("en")})`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      chosen = chosen === number ? -1 : number;
      for (const other of legend.children) other.setAttribute("aria-pressed", String(other === button && chosen >= 0));
      draw();
    });
    legend.append(button);
  });
  element("figure").hidden = false;
  draw();
})();
