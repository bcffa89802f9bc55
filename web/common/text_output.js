// What a node found, as text on the node: of its last run, not saved.
import { app } from "../../../scripts/app.js"
import { addPanel } from "./panel.js"

export function registerTextOutput(nodeClass) {
  app.registerExtension({
    name: `femo.${nodeClass}`,
    nodeCreated(node) {
      if (node.comfyClass !== nodeClass) return
      const element = addPanel(node, "femo_text", { className: "femo-text", minHeight: 110, whiteSpace: "pre-wrap" })
      const executed = node.onExecuted
      node.onExecuted = function (output) {
        executed?.apply(this, arguments)
        element.textContent = output?.text?.join("\n") ?? ""
      }
    },
  })
}
