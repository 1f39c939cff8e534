"""External networks: ONNX files made elsewhere, checked, run by ONNX Runtime and served like any other model."""

EXTERNAL = "external"
"""The method of their models. No entry of `METHODS`: nothing trains them."""

NETWORK_NAME = "network.onnx"
"""The name of such a file in its model's folder."""
