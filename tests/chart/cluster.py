"""A stand-in for the API server of a cluster, which Helm's `lookup` asks: it answers with the objects that it is given."""

import contextlib
import http.server
import json
import threading

import helm

# Kinds that the chart looks up: their group, version and name in paths.
KINDS = {"Secret": ("v1", "secrets"), "Deployment": ("apps/v1", "deployments")}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = self.server.answers.get(self.path.split("?")[0])
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing: pytest's output is for people."""


def _answers(objects):
    """What is answered on each path: the lists of resources that Helm asks for first, and the objects."""
    answers = {}
    for kind, (version, plural) in KINDS.items():
        base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        resource = {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
        answers[base] = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [resource]}
        for one in objects:
            if one["kind"] == kind:
                answers[f"{base}/namespaces/{one['metadata']['namespace']}/{plural}/{one['metadata']['name']}"] = one
    return answers


@contextlib.contextmanager
def serving(objects):
    """The address of an API server that has these objects and listens on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.answers = _answers(objects)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def render(values, objects, chart=helm.CHART):
    """The objects that the chart makes of `values` where a cluster has `objects` already, as `helm upgrade` would see it."""
    import helm_python
    import yaml

    with serving(objects) as address:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        with (
            helm_python.Config(kubeconfig_content=json.dumps(config), namespace=helm.NAMESPACE, storage_driver="memory") as cluster,
            helm_python.Chart.load(chart) as loaded,
        ):
            rendered = cluster.render(loaded, values, name=helm.RELEASE, namespace=helm.NAMESPACE, is_install=False, is_upgrade=True)
    return [one for path, text in sorted(rendered.items()) if path.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
