"""Time zones: offsets such as +02:00 and names such as Europe/Berlin, and times written with them."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl

Precision = Literal["D", "s", "ms", "us"]
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def zone_named(name: str) -> tzinfo:
    """The zone of that name. Raises ValueError where there is none."""
    found = _OFFSET.fullmatch(name)
    if found:
        size = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(size if found[1] == "+" else -size)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r:.80}") from error


def offset_name(minutes: int) -> str:
    """The name of an offset: 120 minutes are +02:00."""
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def name_for_frames(zone: str) -> str:
    """The name under which polars and pandas know a zone: whole hours have one, other offsets are given in UTC."""
    found = _OFFSET.fullmatch(zone)
    if not found:
        return zone
    hours = int(found[2])
    known = found[3] == "00" and hours <= 12
    return f"Etc/GMT{'-' if found[1] == '+' else '+'}{hours}" if known and hours else "UTC"


def local_clocks(times: np.ndarray, zone: str) -> np.ndarray:
    """What clocks of a zone show at times in UTC: datetime64[us], without their offset."""
    found = _OFFSET.fullmatch(zone)
    if found:
        minutes = int(found[1] + "1") * (int(found[2]) * 60 + int(found[3]))
        return times + np.timedelta64(minutes, "m")
    shown = pl.Series(times).dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    return shown.to_numpy().astype("datetime64[us]")


def written(times: np.ndarray, zone: str | None, precision: Precision) -> list[str]:
    """Times in UTC as ISO text in their zone, or without a zone with a space before the clock.

    `precision` is numpy's unit of the last part.
    """
    if zone is None:
        return [str(text).replace("T", " ") for text in np.datetime_as_string(times, unit=precision)]
    place, digits = zone_named(zone), {"ms": "milliseconds", "us": "microseconds"}.get(precision, "seconds")
    return [
        (_EPOCH + timedelta(microseconds=int(time))).astimezone(place).isoformat(timespec=digits)
        for time in times.astype("datetime64[us]").astype(np.int64)
    ]
