import { registerCacheNode } from "./common/cache_node.js"

registerCacheNode("FeMoCache", {
  // What a setting makes meaningless: it is greyed, and keeps its value.
  meaningless(value) {
    const reuse = value("max_order") === 0 // then there is no momentum
    const fixed = reuse || value("gamma") === 0
    return { beta: reuse, gamma: reuse, momentum_start: reuse, beta_min: fixed, beta_max: fixed }
  },
})
