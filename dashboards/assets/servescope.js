"use strict";
// What the browser does by itself: the theme, and the address that follows what is selected.

const THEME = "servescope-theme";
const root = document.documentElement;
const chosen = localStorage.getItem(THEME);
if (chosen) root.dataset.theme = chosen;

document.addEventListener("click", event => {
  if (!event.target.closest("#theme")) return;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem(THEME, root.dataset.theme);
});

window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.servescope = {
  // A window that was dragged over, cut to the run, or all of it; what else is chosen stays.
  brush(dragged, _all, low, high, where) {
    const { no_update, callback_context } = window.dash_clientside;
    const kept = where.map(() => no_update);
    if (callback_context.triggered_id === "run-all") return [[low, high], where.map(() => null)];
    if (!dragged) return [no_update, kept];
    const digits = Math.max(0, 3 - Math.floor(Math.log10(high - low)));
    const ends = [Math.max(low, Math.min(...dragged)), Math.min(high, Math.max(...dragged))];
    return [ends.map(end => Number(end.toFixed(digits))), kept];
  },
  // A page is called what its heading says, once that is there.
  entitle(_page) {
    setTimeout(() => {
      const heading = document.querySelector("h1");
      document.title = heading ? `${heading.innerText} - servescope` : "servescope";
    });
    return window.dash_clientside.no_update;
  },
  // What was clicked for is below: go there, but not when the page has only just opened.
  reveal(shown, call) {
    const page = window.dash_clientside.servescope;
    const opened = page.opened === undefined;
    page.opened = false;
    if (shown && call && !opened) document.getElementById("run-program").scrollIntoView({ behavior: "smooth" });
    return window.dash_clientside.no_update;
  },
  // The last argument says of each value before it the name that it has in the address, and which
  // value goes without saying; the items of a list may have names of their own.
  remember(...values) {
    const told = values.pop();
    if (!told) return window.dash_clientside.no_update;
    const address = new URLSearchParams(location.search);
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const put = (name, value, usual) => {
      address.delete(name);
      if (same(value, usual)) return;
      for (const each of Array.isArray(value) ? value : [value])
        if (each !== null && each !== undefined && each !== "") address.append(name, each);
    };
    told.forEach(({ name, usual }, place) => {
      const value = values[place];
      if (!Array.isArray(name)) put(name, value, usual);
      else name.forEach((one, number) => put(one, value && value[number], usual && usual[number]));
    });
    const search = address.toString();
    history.replaceState(history.state, "", location.pathname + (search ? `?${search}` : ""));
    return search;
  },
};
