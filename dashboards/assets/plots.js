"use strict";
// The component `Plots`: figures that are drawn when they come into sight, and changed in place.

(() => {
  const e = React.createElement;
  const CONFIG = { displaylogo: false, displayModeBar: false, responsive: true };

  let asked = null;
  const plotly = () => asked ||= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/plotly.js";
    script.onload = () => done(window.Plotly);
    script.onerror = failed;
    document.head.append(script);
  });

  // Finding out what margins the labels need takes half of the drawing: a figure that changes keeps
  // those that it has, and some room for longer labels.
  const settle = (plot, layout) => {
    const { l, r, t, b } = plot._fullLayout._size;
    layout.margin = plot.settled ||= { l: l + 8, r, t, b };
    for (const name in layout) if (/^[xy]axis/.test(name)) layout[name].automargin = false;
  };

  const Plot = ({ figure, says, wide, click, drag }) => {
    const home = React.useRef(null), drawn = React.useRef(null), heard = React.useRef({});
    const [near, setNear] = React.useState(false);
    heard.current = { click, drag };

    React.useEffect(() => {
      const plot = home.current; // when it goes, the reference is already empty
      const watch = new IntersectionObserver(([seen]) => setNear(seen.isIntersecting), { rootMargin: "100px" });
      const print = () => setNear(true);
      watch.observe(plot);
      addEventListener("beforeprint", print);
      return () => {
        removeEventListener("beforeprint", print);
        watch.disconnect();
        if (drawn.current) window.Plotly.purge(plot);
      };
    }, []);

    React.useEffect(() => {
      if (!near || drawn.current === figure) return;
      plotly().then(Plotly => {
        const plot = home.current;
        if (!plot || drawn.current === figure) return;
        const first = !drawn.current;
        drawn.current = figure;
        const { data, layout } = structuredClone(figure); // Plotly writes into what it is given
        if (!first && layout.height === plot.layout.height) settle(plot, layout);
        Plotly.react(plot, data, layout, CONFIG);
        if (!first) return;
        plot.on("plotly_click", ({ points: [point] }) => heard.current.click(point));
        plot.on("plotly_selected", event => event && event.range && heard.current.drag(event.range.x));
      });
    }, [near, figure]);

    const height = `${figure.layout.height || 340}px`;
    return e("figure", { className: wide ? "wide-figure" : undefined },
      e("div", { ref: home, className: "plot", style: { height } }),
      says ? e("figcaption", null, says) : null);
  };

  const Plots = ({ id, figures = [], clicked, setProps }) => {
    const click = number => point => setProps({
      clicked: [number, point.text ?? null, point.customdata ?? null, clicked ? clicked[3] + 1 : 1],
    });
    const name = id && id.startsWith("{") ? Object.entries(JSON.parse(id)).flat().join("-") : id;
    return e("div", { id: name, className: "figures" },
      figures.map((each, number) => e(Plot, {
        ...each, key: `${number} ${each.says}`, click: click(number), drag: range => setProps({ dragged: range }),
      })));
  };

  window.servescope = { ...window.servescope, Plots };
})();
