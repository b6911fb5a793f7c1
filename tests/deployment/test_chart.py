"""From the chart to the process: each of the chart's ci values is rendered, and what is rendered is
started."""

import helm
import pytest
from installation import Installation

CI = helm.ci_values()


@pytest.mark.parametrize("name", CI)
def test_what_the_chart_renders_works(name, machine, folder, images, zoos, broker, authority):
    own_servers = CI[name].get("quickstart", {}).get("enabled")
    Installation(
        CI[name], machine, folder, images, zoos, None if own_servers else broker, authority
    ).run()
