"""The page of the format `web`: its JavaScript, HTML and style, ONNX Runtime Web, and how a page is made of them."""
