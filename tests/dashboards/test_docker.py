"""docker/: what Grafana is given there is what the dashboards need. No engine runs here; files, paths and names are compared."""

from __future__ import annotations

import re
import tomllib
import unittest
from typing import Any

import boards
import panels
import yaml

DOCKER = boards.ROOT / "docker"
PROVISIONING = DOCKER / "grafana" / "provisioning"


def parsed(path: str) -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / path).read_text()))


class ProvisioningTest(unittest.TestCase):
    def setUp(self) -> None:
        self.compose = parsed("compose.yaml")
        self.grafana = self.compose["services"]["grafana"]
        self.sources = {source["type"]: source for source in parsed("grafana/provisioning/datasources/creditstream.yaml")["datasources"]}

    def test_every_file_of_yaml_parses(self) -> None:
        files = sorted(DOCKER.rglob("*.y*ml"))
        self.assertGreaterEqual(len(files), 4)
        for path in files:
            self.assertIsInstance(yaml.safe_load(path.read_text()), dict, path.name)

    def test_every_path_that_is_mounted_exists(self) -> None:
        mounted = [volume.split(":")[0] for service in self.compose["services"].values() for volume in service.get("volumes", [])]
        paths = [source for source in mounted if source.startswith(".")]
        self.assertGreaterEqual(len(paths), 5)
        for path in paths:
            self.assertTrue((DOCKER / path).exists(), path)
        self.assertLessEqual({source for source in mounted if not source.startswith(".")}, set(self.compose["volumes"]))

    def test_the_dashboards_are_where_grafana_looks(self) -> None:
        mounts = dict(volume.split(":")[1::-1] for volume in self.grafana["volumes"])
        provider = parsed("grafana/provisioning/dashboards/creditstream.yaml")["providers"][0]
        self.assertEqual((DOCKER / mounts[provider["options"]["path"]]).resolve(), boards.FOLDER)
        self.assertEqual((DOCKER / mounts["/etc/grafana/provisioning"]).resolve(), PROVISIONING)

    def test_the_data_sources_are_those_that_the_dashboards_ask_for(self) -> None:
        asked = {made["query"] for name in boards.NAMES for made in boards.variables(name).values() if made["type"] == "datasource"}
        self.assertEqual(asked, set(self.sources))
        used = {target["datasource"]["type"] for panel in boards.all_panels() for target in panel.model["targets"]}
        self.assertEqual(used, set(self.sources))

    def test_the_plugin_is_installed_in_the_version_of_the_queries(self) -> None:
        plugin = self.grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
        self.assertEqual(plugin, f"{panels.CLICKHOUSE.type_val}@{panels.CLICKHOUSE_PLUGIN}")

    def test_addresses_are_those_of_the_other_containers(self) -> None:
        services, clickhouse = self.compose["services"], self.sources["grafana-clickhouse-datasource"]
        given = clickhouse["jsonData"]
        with (boards.ROOT / "config" / "default.toml").open("rb") as file:
            defaults = tomllib.load(file)
        self.assertIn(given["host"], services)
        self.assertTrue(services["clickhouse"]["ports"][0].endswith(f":{given['port']}"))
        self.assertEqual(given["username"], services["clickhouse"]["environment"]["CLICKHOUSE_USER"])
        self.assertEqual(given["defaultDatabase"], defaults["clickhouse"]["database"])
        variable = clickhouse["secureJsonData"]["password"].removeprefix("$")
        self.assertEqual(self.grafana["environment"][variable], services["clickhouse"]["environment"][variable])
        url = re.fullmatch(r"http://(\w+):(\d+)", self.sources["prometheus"]["url"])
        assert url is not None
        self.assertTrue(services[url[1]]["ports"][0].endswith(f":{url[2]}"))
        self.assertEqual(self.sources["prometheus"]["jsonData"]["timeInterval"], parsed("prometheus.yml")["global"]["scrape_interval"])


class AccessTest(unittest.TestCase):
    def test_the_role_of_the_dashboards_may_read_the_tables_that_they_read_and_no_other(self) -> None:
        access = (boards.ROOT / "config" / "clickhouse" / "access.sql").read_text()
        granted = set(re.findall(r"^GRANT SELECT ON credits\.(\w+) TO creditstream_dashboards;$", access, re.MULTILINE))
        views = set(re.findall(r"^GRANT SELECT ON credits\.(\w+) TO creditstream_reader;$", access, re.MULTILINE))
        named = {name for text in boards.queries_of_clickhouse().values() for name in re.findall(r"\b(?:FROM|(?<!ARRAY )JOIN) ([a-z_]+)\b", text)}
        local = {name for text in boards.queries_of_clickhouse().values() for name in re.findall(r"\b(\w+) AS \(", text)}
        self.assertEqual(named - views - local, granted)


if __name__ == "__main__":
    unittest.main()
