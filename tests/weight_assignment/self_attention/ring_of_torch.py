"""What torch's own functions compute in each process, for the proofs of ring attention."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.experimental import local_map
from torch.distributed.tensor.experimental._context_parallel import _attention

from tests.weight_assignment.self_attention.ring_ranks import inputs, ours


def with_torch() -> dict[str, list[Tensor]]:
    """What the module computes, and what torch does."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {**ours(), "heads": over_heads(mesh), "ring": private_ring(mesh)}


def over_heads(mesh: DeviceMesh) -> list[Tensor]:
    """Heads over processes, causal: output and gradients, whole."""

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    heads = [Shard(1)]
    attend = local_map(causal, out_placements=heads, in_placements=(heads,) * 3, device_mesh=mesh)
    *tensors, upstream = (distribute_tensor(x, mesh, heads) for x in inputs())
    leaves = [x.requires_grad_() for x in tensors]
    output = attend(*leaves)
    gradients = torch.autograd.grad(output, leaves, upstream)
    return [x.full_tensor().detach() for x in (output, *gradients)]


def private_ring(mesh: DeviceMesh) -> list[Tensor]:
    """The ring behind the context, causal, with the kernel for CPUs: output for the tokens of this rank."""
    _attention._cp_options.convert_to_f32 = False
    _attention._cp_options.enable_load_balance = False
    _attention.set_rotate_method("alltoall")
    rank, size = dist.get_rank(), dist.get_world_size()
    q, k, v, _ = (x.chunk(size, dim=2)[rank].contiguous() for x in inputs())
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    ring = _attention._templated_ring_attention

    def attend(q: Tensor, k: Tensor, v: Tensor, is_causal: bool, **_: object) -> tuple[Tensor, ...]:
        output, lse = flash(q, k, v, 0.0, is_causal)
        return output, lse

    return [ring(mesh.get_group(), 2, attend, q, k, v, is_causal=True)[0]]
