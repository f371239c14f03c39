import base64
from pathlib import Path

import pytest

from proctor.recorder import screens
from proctor.recorder.w3c_errors import Answer, W3CError, failure, success

PNG = b"\x89PNG\r\n\x1a\n and the rest"


async def test_a_picture_is_kept_whole(tmp_path: Path) -> None:
    assert await screens.keep(success(base64.b64encode(PNG).decode()), tmp_path / "screen.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("screen.png", PNG)]


@pytest.mark.parametrize(
    "answer",
    [
        failure(W3CError.UNKNOWN_ERROR, "no tab"),
        success(None),
        success(7),
        success("not base64!"),
        success("ü"),
        success(base64.b64encode(b"<svg onload=alert(1)>").decode()),
        Answer(200, b"not json"),
    ],
)
async def test_what_is_no_picture_leaves_the_earlier_one(answer: Answer, tmp_path: Path) -> None:
    (tmp_path / "screen.png").write_bytes(PNG)
    assert not await screens.keep(answer, tmp_path / "screen.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("screen.png", PNG)]
