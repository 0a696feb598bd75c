from typing_extensions import Buffer

def cut(
    parameters: Buffer,
    minimum: int,
    average: int,
    maximum: int,
    buffer: Buffer,
    start: int,
    length: int,
    final: bool,
    /,
) -> list[int]: ...
def isa() -> str: ...
def use(isa: str, /) -> bool: ...
