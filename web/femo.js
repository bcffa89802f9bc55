import { registerCacheNode } from "./common/cache_node.js"

registerCacheNode("FeMoCache", {
  // What a setting makes meaningless: it is greyed, and keeps its value.
  meaningless(value) {
    const reuse = value("max_order") === 0 // then there is no momentum
    const fits = value("adaptation") === "least_squares"
    const fixed = reuse || (!fits && value("gamma") === 0)
    return {
      beta: reuse, gamma: reuse || fits, momentum_start: reuse, adaptation: reuse, beta_min: fixed, beta_max: fixed,
    }
  },
})
