// What FeMo Auto has learned, in the node's menu: shown on the node, and forgotten. Files are reached by the host's
// own /userdata.
import { api } from "../../../scripts/api.js"
import { lastReports, say } from "./report.js"
import { text } from "./texts.js"

const FOLDER = "femo_profiles"

export function addProfileMenu(node) {
  const others = node.getExtraMenuOptions
  node.getExtraMenuOptions = function (canvas, options) {
    const theirs = others?.apply(this, arguments) ?? []
    return [
      { content: text("whatWasLearned"), callback: () => tell(node, () => showLearned(node)) },
      { content: text("forget"), callback: () => tell(node, () => forgetLearned(node)) },
      ...theirs,
    ]
  }
}

async function tell(node, act) {
  try {
    await act()
  } catch (error) {
    say(node, [element("div", text("failed", error.message))])
  }
}

async function showLearned(node) {
  const names = await profileNames(node)
  if (!names.length) return say(node, [element("div", text("nothingLearned"))])
  const profiles = await Promise.all(names.map(profileElement))
  const forgetButton = (key, which) => button(text(key), () => tell(node, () => forget(node, which)))
  profiles.forEach((profile, i) => profile.append(forgetButton("forgetThis", [names[i]])))
  if (names.length > 1) profiles.push(forgetButton("forgetAll", names))
  say(node, profiles)
}

// That of the node's last run; where none is known, the user is asked which.
async function forgetLearned(node) {
  const [first] = await profileNames(node)
  if (first && first === profileOf(node)) await forget(node, [first])
  else await showLearned(node)
}

async function forget(node, names) {
  for (const name of names) {
    const answer = await api.fetchApi(`/userdata/${encodeURIComponent(`${FOLDER}/${name}`)}`, { method: "DELETE" })
    if (!answer.ok && answer.status !== 404) throw new Error(`${name}: ${answer.status} ${answer.statusText}`)
  }
  say(node, [element("div", text("forgotten", names.join(", ")))])
}

// The one of the node's last run comes first.
async function profileNames(node) {
  const answer = await api.fetchApi(`/userdata?dir=${FOLDER}`)
  if (answer.status === 404) return [] // nothing was ever learned here
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
  const own = profileOf(node)
  const names = (await answer.json()).filter((name) => name.endsWith(".json")).sort()
  return names.includes(own) ? [own, ...names.filter((name) => name !== own)] : names
}

function profileOf(node) {
  return lastReports(node).at(-1)?.settings?.profile
}

async function profileElement(name) {
  const found = element("div", "")
  found.className = "femo-profile"
  const title = element("div", name.replace(/\.json$/, ""))
  title.style.fontWeight = "bold"
  found.append(title)
  try {
    const answer = await api.fetchApi(`/userdata/${encodeURIComponent(`${FOLDER}/${name}`)}`)
    const profile = await answer.json()
    found.append(...profile.recordings.map((recording) => element("div", inWords(recording))))
  } catch {
    found.append(element("div", text("unreadable"))) // deleted meanwhile, or damaged
  }
  return found
}

function inWords({ sigmas, sampler, runs, stochastic, tried }) {
  const parts = [
    text("learnedSteps", sigmas.length - 1),
    sampler,
    text("levels", short(sigmas[0]), short(sigmas.at(-1))),
    runs > 1 && text("runs", runs),
    stochastic && text("stochastic"),
    ...(tried ?? []).map(({ budget, change }) => text("tried", budget, (100 * change).toPrecision(2))),
  ]
  return parts.filter(Boolean).join(" · ")
}

function short(level) {
  return Number(level.toPrecision(3))
}

function element(kind, content) {
  const made = document.createElement(kind)
  made.textContent = content
  return made
}

function button(label, act) {
  const made = element("button", label)
  Object.assign(made.style, {
    font: "inherit", color: "inherit", background: "var(--comfy-input-bg)", border: "1px solid var(--border-color)",
    borderRadius: "3px", padding: "0 6px", margin: "2px 0 4px", cursor: "pointer",
  })
  made.addEventListener("click", act)
  return made
}
