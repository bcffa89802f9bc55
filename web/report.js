import { registerTextOutput } from "./common/text_output.js"

registerTextOutput("FeMoReport")
