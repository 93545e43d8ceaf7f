(() => {
  "use strict";
  const { paint, embed, whenChanged } = Figures;
  const views = [];

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

  whenChanged(() => views.forEach((view) => paint(view, false)));
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((d) => { d.open = true; });
  });
  const items = JSON.parse(document.getElementById("plots").textContent);
  Promise.all(items.map(async (item) => {
    for (const view of await embed(item)) { views.push(view); paint(view, false); }
  })).then(async () => {
    document.body.dataset.ready = "yes";
    for (const item of items) await embedForPaper(item);
    document.body.dataset.paper = "yes";
  });
})();
