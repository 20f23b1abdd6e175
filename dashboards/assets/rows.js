"use strict";
// The component `Rows`: a table whose cells are text, whatever signs they hold.

(() => {
  const e = React.createElement;

  const shown = (cell, click) => {
    if (typeof cell === "string") return cell;
    if (cell.href) return e("a", { href: cell.href }, cell.text);
    if (cell.value !== undefined)
      return e("button", { type: "button", className: "plain", onClick: () => click(cell.value) }, cell.text);
    if (cell.tags) return cell.tags.map(tag => e("span", { key: tag, className: "tag" }, tag));
    return cell.text;
  };

  const head = ({ heading, form, key }, place, sort, choose) => {
    if (!key) return e("th", { key: place, scope: "col", className: form }, heading);
    const order = sort === key ? "ascending" : sort === `-${key}` ? "descending" : undefined;
    const arrow = order ? (order === "ascending" ? " \u2191" : " \u2193") : "";
    const next = sort === `-${key}` ? key : `-${key}`;
    return e("th", { key: place, scope: "col", className: form, "aria-sort": order },
      e("button", { type: "button", onClick: () => choose(next) }, heading + arrow));
  };

  const Rows = ({ id, headings, rows, names, picked = [], sort, clicked, setProps }) => {
    const click = value => setProps({ clicked: [value, (clicked ? clicked[1] : 0) + 1] });
    const tick = (name, on) => setProps({ picked: on ? [...picked, name] : picked.filter(each => each !== name) });
    const box = name => e("td", { key: "box" },
      e("input", { type: "checkbox", "aria-label": `select ${name}`, checked: picked.includes(name),
                   onChange: event => tick(name, event.target.checked) }));
    const line = (row, number) => e("tr", { key: number }, names ? box(names[number]) : null,
      row.map((cell, place) => e("td", {
        key: place, colSpan: cell.wide,
        className: cell.form || (headings[place] || {}).form,
      }, shown(cell, click))));
    const heads = headings.map((each, place) => head(each, place, sort, key => setProps({ sort: key })));
    const first = names ? e("th", { key: "box" }, e("span", { className: "unseen" }, "select")) : null;
    // what scrolls must be reached by the keyboard
    const place = id && id.startsWith("{") ? Object.entries(JSON.parse(id)).flat().join("-") : id;
    return e("div", { id: place, className: "wide", tabIndex: 0 },
      e("table", null, e("thead", null, e("tr", null, first, heads)), e("tbody", null, rows.map(line))));
  };

  window.servescope = { ...window.servescope, Rows };
})();
