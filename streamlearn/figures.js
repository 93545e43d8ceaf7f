// Bokeh's figures on a page: their colours are roles, looked up in a palette whenever it changes.
const Figures = (() => {
  "use strict";
  const palettes = JSON.parse(document.getElementById("palettes").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const phone = matchMedia("(max-width: 640px)");

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

  // Calls back whenever colours or widths may have changed.
  function whenChanged(repaint) {
    for (const medium of [dark, phone]) medium.addEventListener("change", repaint);
    let waiting = 0;
    addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(repaint, 250); });
  }

  return { paint, embed, whenChanged, phone };
})();
