"""Coefficients of vector mathematics; docs/decisions/0007-vector-mathematics.md says how they were computed."""

from dataclasses import dataclass


def _row(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


@dataclass(frozen=True)
class CoefficientTable:
    """The coefficients for one dtype. Polynomials start with the constant term, splits with the largest part."""

    mantissa: int  # bits
    bias: int
    root_half: int  # the bits of sqrt(1/2)
    highest: float  # exp is finite up to here ...
    lowest: float  # ... and normal from here
    gone: float  # 1 + exp(-x) is 1 from here
    far: float  # the split of pi / 2 serves up to here
    split_ln2: tuple[float, ...]  # the product of the first part and any exponent is exact
    split_half_pi: tuple[float, ...]
    exp: tuple[float, ...]  # (e^x - 1 - x) / x^2
    exp_rough: tuple[float, ...]  # e^x, where other errors dominate
    log: tuple[float, ...]  # (2 artanh(s) / s - 2 - 2/3 s^2) / s^4 by s^2
    sin: tuple[float, ...]  # (sin(x) / x - 1) / x^2 by x^2
    cos: tuple[float, ...]  # (cos(x) - 1 + x^2 / 2) / x^4 by x^2


SINGLE = CoefficientTable(
    mantissa=23,
    bias=127,
    root_half=0x3F3504F3,
    highest=88.72283172607422,
    lowest=-87.33654022216797,
    gone=18.0,
    far=2.0**18,
    split_ln2=_row("0.693145751953125 1.428606765330187e-06"),
    split_half_pi=_row("1.5707963705062866 -4.371138828673793e-08 -1.7151245100058819e-15"),
    exp=_row("0.5 0.16666534543037415 0.04166724532842636 0.008367440663278103 0.00138631381560117"),
    exp_rough=_row(
        "1 0.9999997019767761 0.4999914765357971 0.16667652130126953 0.041898176074028015 0.008289359509944916"
    ),
    log=_row("0.4000001506234889 0.28562233399797726 0.23048360570897738"),
    sin=_row("-0.1666666465645302 0.008332747132005014 -0.00019587644999834246"),
    cos=_row("0.04166666465362987 -0.0013888301894958391 2.4547695686006497e-05"),
)
DOUBLE = CoefficientTable(
    mantissa=52,
    bias=1023,
    root_half=0x3FE6A09E667F3BCD,
    highest=709.782712893384,
    lowest=-708.3964185322641,
    gone=38.0,
    far=2.0**45,
    split_ln2=_row("0.6931471805601177 -1.7239444525614835e-13"),
    split_half_pi=_row("1.5707963267948966 6.123233995736766e-17 -1.4973849048591698e-33"),
    exp=_row(
        "0.5 0.1666666666666667 0.04166666666666667 0.008333333333326127 0.0013888888888883742 0.00019841269874849664"
        " 2.4801587325568478e-05 2.7557255363379395e-06 2.75572736168118e-07 2.5105232329847944e-08"
        " 2.0914697911867024e-09"
    ),
    exp_rough=_row(
        "1 1 0.5 0.1666666666666667 0.04166666666666667 0.008333333333326127 0.0013888888888883742"
        " 0.00019841269874849664 2.4801587325568478e-05 2.7557255363379395e-06 2.75572736168118e-07"
        " 2.5105232329847944e-08 2.0914697911867024e-09"
    ),
    log=_row(
        "0.40000000000000024 0.28571428571338425 0.22222222271138234 0.18181808241686093 0.15385575223233022"
        " 0.13285943251703247 0.12913792957412304"
    ),
    sin=_row(
        "-0.16666666666666666 0.008333333333330938 -0.00019841269836740955 2.7557316093417853e-06"
        " -2.5051129942141508e-08 1.5917992268027582e-10"
    ),
    cos=_row(
        "0.041666666666666664 -0.0013888888888887389 2.4801587298754668e-05 -2.7557317266015365e-07"
        " 2.0876145077997095e-09 -1.1382546702689447e-11"
    ),
)
# 2 tanh(x / 2) = k / h for |x| <= TANH_END in float32: k = x + x^3 P(x^2), h = 1 + x^2 Q(x^2).
TANH_END = 8.7
TANH_P = _row("0.029793281108140945 0.00011467889999039471")
TANH_Q = _row("0.11312658339738846 0.0012085939524695277 1.2380638736431138e-06")
LOG2E = 1.4426950408889634
TWO_THIRDS = _row("0.6666666666666666 3.700743415417188e-17")  # as a sum
TWO_OVER_PI = int(  # its first 1,216 binary places
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73ee882"
    "35f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f66"
    "9e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab",
    16,
)
