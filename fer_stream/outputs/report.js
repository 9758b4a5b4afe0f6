"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const transparent = (colour) => colour + "99";

// Media time as a date, because Plotly formats dates in minutes and hours. Starts on the second day, because Plotly
// parses small numbers as years.
const toDate = (ms) => 86400000 + ms;

// One trace per label with a rectangle per segment: Plotly draws thousands of them quickly.
function band(label, spans) {
  const x = [], y = [];
  for (const [start, end] of spans) {
    const from = toDate(start), to = toDate(end);
    x.push(from, from, to, to, null);
    y.push(0, 1, 1, 0, null);
  }
  const colour = report.colours[label];
  const fill = label === "unknown"
    ? { fillpattern: { shape: "/", fgcolor: colour, bgcolor: "rgba(0,0,0,0)", size: 6, solidity: 0.25 } }
    : { fillcolor: colour };
  return {
    type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself", x, y, yaxis: "y2", hoverinfo: "skip", ...fill,
  };
}

function traces(person) {
  const x = person.time_ms.map(toDate);
  const stack = report.labels.map((label, column) => ({
    type: "scatter", mode: "lines", name: label, stackgroup: "probability", x, y: person.probs[column],
    line: { width: 0, color: report.colours[label] }, fillcolor: transparent(report.colours[label]),
    hovertemplate: "%{y:.0%}",
  }));
  const bands = Object.entries(person.spans).map(([label, spans]) => band(label, spans));
  // Invisible; adds the label at the time of the pointer to the hover box.
  const hoverLabel = {
    type: "scatter", mode: "lines", name: "label", x, y: x.map(() => 1),
    text: person.label_at, hovertemplate: "<b>%{text}</b>", line: { color: "rgba(0,0,0,0)" },
  };
  return [...stack, ...bands, hoverLabel];
}

function layout() {
  const text = style("--text"), muted = style("--muted"), line = style("--line"), card = style("--card");
  const timeFormat = report.end_ms >= 3600000 ? "%-H:%M:%S" : "%-M:%S";
  return {
    paper_bgcolor: card, plot_bgcolor: card, font: { family: "inherit", size: 12, color: muted },
    margin: { l: 42, r: 12, t: 6, b: 30 }, showlegend: false, hovermode: "x unified", dragmode: "zoom",
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: text, size: 12 } },
    xaxis: {
      type: "date", range: [toDate(report.start_ms), toDate(report.end_ms)], anchor: "y", gridcolor: line, zeroline: false,
      nticks: 9,
      hoverformat: timeFormat + ".%1f",
      tickformatstops: [
        { dtickrange: [null, 999], value: timeFormat + ".%1f" }, { dtickrange: [1000, null], value: timeFormat },
      ],
    },
    yaxis: { domain: [0, 0.8], range: [0, 1], tickformat: ".0%", tickvals: [0, 0.5, 1], gridcolor: line, fixedrange: true },
    yaxis2: { domain: [0.86, 1], range: [0, 1], visible: false, fixedrange: true },
  };
}

const options = { responsive: true, displaylogo: false, displayModeBar: false };
const drawn = new Set();

const visibilityObserver = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting || drawn.has(target)) continue;
    drawn.add(target);
    Plotly.newPlot(target, traces(report.people[target.dataset.person]), layout(), options);
  }
}, { rootMargin: "600px" });

document.querySelectorAll(".chart").forEach((chart) => visibilityObserver.observe(chart));
dark.addEventListener("change", () => drawn.forEach((chart) => Plotly.relayout(chart, layout())));
