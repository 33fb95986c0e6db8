"""What python -m unrolled makes of its arguments, before it looks at any file."""

from typing import Any

import pytest

from unrolled.deployment.command import RENAMED, main


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_option_is_answered_with_the_new_one_which_exists(old: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["caption", "best.ckpt", f"{old}=1", "a.png"])
    assert stop.value.code == 2
    assert f"{old} is called {RENAMED[old]}\n" in capsys.readouterr().err

    with pytest.raises(SystemExit) as stop:
        main(["caption", "--help"])
    assert stop.value.code == 0
    assert RENAMED[old].split()[0] in capsys.readouterr().out
