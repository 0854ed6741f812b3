"""Names and sizes: what a user may write, checked in one place because the file format rests on them."""

from __future__ import annotations

import re

from tidegate.equations.values import SCALAR, Size, fail, shown

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
LETTER = re.compile(r"[A-Z]")
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
    """The name, if it can be a key of a file and an attribute of a module."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fail(
            f"{what} must begin with a letter or underscore, followed by at most 63 letters, digits or underscores, "
            f"and {shown(name)} came"
        )
    if name in RESERVED:
        fail(f"{what} cannot be {name!r}: torch.nn.Module has an attribute of that name; choose another")
    return name


def check_identifier(name: object, what: str) -> str:
    """The name, if Python would take it for a variable's: what values, options and functions may be called."""
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 64:
        fail(f"{what} must be a name of Python of at most 64 characters, and {shown(name)} came")
    return name


def check_weight_name(name: object) -> str:
    """`name`, or `linear.name`, each part a legal name."""
    parts = name.split(".") if isinstance(name, str) else [name]
    if len(parts) > 2:
        fail(f"the name of a weight has at most one dot, as in 'i.bias', and {name!r} came")
    for part in parts:
        check_name(part, "the name of a weight")
    return str(name)


def parse_size(text: object) -> Size:
    """A declared size: a capital letter, or 1."""
    if text == "1" if isinstance(text, str) else type(text) is int and text == 1:
        return SCALAR
    if isinstance(text, str) and "," in text:
        fail(f"size {text!r} has two letters: states and inputs that are matrices are not part of the language yet")
    if not isinstance(text, str) or not LETTER.fullmatch(text):
        fail(f"a size is a capital letter that the layer binds, such as 'H', or 1, and {shown(text)} came")
    return (text,)
