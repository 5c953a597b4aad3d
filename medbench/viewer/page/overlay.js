// A run's panel: the image, the region around which a line is drawn, and where the run looked.

// How attention is drawn, the same for all samples; step 0 is the mean over the answer.
const view = { region: true, attention: true, opacity: 75, step: 0 };

// Colours of a map from nothing to its top: dark to light, so that they differ without hue too.
const RAMP = [[12, 8, 38], [106, 23, 110], [188, 55, 84], [249, 142, 9], [252, 245, 155]];

/** Return a panel that shows an answer over its picture; `paint` draws it anew. */
function panelOf(picture, region, answer) {
  const grid = answer?.attention?.grid;
  const [width, height] = picture
    ? [picture.width, picture.height]
    : grid
      ? [grid[1], grid[0]]
      : [region?.width ?? 1, region?.height ?? 1];
  const frame = make("div", { class: "frame" });
  frame.style.aspectRatio = `${width} / ${height}`;
  // Wide images would else be low, and high ones would leave no room for words.
  frame.style.maxInlineSize = `min(100%, ${Math.round((26 * width) / Math.max(width, height))}rem)`;
  if (picture) frame.append(make("img", { src: picture.source, alt: "" }));
  const canvas = grid && !answer.unplaced ? canvasOf(grid, answer.box) : null;
  if (canvas) frame.append(canvas);
  const outline = region ? outlineOf(region, picture) : null;
  if (outline) frame.append(outline);
  return { frame, canvas, outline, answer };
}

function canvasOf([rows, columns], box) {
  const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": "attention" });
  place(canvas, box);
  return canvas;
}

function outlineOf(region, picture) {
  const path = () => draw("path", { d: region.path });
  const drawing = draw(
    "svg",
    {
      class: "region",
      viewBox: `0 0 ${region.width} ${region.height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": "region",
    },
    [path(), path()], // a light line on a dark one can be seen on any image
  );
  place(drawing, picture ? region.box : null);
  return drawing;
}

/** Put an element over a part of the frame: left, top, width, height as shares of its sides. */
function place(element, box) {
  const [left, top, width, height] = box ?? [0, 0, 1, 1];
  Object.assign(element.style, {
    left: `${100 * left}%`,
    top: `${100 * top}%`,
    width: `${100 * width}%`,
    height: `${100 * height}%`,
  });
}

/** Draw the panels as the view says, with one scale for all; return its top, null for no map. */
function paint(panels) {
  const maps = panels.filter((panel) => panel.canvas);
  const tops = maps.map((panel) => panel.answer.attention.tops[view.step] ?? 0);
  const top = Math.max(0, ...tops);
  for (const { outline } of panels) outline?.classList.toggle("off", !view.region);
  for (const { canvas, answer } of maps) {
    const pencil = canvas.getContext("2d");
    pencil.clearRect(0, 0, canvas.width, canvas.height);
    canvas.style.opacity = String(view.opacity / 100);
    if (view.attention && view.step < answer.attention.tops.length && top > 0) {
      pencil.putImageData(coloured(answer.attention, top), 0, 0);
    }
  }
  return maps.length ? top : null;
}

/** Return a map of the view's step as colours. */
function coloured(attention, top) {
  const [rows, columns] = attention.grid;
  attention.bytes ??= Uint8Array.from(atob(attention.data), (letter) => letter.charCodeAt(0));
  const image = new ImageData(columns, rows);
  const share = attention.tops[view.step] / top / 255;
  const begin = view.step * rows * columns;
  for (let at = 0; at < rows * columns; at += 1) {
    const value = attention.bytes[begin + at] * share;
    const place = value * (RAMP.length - 1);
    const low = Math.min(Math.floor(place), RAMP.length - 2);
    for (let channel = 0; channel < 3; channel += 1) {
      const [from, to] = [RAMP[low][channel], RAMP[low + 1][channel]];
      image.data[4 * at + channel] = from + (to - from) * (place - low);
    }
    // Where hardly any attention is, the image shows.
    image.data[4 * at + 3] = 255 * Math.min(1, 0.15 + 1.1 * Math.sqrt(value));
  }
  return image;
}
