import { registerCacheNode } from "./common/cache_node.js"
import { addProfileMenu } from "./common/profiles.js"

registerCacheNode("FeMoAuto", {
  meaningless: (value) => ({ speedup: value("quality") !== "by speed-up" }),
  created: addProfileMenu,
  reportHeight: 148, // for what is known, and what was learned
})
