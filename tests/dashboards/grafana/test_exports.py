import json
from pathlib import Path

import prometheus
import pytest
import yaml

from servescope.dashboards.grafana import BOARDS, write
from servescope.traces.errors import OutputExists, OutputFailed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "grafana")
    return tmp_path / "grafana"


def test_all_is_written_that_shows_the_boards_and_no_code(tmp_path: Path) -> None:
    written = write(tmp_path / "grafana")
    assert {str(path.relative_to(tmp_path / "grafana")) for path in written} == {
        *(f"boards/{name}.json" for name in BOARDS),
        "provisioning/dashboards/servescope.yml",
        "provisioning/datasources/prometheus.yml",
        "README.md",
        "compose.yaml",
        "prometheus.yml",
    }
    assert all(path.read_text().strip() for path in written)


def test_what_is_there_stays_as_it_is(folder: Path) -> None:
    (folder / "prometheus.yml").write_text("mine")
    with pytest.raises(OutputExists, match="exists already"):
        write(folder)
    assert (folder / "prometheus.yml").read_text() == "mine"
    write(folder, overwrite=True)
    assert (folder / "prometheus.yml").read_text() != "mine"


def test_one_file_in_the_way_holds_back_all(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text("mine")
    with pytest.raises(OutputExists):
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "prometheus.yml"]


def test_a_place_that_is_no_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFailed):
        write(tmp_path / "file")


@pytest.mark.thirdparty
@pytest.mark.skipif(prometheus.BINARY is None, reason="needs prometheus on PATH or in $PROMETHEUS")
def test_prometheus_takes_its_file(folder: Path) -> None:
    code, said = prometheus.check_config(folder / "prometheus.yml")
    assert code == 0, said
    (folder / "prometheus.yml").write_text("nonsense: 1\n")
    assert prometheus.check_config(folder / "prometheus.yml")[0] != 0


def test_jobs_do_not_share_an_address(folder: Path) -> None:
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    targets = [
        target
        for job in config["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    ]
    assert len(set(targets)) == len(targets) == 5
    assert "127.0.0.1:9400" in targets


def test_the_containers_find_what_was_written(folder: Path) -> None:
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    mounted: dict[str, Path] = {}
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source, place = volume.split(":")[:2]
            if source.startswith("./"):
                assert (folder / source).exists()
                mounted[place] = folder / source
            else:
                assert source in compose["volumes"]
    (provider,) = yaml.safe_load((folder / "provisioning/dashboards/servescope.yml").read_text())[
        "providers"
    ]
    boards = mounted[provider["options"]["path"]]
    assert {json.loads(path.read_text())["uid"] for path in boards.iterdir()} == {
        f"servescope-{name}" for name in BOARDS
    }
    home = Path(
        compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    )
    assert (mounted[str(home.parent)] / home.name).exists()


def test_containers_listen_on_this_machine_only_and_know_no_password(folder: Path) -> None:
    text = (folder / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    grafana = services["grafana"]["environment"]
    assert grafana["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not any("PASSWORD" in name for name in grafana)
    (source,) = yaml.safe_load((folder / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://127.0.0.1:9090"
