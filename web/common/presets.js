// A list of measured settings that fills the node's widgets. A convenience only: what is run and saved are the widgets.
import { text } from "./texts.js"

// The presets come with the node's definition, from femo_core/presets.py by nodes/inputs.py.
function presetsOf(node) {
  const { required, optional } = node.constructor.nodeData?.input ?? {}
  return { ...required, ...optional }.model?.[1]?.femo_presets
}

// Undefined for a node that has none.
export function addPresets(node, widgets, changed) {
  const presets = presetsOf(node)
  if (!presets) return undefined

  function choose(name) {
    for (const [key, value] of Object.entries(presets[name] ?? {})) {
      const widget = widgets.get(key)
      if (widget) widget.value = value
    }
    matchValues()
    changed()
  }

  // Last, so that saved values, which are a plain list, keep their places.
  const values = [text("custom"), ...Object.keys(presets)]
  const list = node.addWidget("combo", "preset", text("custom"), choose, { values })
  list.serialize = false
  list.options.serialize = false
  list.label = text("preset")
  list.tooltip = text("presetTooltip")

  function matchValues() {
    const fits = ([, values]) => Object.entries(values).every(([key, value]) => widgets.get(key)?.value === value)
    list.value = Object.entries(presets).find(fits)?.[0] ?? text("custom")
  }

  matchValues()
  return { matchValues }
}
