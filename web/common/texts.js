// What the browser side says, in the languages of the help pages.
import { app } from "../../../scripts/app.js"

const TEXTS = {
  en: {
    preset: "preset",
    presetTooltip: "Fills the inputs above with measured or published settings. Only they are saved and run.",
    custom: "custom",
    idle: "A run's report appears here.",
    full: "computed in full",
    predicted: "forecast",
    toCome: "to come",
    step: "step",
    steps: (full, total) => `${full} of ${total} steps in full`,
    saved: (saved, runs) => `${saved} of ${saved + runs} network runs saved`,
    fewer: (times) => `${times}× fewer`,
    faster: (times) => `≈ ${times}× faster`,
    fasterTooltip: "This run's time against that of as many steps like its own full ones: an estimate.",
    seconds: (seconds) => `${seconds} s`,
    cache: (megabytes) => `cache ${megabytes} MB`,
    error: "forecast error",
    errorTooltip: "At each full step: what would have been forecast against what the network gave, relative.",
    expected: "The calibration expects",
    beta: "β",
    betaTooltip: "The weight of history that Adapted-FeMo has come to, mean over the images.",
    run: (number) => `run ${number}`,
    running: "sampling",
    stopped: "stopped",
    nothing: "nothing skipped",
  },
  zh: {
    preset: "预设",
    presetTooltip: "用实测或论文中的设置填写上面的各输入项。保存和执行的只是这些输入的值。",
    custom: "自定义",
    idle: "运行后在此显示报告。",
    full: "完整计算",
    predicted: "预测",
    toCome: "尚未执行",
    step: "步",
    steps: (full, total) => `${total} 步中完整计算 ${full} 步`,
    saved: (saved, runs) => `${saved + runs} 次网络运行中省去 ${saved} 次`,
    fewer: (times) => `网络运行为原来的 1/${times}`,
    faster: (times) => `约 ${times} 倍速`,
    fasterTooltip: "假如同样多的步全部完整计算所需的时间，除以本次用时：估计值。",
    seconds: (seconds) => `${seconds} 秒`,
    cache: (megabytes) => `缓存 ${megabytes} MB`,
    error: "预测误差",
    errorTooltip: "在每个完整步：本会预测出的特征与网络实际给出的特征之间的相对误差。",
    expected: "校准预期",
    beta: "β",
    betaTooltip: "Adapted-FeMo 当前的历史权重，对各图像取平均。",
    run: (number) => `第 ${number} 次运行`,
    running: "采样中",
    stopped: "已停止",
    nothing: "没有跳过任何步",
  },
}

export function text(key, ...values) {
  const locale = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? app.ui?.settings?.getSettingValue?.("Comfy.Locale")
  const found = (TEXTS[String(locale).split("-")[0]] ?? TEXTS.en)[key]
  return typeof found === "function" ? found(...values) : found
}
