// What the cache nodes share in the browser: the report of the last run, presets, greyed widgets. None of it is saved.
import { app } from "../../../scripts/app.js"
import { addPresets } from "./presets.js"
import { addReport, clearReport } from "./report.js"

// meaningless: what a setting makes meaningless, by the others' values. created: what else a new node needs.
// reportHeight: the least that the report gets.
export function registerCacheNode(nodeClass, { meaningless, created, reportHeight = 96 }) {
  app.registerExtension({
    name: `femo.${nodeClass}`,
    nodeCreated(node) {
      if (node.comfyClass !== nodeClass) return
      const widgets = new Map(node.widgets.map((widget) => [widget.name, widget]))
      const greyOut = () => greyMeaningless(node, widgets, meaningless)
      const presets = addPresets(node, widgets, greyOut)
      addReport(node, reportHeight)
      created?.(node)
      onChange(widgets, () => {
        presets?.matchValues()
        greyOut()
      })
      // A loaded workflow sets the values only after the node is there.
      const configured = node.onConfigure
      node.onConfigure = function (...args) {
        configured?.apply(this, args)
        presets?.matchValues()
        greyOut()
      }
      greyOut()
    },
  })
}

function onChange(widgets, react) {
  for (const widget of widgets.values()) {
    const callback = widget.callback
    widget.callback = function (...args) {
      const result = callback?.apply(this, args)
      react()
      return result
    }
  }
}

function greyMeaningless(node, widgets, meaningless) {
  const off = widgets.get("enabled")?.value === false
  if (off) clearReport(node)
  const value = (name) => widgets.get(name)?.value
  const calibrated = value("calibration") !== "none"
  const bySteps = value("interval") === 0 // then no interval says where full steps are
  const grey = {
    budget: !calibrated, tolerance: calibrated || bySteps, warmup_steps: bySteps, cooldown_steps: bySteps,
    max_consecutive: bySteps, ...meaningless(value),
  }
  for (const [name, widget] of widgets) {
    const unused = off || (widgets.get("interval")?.value === 1 && name !== "interval") || !!grey[name]
    const disabled = name !== "enabled" && unused
    widget.disabled = disabled
    if (widget.options) widget.options.disabled = disabled // what the Vue nodes go by
  }
  node.setDirtyCanvas?.(true)
}
