// A place on a node for what its last run gave: text and pictures of ours, no part of the workflow.

export function addPanel(node, name, { className, minHeight, whiteSpace = "normal" }) {
  const element = document.createElement("div")
  element.className = className
  Object.assign(element.style, {
    font: "11px/1.5 sans-serif", color: "var(--input-text)", overflow: "auto", padding: "2px 4px", boxSizing: "border-box",
    whiteSpace,
  })
  const widget = node.addDOMWidget(name, name, element, {
    serialize: false, hideOnZoom: false, getMinHeight: () => minHeight, getMaxHeight: () => 320,
  })
  widget.serialize = false // its value is not saved
  return element
}
