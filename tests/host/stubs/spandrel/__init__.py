"""Stands in for spandrel, which needs torchvision: without core's UpscaleModelLoader the front end of ComfyUI 0.3.64
loads no workflow at all."""


class ImageModelDescriptor:
    pass


class ModelLoader:
    def load_from_state_dict(self, state_dict):
        raise NotImplementedError("this is a stand-in for spandrel")
