"""Lifecycle rules in S3's XML, for the cold simulator. The gateway leaves that to boto3, so nothing here is shared."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from gateway.store.lifecycle import Lifecycle, LifecycleRule, SmallObjects, Transition


class NotRules(ValueError):
    """The XML is none, or holds what is not simulated: tags, dates, versions."""


def lifecycle_from_xml(body: bytes, small_objects: str) -> Lifecycle:
    try:
        root = ET.fromstring(body)
        rules = tuple(_rule(node) for node in root if _tag(node) == "Rule")
        return Lifecycle(rules=rules, small_objects=SmallObjects(small_objects or SmallObjects.STAY))
    except (ET.ParseError, ValueError) as problem:
        raise NotRules(str(problem)) from problem


def lifecycle_to_xml(lifecycle: Lifecycle) -> str:
    return "".join(f"<Rule>{_inside(rule)}</Rule>" for rule in lifecycle.rules)


def _rule(node: ET.Element) -> LifecycleRule:
    said = {_tag(child): child for child in node}
    _only(said, {"ID", "Prefix", "Filter", "Status", "Transition", "Expiration", "AbortIncompleteMultipartUpload"})
    where = said.get("Filter")
    if where is not None and len(where) == 1 and _tag(where[0]) == "And":
        where = where[0]
    filtered = {_tag(child): child.text or "" for child in where} if where is not None else {}
    _only(filtered, {"Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan"})
    prefix = said["Prefix"].text if "Prefix" in said else filtered.get("Prefix")
    moves = tuple(
        Transition(days=_number(each, "Days"), storage_class=_text(each, "StorageClass"))
        for each in node
        if _tag(each) == "Transition"
    )
    if _text(node, "Status") not in ("Enabled", "Disabled"):
        raise NotRules("a rule is Enabled or Disabled")
    return LifecycleRule(
        id=_text(node, "ID"),
        prefix=prefix or "",
        enabled=_text(node, "Status") == "Enabled",
        transitions=moves,
        larger_than=int(filtered["ObjectSizeGreaterThan"]) if "ObjectSizeGreaterThan" in filtered else None,
        smaller_than=int(filtered["ObjectSizeLessThan"]) if "ObjectSizeLessThan" in filtered else None,
        expire_days=_number(said["Expiration"], "Days") if "Expiration" in said else None,
        abort_days=(
            _number(said["AbortIncompleteMultipartUpload"], "DaysAfterInitiation")
            if "AbortIncompleteMultipartUpload" in said
            else None
        ),
    )


def _inside(rule: LifecycleRule) -> str:
    where = [("Prefix", rule.prefix)] if rule.prefix or (rule.larger_than, rule.smaller_than) == (None, None) else []
    where += [("ObjectSizeGreaterThan", str(rule.larger_than))] if rule.larger_than is not None else []
    where += [("ObjectSizeLessThan", str(rule.smaller_than))] if rule.smaller_than is not None else []
    filtered = "".join(_element(name, value) for name, value in where)
    if len(where) > 1:
        filtered = f"<And>{filtered}</And>"
    text = _element("ID", rule.id) + f"<Filter>{filtered}</Filter>"
    text += _element("Status", "Enabled" if rule.enabled else "Disabled")
    for each in rule.transitions:
        text += f"<Transition>{_element('Days', each.days)}{_element('StorageClass', each.storage_class)}</Transition>"
    if rule.expire_days is not None:
        text += f"<Expiration>{_element('Days', rule.expire_days)}</Expiration>"
    if rule.abort_days is not None:
        days = _element("DaysAfterInitiation", rule.abort_days)
        text += f"<AbortIncompleteMultipartUpload>{days}</AbortIncompleteMultipartUpload>"
    return text


def _only(said: dict[str, ET.Element] | dict[str, str], known: set[str]) -> None:
    strange = sorted(said.keys() - known)
    if strange:
        raise NotRules(f"not simulated: {', '.join(strange)}")


def _tag(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]


def _text(node: ET.Element, name: str) -> str:
    return next((child.text or "" for child in node if _tag(child) == name), "")


def _number(node: ET.Element, name: str) -> int:
    if any(_tag(child) != name and _tag(child) != "StorageClass" for child in node):
        raise NotRules("only days are simulated, no dates and no delete markers")
    return int(_text(node, name))


def _element(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>"
