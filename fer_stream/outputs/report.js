"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faded = (colour) => colour + "99";

// Media time as Plotly's dates, which know minutes and hours. From the second day on, as it takes small numbers for years.
const moment = (ms) => 86400000 + ms;

// A rectangle per segment, all of one label in one trace: Plotly draws thousands of them without effort.
function band(label, spans) {
  const x = [], y = [];
  for (const [start, end] of spans) {
    const from = moment(start), to = moment(end);
    x.push(from, from, to, to, null);
    y.push(0, 1, 1, 0, null);
  }
  const colour = report.colours[label];
  const look = label === "unknown"
    ? { fillpattern: { shape: "/", fgcolor: colour, bgcolor: "rgba(0,0,0,0)", size: 6, solidity: 0.25 } }
    : { fillcolor: colour };
  return {
    type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself", x, y, yaxis: "y2", hoverinfo: "skip", ...look,
  };
}

function traces(person) {
  const x = person.time_ms.map(moment);
  const stack = report.labels.map((label, column) => ({
    type: "scatter", mode: "lines", name: label, stackgroup: "probability", x, y: person.probs[column],
    line: { width: 0, color: report.colours[label] }, fillcolor: faded(report.colours[label]),
    hovertemplate: "%{y:.0%}",
  }));
  const bands = Object.entries(person.spans).map(([label, spans]) => band(label, spans));
  // Draws nothing; puts the label of the moment on top of the box that follows the pointer.
  const told = {
    type: "scatter", mode: "lines", name: "label", x, y: x.map(() => 1),
    text: person.told, hovertemplate: "<b>%{text}</b>", line: { color: "rgba(0,0,0,0)" },
  };
  return [...stack, ...bands, told];
}

function layout() {
  const ink = style("--ink"), pale = style("--pale"), line = style("--line"), card = style("--card");
  const clock = report.duration_ms >= 3600000 ? "%-H:%M:%S" : "%-M:%S";
  return {
    paper_bgcolor: card, plot_bgcolor: card, font: { family: "inherit", size: 12, color: pale },
    margin: { l: 42, r: 12, t: 6, b: 30 }, showlegend: false, hovermode: "x unified", dragmode: "zoom",
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink, size: 12 } },
    xaxis: {
      type: "date", range: [moment(0), moment(report.duration_ms)], anchor: "y", gridcolor: line, zeroline: false, nticks: 9,
      hoverformat: clock + ".%1f",
      tickformatstops: [{ dtickrange: [null, 999], value: clock + ".%1f" }, { dtickrange: [1000, null], value: clock }],
    },
    yaxis: { domain: [0, 0.8], range: [0, 1], tickformat: ".0%", tickvals: [0, 0.5, 1], gridcolor: line, fixedrange: true },
    yaxis2: { domain: [0.86, 1], range: [0, 1], visible: false, fixedrange: true },
  };
}

const options = { responsive: true, displaylogo: false, displayModeBar: false };
const drawn = new Set();

const onSight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting || drawn.has(target)) continue;
    drawn.add(target);
    Plotly.newPlot(target, traces(report.people[target.dataset.person]), layout(), options);
  }
}, { rootMargin: "600px" });

document.querySelectorAll(".chart").forEach((chart) => onSight.observe(chart));
dark.addEventListener("change", () => drawn.forEach((chart) => Plotly.relayout(chart, layout())));
