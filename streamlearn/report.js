(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palettes = read("palettes");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const phone = matchMedia("(max-width: 640px)");
  const views = [];

  function paint(view, printed) {
    const palette = palettes[dark.matches && !printed ? "dark" : "light"];
    const narrow = phone.matches && !printed;
    for (const model of view.model.references()) {
      const changes = {};
      if (model.name === "names") {
        const [pixels, end] = model.tags;
        const room = view.frame.bbox.width;
        changes.end = narrow || room < 3 * pixels ? end : (end * room) / (room - pixels);
      }
      if (model.name === "across") changes.desired_num_ticks = narrow ? 3 : 6;
      for (const tag of (model.tags || []).filter((t) => typeof t === "string")) {
        const [property, role] = tag.split("=");
        if (role) changes[property] = palette[role];
        else if (property === "name") changes.visible = !narrow;
      }
      if (Object.keys(changes).length) model.setv(changes);
    }
  }

  async function embed(item) {
    const found = await Bokeh.embed.embed_item(item);
    return typeof found[Symbol.iterator] === "function" ? [...found] : found.roots;
  }

  // What is printed is drawn beforehand, as vectors, on white, at the width of a page: between
  // "print" and the first page there is no time to draw.
  async function embedForPaper(item) {
    const copy = structuredClone(item);
    copy.target_id = item.target_id + "-paper";
    for (const root of copy.doc.roots) {
      root.attributes.output_backend = "svg";
      root.attributes.height = Math.round(0.72 * root.attributes.height);
    }
    for (const view of await embed(copy)) paint(view, true);
  }

  const repaint = () => views.forEach((view) => paint(view, false));
  for (const medium of [dark, phone]) medium.addEventListener("change", repaint);
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(repaint, 250); });
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((d) => { d.open = true; });
  });
  const items = read("plots");
  Promise.all(items.map(async (item) => {
    for (const view of await embed(item)) { views.push(view); paint(view, false); }
  })).then(async () => {
    document.body.dataset.ready = "yes";
    for (const item of items) await embedForPaper(item);
    document.body.dataset.paper = "yes";
  });
})();
