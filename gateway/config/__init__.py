"""The configuration: a TOML file becomes a frozen `Config`, or all its mistakes are named at once.

This room reads files and runs the passphrase command; it decides nothing else. What each key means stands in
docs/operate/configuration.md.
"""

from gateway.config.classes import ClassConfig
from gateway.config.load import DEFAULT_FILE, load, parse
from gateway.config.passphrase import VARIABLE as PASSPHRASE_VARIABLE
from gateway.config.passphrase import read_passphrase
from gateway.config.retention import RetentionConfig, RetentionRules, rules_of
from gateway.config.secret import Secret
from gateway.config.sizes import WriterSizes
from gateway.config.units import duration_text, parse_duration, parse_size, size_text
from gateway.config.values import (
    AddressingStyle,
    CacheConfig,
    Config,
    ConfigWarning,
    DirectoryLocation,
    KeysConfig,
    LimitsConfig,
    Location,
    PricesConfig,
    RepositoryConfig,
    S3Location,
    Setting,
    SourceConfig,
    SourceKind,
    StateConfig,
    StorageClass,
    nearest,
    parse_location,
)

__all__ = [
    "DEFAULT_FILE",
    "PASSPHRASE_VARIABLE",
    "AddressingStyle",
    "CacheConfig",
    "ClassConfig",
    "Config",
    "ConfigWarning",
    "DirectoryLocation",
    "KeysConfig",
    "LimitsConfig",
    "Location",
    "PricesConfig",
    "RepositoryConfig",
    "RetentionConfig",
    "RetentionRules",
    "S3Location",
    "Secret",
    "Setting",
    "SourceConfig",
    "SourceKind",
    "StateConfig",
    "StorageClass",
    "WriterSizes",
    "duration_text",
    "load",
    "nearest",
    "parse",
    "parse_duration",
    "parse_location",
    "parse_size",
    "read_passphrase",
    "rules_of",
    "size_text",
]
