"""Warm-start settings in a YAML file, read strictly: names and values, never code."""

from __future__ import annotations

import re
from typing import Any, Union

import msgspec
import yaml

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.text.names import did_you_mean_or

# "Expected `str`, got `int` - at `$.assignment_map[2][0]`"
_SETTING = re.compile(r"(?s)(.*) - at (?:`key` in )?`\$\.?(.*)`$")
_WORDS = {"`object": "`mapping", "| object": "| mapping", "`array": "`list", "| array": "| list"}


class _VocabInfo(msgspec.Struct, forbid_unknown_fields=True):
    """tf.estimator.VocabInfo, but for the initializer of new rows: these are zeros."""

    new_vocab: str
    new_vocab_size: int
    num_oov_buckets: int
    old_vocab: str
    old_vocab_size: int = -1
    axis: int = 0
    backup_initializer: None = None


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    """The types that the fields of WarmStart have in a file; WarmStart checks what they say.

    A mapping's values are left to WarmStart where it names their keys in its errors.
    """

    ckpt_to_initialize_from: str
    vars_to_warm_start: Union[str, list[str], None] = None
    var_name_to_vocab_info: dict[str, Any] = {}
    var_name_to_prev_var_name: dict[str, Any] = {}
    assignment_map: Union[list[tuple[str, str]], dict[str, str]] = []
    rename: Union[list[tuple[str, str]], dict[str, str]] = []
    exclude: list[str] = []
    on_missing: Union[str, dict[str, Any]] = "error"
    on_shape_mismatch: Union[str, dict[str, Any]] = "error"
    on_unexpected: str = "ignore"
    require_all_rules_match: bool = True
    match_by: Union[str, None] = None
    root: Union[str, None] = None
    use_averages: Union[bool, str] = False
    hyperparameters: dict[str, Any] = {}
    from_optimizer: Union[str, None] = None


class _Loader(yaml.SafeLoader):
    """Refuses one key twice in a mapping, of which the last would win; tells where a tag is wrong.

    PyYAML raises whatever its conversion of a tagged value comes upon: a KeyError for `!!bool abc`,
    an AttributeError for `!!timestamp abc`, an IndexError for an empty `!!int`.
    """

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is no {tag}", node.start_mark
            ) from None

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key_node.value!r} stands here twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: bytes | str, *, path: str | None = None, key: str | None = None) -> Any:
    """The YAML value that a text is.

    Raises:
      SettingsError: it is none; with the path and the key, and the line and the column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        message = f"no YAML: {' '.join(str(error).split())}"
        raise SettingsError(message, path=path, key=key) from None


def read_settings(path: str, ckpt_to_initialize_from: str | None = None) -> dict[str, Any]:
    """The fields of WarmStart in a YAML file; see load_warm_start()."""
    if not files.exists(path) or files.is_dir(path):
        raise SettingsError("expected a YAML file, found none here", path=path)
    found = read_yaml(files.read_bytes(path), path=path)
    if not isinstance(found, dict):
        raise SettingsError("expected a mapping with the fields of WarmStart", path=path)
    if ckpt_to_initialize_from is not None:
        found = {**found, "ckpt_to_initialize_from": ckpt_to_initialize_from}
    try:
        _check("", found, _Fields)
        for name, info in found.get("var_name_to_vocab_info", {}).items():
            _check(f"var_name_to_vocab_info[{name!r}]", info, _VocabInfo)
    except SettingsError as error:
        raise SettingsError(error.message, path=path, key=error.key) from None
    return found


def _check(setting: str, found: Any, kind: type[msgspec.Struct]) -> None:
    """Raises SettingsError unless `found`, which stands at `setting`, has the fields of `kind`."""
    known = list(kind.__struct_fields__)
    for name in found if isinstance(found, dict) else ():
        if name not in known:
            hint = did_you_mean_or(str(name), known)
            raise SettingsError(f"no such field{hint}", key=_join(setting, str(name)))
    try:
        msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        message, at = str(error), ""
        matched = _SETTING.match(message)
        if matched:
            message, at = matched.groups()
        for json_word, word in _WORDS.items():
            message = message.replace(json_word, word)
        raise SettingsError(message, key=_join(setting, at) or None) from None
    except RecursionError:
        raise SettingsError("nested too deeply", key=setting or None) from None


def _join(setting: str, rest: str) -> str:
    return f"{setting}.{rest}" if setting and rest else setting or rest
