"""What weights in shards (FSDP2) need besides the shards: gathered copies, and gradients before they are exchanged.

Decoder layers and vision blocks are gathered one by one, everything else, the root, for a whole pass.
"""

from mgpo.tools.plan.launch import Launch
from mgpo.tools.plan.passes import FLOAT
from mgpo.tools.plan.shape import Shape

Parts = dict[str, int]  # bytes by kind


def in_rollouts(shape: Shape, launch: Launch) -> Parts:
    """Bytes of the weights that are gathered from the first turn to the last; none where weights are not cut."""
    return {"gathered weights": launch.gathered * shape.parameters} if launch.devices.shards > 1 else {}


def in_update(shape: Shape, launch: Launch) -> Parts:
    """The root, a layer and the next one; gradients of the root until a pass ends, of a layer until they are added up
    over devices, in float32."""
    if launch.devices.shards == 1:
        return {}
    root, layer = root_parameters(shape), max(shape.language.parameters, shape.vision.parameters)
    exchanged = 0 if launch.lora else launch.gathered * root + (launch.gathered + FLOAT) * layer
    return {"gathered weights": launch.gathered * (root + 2 * layer), "gradients to exchange": exchanged}


def root_parameters(shape: Shape) -> int:
    """Embeddings, head, norms, and what projects image features."""
    return shape.parameters - sum(block.layers * block.parameters for block in (shape.language, shape.vision))
