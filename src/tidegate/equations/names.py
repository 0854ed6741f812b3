"""Checks names and sizes, in one place because the file format depends on them."""

import re

from tidegate.equations.values import SCALAR, Size, fail, shown

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
LETTER = re.compile(r"[A-Z]")
TWO_SIZES = re.compile(r"[A-Z1] ?[,x*] ?[A-Z1]")
NO_MATRICES = (
    "inputs and states are vectors; for several vectors declare a state array, as in states='h c*4', for sums of "
    "products write total(a * b), and for a matrix of weights matrix(name, rows, cols)"
)
HEADER = re.compile(r"(?P<name>\w+)(?::(?P<size>[^*@=]+))?(?:\*(?P<array>\w+))?(?:@(?P<rate>\w+))?(?:=(?P<start>\S+))?")

# What torch.nn.Module calls its own: a weight of such a name could not be an attribute of a module.
_OF_TORCH = """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches
    eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict
    modules mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook
    register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu zero_grad
"""
RESERVED = frozenset(_OF_TORCH.split())


def check_name(name: object, what: str) -> str:
    """Return the name if it can be a key in a file and an attribute of a module."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fail(
            f"{what} must begin with a letter or underscore, followed by at most 63 letters, digits or underscores, "
            f"got {shown(name)}"
        )
    if name in RESERVED:
        fail(f"{what} cannot be {name!r}, which is an attribute of torch.nn.Module: choose another")
    return name


def check_identifier(name: object, what: str) -> str:
    """Return the name if it is a Python identifier, as names of values, options and functions must be."""
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 64:
        fail(f"{what} must be a Python name of at most 64 characters, got {shown(name)}")
    return name


def check_weight_name(name: object) -> str:
    """Return `name` or `linear.name` if each part is a valid name."""
    parts = name.split(".") if isinstance(name, str) else [name]
    if len(parts) > 2:
        fail(f"the name of a weight may have one dot, as in 'i.bias', got {name!r}")
    for part in parts:
        check_name(part, "the name of a weight")
    return str(name)


def parse_size(text: object) -> Size:
    """Parse a declared size: a capital letter, or 1."""
    if text == "1" if isinstance(text, str) else type(text) is int and text == 1:
        return SCALAR
    if isinstance(text, tuple | list) or (isinstance(text, str) and TWO_SIZES.fullmatch(text)):
        fail(f"size {shown(text)} is that of a matrix: {NO_MATRICES}")
    if not isinstance(text, str) or not LETTER.fullmatch(text):
        fail(
            f"a size must be a capital letter or 1, got {shown(text)}: a layer binds letters to numbers, as in "
            "Recurrent(cell, 8, 64, S=32), and each gate has a linear(...) of its own"
        )
    return (text,)
