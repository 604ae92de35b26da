import pytest
import localrun
from localrun import RunConfig
@pytest.mark.parametrize("home", ["home", "a b'\"c\nd é\udcff"], indirect=True)
def test_it(home):
    r = localrun.create_run(RunConfig(name="a", command="echo hi"))
    r.wait(20)
    assert r.stdout() == "hi\n"
