"""checkpoint.py OUT: a checkpoint of random weights, small enough to sample with on a CPU in two seconds.

It is of the family of SD3: one layer, a text encoder of CLIP's, a tiny autoencoder. Its images are noise, one for each
seed. Runs in the folder of ComfyUI, with the Python that runs ComfyUI.
"""

import json
import os
import sys

out = sys.argv[1]
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from comfy.clip_model import CLIPTextModel  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402

LAYERS = 1
how = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}

torch.manual_seed(1)
diffusion = MMDiT(
    input_size=None,
    patch_size=2,
    in_channels=16,
    depth=LAYERS,
    adm_in_channels=2048,
    context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64 * LAYERS}},
    num_patches=64 * 64,
    pos_embed_max_size=64,
    pos_embed_scaling_factor=None,
    **how,
)
with open("comfy/sd1_clip_config.json") as config:
    text = CLIPTextModel(json.load(config), how["dtype"], how["device"], how["operations"])
pixels = TAESD(latent_channels=16)


def weights(model, prefix, spread):
    """Random weights in the shapes of a model's, with what has to be one or zero for it to be stable."""
    for key, tensor in model.state_dict().items():
        if not tensor.dtype.is_floating_point:
            yield prefix + key, tensor
        elif key == "vae_scale" or key.endswith("norm.weight") or ("layer_norm" in key and key.endswith("weight")):
            yield prefix + key, torch.ones(tensor.shape).half()
        elif key == "vae_shift" or key.endswith("bias"):
            yield prefix + key, torch.zeros(tensor.shape).half()
        else:
            scale = 1.4 / tensor[0].numel() ** 0.5 if tensor.ndim == 4 else spread
            yield prefix + key, (torch.randn(tensor.shape) * scale).half()


parts = {}
parts.update(weights(diffusion, "model.diffusion_model.", 0.05))
parts.update(weights(text, "text_encoders.clip_l.transformer.", 0.02))
parts.update(weights(pixels, "first_stage_model.", 0.02))
safetensors.torch.save_file(parts, out)
