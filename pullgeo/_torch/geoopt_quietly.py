"""Imports geoopt without the warning that newer releases of torch print when it compiles functions of its own."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    import geoopt as geoopt
