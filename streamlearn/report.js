(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palettes = read("palettes");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const phone = matchMedia("(max-width: 640px)");
  const views = [];
  let printing = false;

  function paint(view) {
    const palette = palettes[dark.matches && !paper.matches && !printing ? "dark" : "light"];
    const narrow = phone.matches && !paper.matches && !printing;
    for (const model of view.model.references()) {
      const changes = {};
      for (const tag of model.tags || []) {
        const [property, role] = String(tag).split("=");
        if (role) changes[property] = palette[role];
        else if (property === "name") changes.visible = !narrow;
        else if (property === "names") {
          if (model.wide === undefined) model.wide = model.min_border_right;
          changes.min_border_right = narrow ? 14 : model.wide;
        }
      }
      if (Object.keys(changes).length) model.setv(changes);
    }
  }
  const repaint = () => views.forEach(paint);

  function toPaper() {
    printing = true;
    document.querySelectorAll("details").forEach((d) => { d.open = true; });
    repaint();
  }
  function toScreen() { printing = false; repaint(); }

  for (const medium of [dark, paper, phone]) medium.addEventListener("change", repaint);
  addEventListener("beforeprint", toPaper);
  addEventListener("afterprint", toScreen);
  const all = read("plots").map(async (item) => {
    const found = await Bokeh.embed.embed_item(item);
    const list = typeof found[Symbol.iterator] === "function" ? [...found] : found.roots;
    for (const view of list) { views.push(view); paint(view); }
  });
  Promise.all(all).then(() => { document.body.dataset.ready = "yes"; });
})();
