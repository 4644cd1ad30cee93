#!/usr/bin/env bash
# onnxscript 0.7.2 with torch 2.13.0: scaled_dot_product_attention of three-dimensional inputs is not exported to ONNX.
#
# The function's documentation allows any number of leading dimensions, and torch computes (B, T, d) without heads;
# torch.export takes it, too. The conversion to ONNX then stops with an error that asks for four dimensions. An axis
# of one head, x[:, None], gives the same numbers and goes through.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnx_ir==1.1.0 ml_dtypes==0.6.0
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys

import onnxscript
import torch
import torch.nn.functional as F


class Plain(torch.nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class WithHead(torch.nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]


def exports(module):
    try:
        torch.onnx.export(module, (x,), dynamo=True, opset_version=20, verbose=False)
    except Exception as error:
        return type(error).__name__
    return "exported"


x = torch.randn(2, 5, 8)
equal = torch.allclose(Plain()(x), WithHead()(x), atol=1e-6)
torch.export.export(Plain(), (x,))
observed = {"equal in torch": equal, "three dimensions": exports(Plain()), "four dimensions": exports(WithHead())}
expected = {"equal in torch": True, "three dimensions": "ConversionError", "four dimensions": "exported"}
print("torch", torch.__version__, "onnxscript", onnxscript.__version__)
print("expected", expected)
print("observed", observed)
sys.exit(observed != expected)
PYTHON
