// The strip on a cache node: what each step of the run was, live, and afterwards until the next run.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { addPanel } from "./panel.js"
import { text } from "./texts.js"

const SVG = "http://www.w3.org/2000/svg"
const HEIGHT = { strip: 14, errors: 22, gap: 3 }
const SMALLEST_ERROR = 1e-4 // the bottom of its logarithmic scale; 1 is the top
const MOST_RUNS = 3 // shown of one prompt, the latest: several samplers, or tiles
const MOST_NODES = 50 // remembered, over all workflows
const STORE = "femo.reports" // in the tab's own storage: outlives a reload, not the tab

const elements = new WeakMap() // node -> where its report is shown
const shown = new WeakMap() // node -> the reports that are shown, of its last runs
// "workflow node" -> { workflow, node, prompt, runs: { number: message }, said: what the node says of the last of them }
const latest = new Map(Object.entries(JSON.parse(sessionStorage.getItem(STORE) ?? "{}")))
const workflows = new Map() // prompt -> a promise of the id of the workflow that it was made from

for (const event of ["femo.progress", "femo.report"]) {
  api.addEventListener(event, ({ detail }) => receive({ ...detail, done: event === "femo.report" }))
}
api.addEventListener("femo.said", ({ detail }) => receiveWords(detail))

app.registerExtension({ name: "femo.reports", afterConfigureGraph: showAll })

async function receive(message) {
  const workflow = await workflowOf(message.prompt_id)
  if (workflow === undefined) return // queued by a program, without a workflow: no node here is meant
  const key = `${workflow} ${message.node_id}`
  let entry = latest.get(key)
  if (entry?.prompt !== message.prompt_id) entry = { workflow, node: message.node_id, prompt: message.prompt_id, runs: {} }
  if (!entry.runs[message.run]) entry.said = "" // of the run before
  // Progress that was waiting while the report of the same run came is old.
  if (!entry.runs[message.run]?.done) entry.runs[message.run] = message
  for (const old of Object.keys(entry.runs).slice(0, -MOST_RUNS)) delete entry.runs[old]
  latest.delete(key) // to the end: the oldest go first
  latest.set(key, entry)
  for (const old of [...latest.keys()].slice(0, -MOST_NODES)) latest.delete(old)
  if (message.done) {
    workflows.delete(message.prompt_id)
    store()
  }
  show(entry)
}

// It comes after the report of the run that it is about.
async function receiveWords(message) {
  const entry = latest.get(`${await workflowOf(message.prompt_id)} ${message.node_id}`)
  if (entry?.prompt !== message.prompt_id) return
  entry.said = message.text
  store()
  show(entry)
}

function store() {
  sessionStorage.setItem(STORE, JSON.stringify(Object.fromEntries(latest)))
}

// The queue knows what a prompt was made from, also after a reload and for prompts of other tabs.
function workflowOf(prompt) {
  if (!workflows.has(prompt)) {
    workflows.set(prompt, (async () => {
      const known = [...latest.values()].find((entry) => entry.prompt === prompt)
      if (known) return known.workflow
      const queue = await (await api.fetchApi("/queue")).json()
      const running = queue.queue_running.find((item) => item[1] === prompt)
      // A short run may have ended in the meantime.
      const ended = running ?? (await (await api.fetchApi(`/history/${prompt}`)).json())[prompt]?.prompt
      const found = ended?.[3]?.extra_pnginfo?.workflow
      return found && (found.id ?? "")
    })())
  }
  return workflows.get(prompt)
}

function openWorkflow() {
  return (app.rootGraph ?? app.graph)?.id ?? ""
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

function show(entry) {
  if (entry.workflow !== openWorkflow()) return
  const node = findNode(entry.node)
  const element = elements.get(node)
  if (!element) return
  const runs = Object.values(entry.runs)
  shown.set(node, runs.map(({ report }) => report))
  element.replaceChildren(...runs.map((message) => runElement(message, runs.length > 1)))
  if (entry.said) {
    const words = line(entry.said, 1)
    words.className = "femo-words"
    element.append(words)
  }
  node.setDirtyCanvas?.(true)
}

function showAll() {
  for (const entry of latest.values()) show(entry)
}

export function addReport(node, minHeight) {
  elements.set(node, addPanel(node, "femo_report", { className: "femo-report", minHeight }))
  clearReport(node)
}

// Of a cache that is switched off there is nothing to report: what stands there would be taken for the next run's.
export function clearReport(node) {
  elements.get(node).replaceChildren(line(text("idle"), 0.6))
}

export function lastReports(node) {
  return shown.get(node) ?? []
}

// What the node has to say between runs: it stands above the last report, and goes with it.
export function say(node, parts) {
  const panel = elements.get(node)
  panel.querySelector(".femo-said")?.remove()
  const said = document.createElement("div")
  said.className = "femo-said"
  said.append(...parts)
  panel.prepend(said)
  panel.scrollTop = 0
  node.setDirtyCanvas?.(true)
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
  const learned = learnedInWords(report.settings)
  if (learned) element.append(line(learned, 0.9))
  const notices = [...report.warnings]
  if (done && report.reason) notices.push(`${text("nothing")}: ${report.reason}`)
  for (const notice of notices) {
    const shownNotice = line(`⚠ ${notice}`, 1)
    shownNotice.className = "femo-notice"
    element.append(shownNotice)
  }
  return element
}

// Of FeMo Auto's runs only.
function learnedInWords({ learned, budget, steps, expected_change: change }) {
  if (!["learning", "yes", "no", "off"].includes(learned)) return ""
  const parts = [text(`learned_${learned}`)]
  if (budget ?? steps) parts.push(text("budget", budget ?? steps.length))
  if (change) parts.push(text("expectedChange", percent(change)))
  return parts.join(" · ")
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
  const expected = meanByStep(report.expected_errors, "error")
  const betas = meanByStep(report.betas, "beta")
  const chart = errors.size || expected.size || betas.size ? HEIGHT.errors + HEIGHT.gap : 0
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
    if (expected.has(step)) tooltip.push(`${text("expected")} ${percent(expected.get(step))}`)
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
    if (expected.has(step)) {
      const height = HEIGHT.errors * partOfScale(expected.get(step))
      svg.append(titled(draw("rect", {
        x: step - 0.1, width: 1.2, y: HEIGHT.strip + HEIGHT.gap + HEIGHT.errors - height - 1, height: 2,
        fill: "currentColor", class: "femo-expected",
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
