import subprocess
import sys


def test_the_package_loads_without_the_http_server() -> None:
    code = "import servescope.engine, sys; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
