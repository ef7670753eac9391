// Makes the heads of tables buttons that sort their rows; without scripts the page is the same less the buttons.
"use strict";
(() => {
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  // "t(145) = 0.83" sorts by 0.83, "< 0.001" before "0.001", "5.80 [3.25, 8.36]" by 5.80; what is no number comes last.
  const figure = (text) => {
    const said = text.split("=").pop().replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1");
    const found = said.match(/[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?/i);
    return found ? Number(found[0]) - (said.includes("<") ? 1e-9 : 0) : NaN;
  };
  const sort = (table, place, head) => {
    const falls = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) {
      other.setAttribute("aria-sort", other === head ? (falls ? "descending" : "ascending") : "none");
    }
    const numeric = head.classList.contains("numeric");
    const key = (row) => (row.cells[place] ? row.cells[place].textContent.trim() : "");
    const rows = Array.from(table.tBodies[0].rows, (row) => [numeric ? figure(key(row)) : key(row), row]);
    rows.sort(([a], [b]) => {
      if (!numeric) return falls ? words.compare(b, a) : words.compare(a, b);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return falls ? b - a : a - b;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll(".scroll:not(.facts) > table")) {
    if (!table.tHead || table.tBodies[0].rows.length < 2) continue;
    Array.from(table.tHead.rows[0].cells).forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, place, head));
    });
  }
})();
