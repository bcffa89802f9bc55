import { registerCacheNode } from "./common/cache_node.js"

registerCacheNode("FeMoCache", {
  // What a setting makes meaningless: it is greyed, and keeps its value.
  meaningless: (value) => ({
    beta_min: value("gamma") === 0,
    beta_max: value("gamma") === 0,
  }),
})
