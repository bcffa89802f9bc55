// The strip on a cache node: what each step of the run was, live, and afterwards until the next run.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { text } from "./texts.js"

const SVG = "http://www.w3.org/2000/svg"
const HEIGHT = { strip: 14, errors: 22, gap: 3 }
const SMALLEST_ERROR = 1e-4 // the bottom of its logarithmic scale; 1 is the top
const MOST_RUNS = 3 // shown of one prompt, the latest: several samplers, or tiles

const shown = new WeakMap() // node -> { element }
const latest = new Map() // "workflow node" -> { prompt, runs: Map number -> message }
const workflows = new Map() // prompt -> the workflow it was queued from

for (const event of ["femo.progress", "femo.report"]) {
  api.addEventListener(event, ({ detail }) => receive({ ...detail, done: event === "femo.report" }))
}

function receive(message) {
  const key = keyOf(message.prompt_id, message.node_id)
  if (latest.get(key)?.prompt !== message.prompt_id) latest.set(key, { prompt: message.prompt_id, runs: new Map() })
  const { runs } = latest.get(key)
  runs.set(message.run, message)
  if (runs.size > MOST_RUNS) runs.delete(runs.keys().next().value)
  const node = findNode(message.node_id)
  if (node) show(node, key)
}

function keyOf(prompt, nodeId) {
  if (!workflows.has(prompt)) workflows.set(prompt, currentWorkflow())
  return `${workflows.get(prompt)} ${nodeId}`
}

function currentWorkflow() {
  return app.extensionManager?.workflow?.activeWorkflow?.path ?? ""
}

// A node within subgraphs is named by the way to it: "12:5" is node 5 in what node 12 stands for.
function findNode(executionId) {
  let graph = app.rootGraph ?? app.graph
  let node
  for (const part of String(executionId).split(":")) {
    node = graph?.getNodeById?.(part) ?? graph?.getNodeById?.(Number(part))
    graph = node?.subgraph
  }
  return node
}

function show(node, key) {
  const report = shown.get(node)
  const found = latest.get(key)
  if (!report || !found) return
  report.element.replaceChildren(...[...found.runs.values()].map((message) => runElement(message, found.runs.size > 1)))
  node.setDirtyCanvas?.(true)
}

export function addReport(node) {
  const element = document.createElement("div")
  element.className = "femo-report"
  Object.assign(element.style, {
    font: "11px/1.5 sans-serif", color: "var(--input-text)", overflow: "auto", padding: "2px 4px", boxSizing: "border-box",
  })
  element.append(line(text("idle"), 0.6))
  const widget = node.addDOMWidget("femo_report", "femo_report", element, {
    serialize: false, hideOnZoom: false, getMinHeight: () => 96, getMaxHeight: () => 320,
  })
  widget.serialize = false // its value is no part of the workflow
  shown.set(node, { element })
  const configured = node.onConfigure
  node.onConfigure = function (...args) {
    configured?.apply(this, args)
    show(node, `${currentWorkflow()} ${node.id}`)
  }
}

function runElement({ report, run, done, stopped }, several) {
  const element = document.createElement("div")
  element.className = "femo-run"
  element.dataset.done = done
  element.append(strip(report))
  const parts = [
    text("steps", report.full_steps.length, report.total_steps),
    text("saved", report.network_runs_saved, report.network_runs),
    text("fewer", report.flops_speedup.toFixed(2)),
    text("seconds", report.seconds.toFixed(1)),
    text("cache", (report.cache_bytes / 2 ** 20).toFixed(1)),
  ]
  if (report.time_speedup) parts.splice(3, 0, text("faster", report.time_speedup.toFixed(2)))
  if (several) parts.unshift(text("run", run))
  if (stopped) parts.push(text("stopped"))
  else if (!done) parts.push(`${text("running")} …`)
  const summary = line(parts.join(" · "), 0.9)
  summary.title = text("fasterTooltip")
  element.append(summary)
  const notices = [...report.warnings]
  if (done && report.reason) notices.push(`${text("nothing")}: ${report.reason}`)
  for (const notice of notices) {
    const shownNotice = line(`⚠ ${notice}`, 1)
    shownNotice.className = "femo-notice"
    element.append(shownNotice)
  }
  return element
}

function line(content, opacity) {
  const element = document.createElement("div")
  element.textContent = content
  element.style.opacity = opacity
  return element
}

function strip(report) {
  const total = Math.max(1, report.total_steps)
  const errors = meanByStep(report.errors, "error")
  const betas = meanByStep(report.betas, "beta")
  const chart = errors.size || betas.size ? HEIGHT.errors + HEIGHT.gap : 0
  const svg = draw("svg", {
    viewBox: `0 0 ${total} ${HEIGHT.strip + chart}`, preserveAspectRatio: "none", width: "100%",
    height: HEIGHT.strip + chart, role: "img",
  })
  const full = new Set(report.full_steps)
  const predicted = new Set(report.predicted_steps)
  for (let step = 0; step < total; step++) {
    const kind = full.has(step) ? "full" : predicted.has(step) ? "predicted" : "toCome"
    const tooltip = [`${text("step")} ${step + 1}: ${text(kind)}`]
    if (errors.has(step)) tooltip.push(`${text("error")} ${percent(errors.get(step))}. ${text("errorTooltip")}`)
    if (betas.has(step)) tooltip.push(`${text("beta")} ${betas.get(step).toFixed(3)}. ${text("betaTooltip")}`)
    svg.append(titled(draw("rect", {
      x: step + 0.08, y: 0, width: 0.84, height: HEIGHT.strip, class: `femo-${kind}`,
      fill: kind === "full" ? "#3f8efc" : kind === "predicted" ? "#7ed0a5" : "currentColor",
      opacity: kind === "toCome" ? 0.2 : 1,
    }), tooltip.join("\n")))
    if (errors.has(step)) {
      const height = HEIGHT.errors * partOfScale(errors.get(step))
      svg.append(titled(draw("rect", {
        x: step + 0.08, width: 0.84, y: HEIGHT.strip + HEIGHT.gap + HEIGHT.errors - height, height, fill: "#e8a33d",
        class: "femo-error",
      }), tooltip.join("\n")))
    }
  }
  if (betas.size) {
    // β from −1 to 1, over the errors.
    const points = [...betas].map(([step, beta]) =>
      `${step + 0.5},${HEIGHT.strip + HEIGHT.gap + HEIGHT.errors * (1 - beta) / 2}`)
    svg.append(titled(draw("polyline", {
      points: points.join(" "), fill: "none", stroke: "#d15b9c", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke",
      class: "femo-beta",
    }), text("betaTooltip")))
  }
  return svg
}

function meanByStep(rows, key) {
  const sums = new Map()
  for (const row of rows ?? []) {
    const step = Math.floor(row.step)
    const values = [row[key]].flat() // β is a list, one for each sample
    const [sum, count] = sums.get(step) ?? [0, 0]
    sums.set(step, [sum + values.reduce((a, b) => a + b, 0), count + values.length])
  }
  return new Map([...sums].map(([step, [sum, count]]) => [step, sum / count]))
}

function partOfScale(error) {
  const part = 1 - Math.log10(Math.max(error, SMALLEST_ERROR)) / Math.log10(SMALLEST_ERROR)
  return Math.min(1, Math.max(0.05, part))
}

function percent(value) {
  return `${(100 * value).toPrecision(2)} %`
}

function draw(kind, attributes) {
  const element = document.createElementNS(SVG, kind)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}

function titled(element, content) {
  const title = document.createElementNS(SVG, "title")
  title.textContent = content
  element.append(title)
  return element
}
