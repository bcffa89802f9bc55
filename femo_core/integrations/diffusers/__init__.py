"""Feature forecasting in diffusers: on its hook registry and cache contexts.

    pipe = FluxPipeline.from_pretrained(…)
    enable_femo(pipe.transformer, Schedule(6, 3, 1), FeMo(), scheduler=pipe.scheduler)
    image = pipe("a red house").images[0]
    print(last_report(pipe.transformer).summary())
    disable_femo(pipe.transformer)

or, by what the first run tells of the model,

    enable_auto(pipe.transformer, scheduler=pipe.scheduler, profile="flux.json")
"""

try:
    from .hook import disable_femo, enable_auto, enable_femo, last_report
    from .thorough import learn_thoroughly
except ModuleNotFoundError as error:
    raise ImportError(f'{error}: it needs diffusers, pip install "femo-cache[diffusers]"') from error

__all__ = ["disable_femo", "enable_auto", "enable_femo", "last_report", "learn_thoroughly"]
