// What a node found, as text on the node: of its last run, not saved.
import { app } from "../../../scripts/app.js"

export function registerTextOutput(nodeClass) {
  app.registerExtension({
    name: `femo.${nodeClass}`,
    nodeCreated(node) {
      if (node.comfyClass !== nodeClass) return
      const element = document.createElement("div")
      element.className = "femo-text"
      Object.assign(element.style, {
        font: "11px/1.5 sans-serif", color: "var(--input-text)", whiteSpace: "pre-wrap", overflow: "auto",
        padding: "2px 4px", boxSizing: "border-box",
      })
      const widget = node.addDOMWidget("femo_text", "femo_text", element, {
        serialize: false, hideOnZoom: false, getMinHeight: () => 110, getMaxHeight: () => 320,
      })
      widget.serialize = false
      const executed = node.onExecuted
      node.onExecuted = function (output) {
        executed?.apply(this, arguments)
        element.textContent = output?.text?.join("\n") ?? ""
      }
    },
  })
}
