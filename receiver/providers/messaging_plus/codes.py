"""The provider's codes: TP-Status octets of 3GPP TS 23.040, clause 9.2.3.15, as hexadecimal text, padded or not.

Only whether a failure is final is read from a code, never whether there was one: ``delivered`` says that.
"""

from __future__ import annotations

import re

_HEX = re.compile(r"(?:0[xX])?0*([0-9A-Fa-f]{1,2})")
_LONGEST_RAW = 32
"""An unreadable code is kept for people to look at, as long as it looks like one."""


def normal_code(raw: object) -> str | None:
    """Give two upper-case hexadecimal digits: ``"1"`` is ``"01"``, ``"3a"`` is ``"3A"``; None for anything else."""
    found = _HEX.fullmatch(raw.strip()) if isinstance(raw, str) else None
    return f"{int(found[1], 16):02X}" if found else None


def shown_code(raw: object) -> str | None:
    """Give what to store: the normal code, else the raw text where it is short and printable, else None."""
    code = normal_code(raw)
    if code or not isinstance(raw, str):
        return code
    text = raw.strip()
    return text if text not in ("", "null") and len(text) <= _LONGEST_RAW and text.isprintable() else None


def is_final_failure(raw: object) -> bool:
    """Whether a failure with this code is final.

    It is not while the centre still tries (20-3F). It is when the error is permanent or the centre has given up
    (40-7F), and when the code is missing or unreadable. 00-1F contradicts the failure and 80-FF is reserved: neither
    says that the centre still tries, so they count as missing. A later success wins in any case.
    """
    code = normal_code(raw)
    return code is None or not 0x20 <= int(code, 16) <= 0x3F
