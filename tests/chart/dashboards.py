"""Generates the Grafana dashboards, each from a list of panels. Run as a program, it writes charts/mehl-soup/dashboards/*.json."""

import json
import sys

import helm

FOLDER = helm.CHART / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Every query of the programs' series is restricted to the selection at the top of the dashboard.
OURS = 'namespace=~"$namespace", job=~"$job"'
# One series per worker, joined with its current task.
AT = "on (namespace, job, instance) group_left (sweep)"


def expression(text):
    """A query in which `mehl_soup_x{a="b"}` and `mehl_soup_x{}` are restricted to the chosen installation."""
    return text.replace("{}", f"{{{OURS}}}").replace("{+", f"{{{OURS}, ")


def panel(title, description, unit, targets, width=8, height=8, kind="timeseries", **more):
    """A panel; targets are pairs of a query and its legend."""
    instant = kind in ("stat", "table")
    custom = {"fillOpacity": 10, "showPoints": "never", **more.get("custom", {})} if kind == "timeseries" else {}
    options = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value", "graphMode": "none"},
        "table": {"showHeader": True},
    }[kind]
    defaults = {"unit": unit, **({"custom": custom} if custom else {}), **({"min": 0} if more.get("from_zero") else {})}
    if "mappings" in more:
        defaults["mappings"] = more["mappings"]
    made = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": SOURCE,
                "expr": expression(query),
                "legendFormat": legend,
                **({"instant": True, "range": False, "format": "table" if kind == "table" else "time_series"} if instant else {"range": True}),
            }
            for i, (query, legend) in enumerate(targets)
        ],
    }
    if kind == "table":
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": {name: True for name in more["hide"]}}}]
    return made


def stat(title, description, unit, query, **more):
    """A number, as it is now."""
    return panel(title, description, unit, [(query, title)], width=4, height=4, kind="stat", **more)


STACKED = {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 40}
REACHED = [{"type": "value", "options": {"0": {"text": "unreachable", "color": "red"}, "1": {"text": "connected", "color": "green"}}}]

SWEEPS = [
    ("Now", [
        stat("Running tasks", "Tasks that a worker is running under a lease.", "short", 'max(mehl_soup_tasks{+state="running"})'),
        stat("Unfinished tasks", "Tasks that have not started, were interrupted, wait at a rung or are paused.", "short",
             'sum(max by (state) (mehl_soup_tasks{+state=~"pending|queued|waiting|paused"}))'),
        stat("Succeeded tasks", "Tasks that succeeded, in all stored sweeps.", "short", 'max(mehl_soup_tasks{+state="succeeded"})'),
        stat("Failed tasks", "Tasks that failed, in all stored sweeps. mehl-soup logs shows the causes.", "short", 'max(mehl_soup_tasks{+state="failed"})'),
        stat("Workers", "Workers that have sent a heartbeat within 20 s.", "short", "max(mehl_soup_workers{})"),
        stat("Servers", "Whether the scheduler and all workers are connected to Redis and RabbitMQ.", "short",
             "min(mehl_soup_redis_connected{}) * min(mehl_soup_broker_connected{})", mappings=REACHED),
    ]),
    ("Sweeps", [
        panel("Tasks by state", "Tasks of all sweeps. Several schedulers report the same numbers.", "short",
              [("max by (state) (mehl_soup_tasks{})", "{{state}}")], custom=STACKED),
        panel("Throughput", "Attempts that ended per second, by outcome. Released tasks continue on another worker.", "ops",
              [("sum by (outcome) (rate(mehl_soup_attempts_total{}[$__rate_interval]))", "{{outcome}}")]),
        panel("Iterations and samples", "Optimizer steps and learn samples per second, summed over all workers.", "ops",
              [("sum(rate(mehl_soup_iterations_total{}[$__rate_interval]))", "iterations"),
               ("sum(rate(mehl_soup_samples_total{}[$__rate_interval]))", "samples")]),
        panel("Metrics on select", "Highest value of the running tasks at their last scoring, by sweep and metric.", "percentunit",
              [(f"max by (sweep, metric) (mehl_soup_select_metric{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}} {{metric}}")]),
        panel("Loss on select", "Lowest of the running tasks at their last scoring, by sweep. Mean cross-entropy in nats.", "short",
              [(f"min by (sweep) (mehl_soup_select_loss{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}}")]),
        panel("Loss on learn", "Loss of the running tasks on their last batch: mean and minimum by sweep. Mean cross-entropy in nats.", "short",
              [(f"avg by (sweep) (mehl_soup_learn_loss{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}} mean"),
               (f"min by (sweep) (mehl_soup_learn_loss{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}} minimum")]),
        panel("Metrics in the time range", "Highest value on select of any task, by sweep and metric. Tasks that ended between two scrapes may be missing; mehl-soup results shows all.",
              "percentunit", [(f"max by (sweep, metric) (max_over_time((mehl_soup_select_metric{{}} * {AT} mehl_soup_task_info{{}})[$__range:]))", "{{sweep}} {{metric}}")],
              kind="table", hide=["Time"]),
    ]),
    ("Scheduling", [
        panel("Unclaimed tickets", "Tickets that no worker has claimed yet, in the outbox and in RabbitMQ, and their limit (window).", "short",
              [("max by (place) (mehl_soup_tickets{})", "{{place}}"), ("max(mehl_soup_window_tickets{})", "window")], from_zero=True),
        panel("Tickets", "Tickets published per second, and tickets that workers refused because the task was finished or claimed by another worker.", "ops",
              [("sum(rate(mehl_soup_tickets_published_total{}[$__rate_interval]))", "published"),
               ("sum(rate(mehl_soup_tickets_refused_total{}[$__rate_interval]))", "refused")]),
        panel("Leases", "Tasks under a lease, and leases that expired because their worker stopped renewing them.", "short",
              [('max(mehl_soup_tasks{+state="running"})', "held"),
               ("sum(increase(mehl_soup_leases_expired_total{}[$__rate_interval]))", "expired")], from_zero=True),
        panel("Failures", "Failed, crashed, stalled and orphaned attempts, refused writes of expired leases, undelivered and invalid messages, and records that the scheduler cannot read.", "short",
              [('sum by (outcome) (increase(mehl_soup_attempts_total{+outcome=~"failed|crashed|stalled|orphaned"}[$__rate_interval]))', "{{outcome}}"),
               ("sum(increase(mehl_soup_fenced_writes_total{}[$__rate_interval]))", "writes refused"),
               ("sum(increase(mehl_soup_dead_letters_total{}[$__rate_interval]))", "dead letters"),
               ("sum(increase(mehl_soup_malformed_letters_total{}[$__rate_interval]))", "invalid messages"),
               ("max(mehl_soup_sweeps_set_aside{})", "records set aside")], from_zero=True),
        panel("Completions", "Completed tasks, by whether Redis has confirmed that they are on disk. Unconfirmed ones may be computed again.", "short",
              [("sum by (confirmed) (increase(mehl_soup_completions_on_disk_total{}[$__rate_interval]))", "on disk: {{confirmed}}")], from_zero=True),
        panel("HTTP API", "Responses of the scheduler per second, by status code.", "reqps",
              [("sum by (code) (rate(mehl_soup_http_requests_total{}[$__rate_interval]))", "{{code}}")]),
    ]),
]

LOADS = "mehl_soup_model_batch_load_seconds"
WRITES = "mehl_soup_checkpoint_write_seconds"
# The namespace label of dcgm-exporter's series is the exporter's own. Prometheus renames the pod's to exported_namespace.
DCGM = '{exported_namespace=~"$namespace"}'

WORKERS = [
    ("Work", [
        panel("Running tasks", "The current task of each busy worker, with its sweep.", "short", [("mehl_soup_task_info{}", "")], kind="table", height=8,
              hide=["Time", "Value", "__name__", "job", "namespace", "container", "endpoint"]),
        panel("Time since progress", "Seconds since a busy worker completed an iteration, read a model batch or scored an ingredient.", "s",
              [("(time() - mehl_soup_last_progress_timestamp_seconds{}) and on (namespace, job, instance) mehl_soup_task_info{}", "{{instance}}")], from_zero=True),
        panel("Samples per second", "Learn samples per second that went through a backward pass, by worker.", "ops",
              [("sum by (instance) (rate(mehl_soup_samples_total{}[$__rate_interval]))", "{{instance}}")], from_zero=True),
        panel("Speed of the last iteration", "Learn samples of the last iteration divided by its duration. Scoring and loading are not included.", "ops",
              [("mehl_soup_iteration_samples_per_second{}", "{{instance}}")], from_zero=True),
        panel("Iteration by phase", "Mean seconds of an iteration, by phase, over all chosen workers. On CUDA, mix, forward, backward and project are measured with CUDA events and reported one iteration later.", "s",
              [("sum by (phase) (rate(mehl_soup_iteration_duration_seconds_sum{}[$__rate_interval])) / scalar(sum(rate(mehl_soup_iterations_total{}[$__rate_interval])))",
                "{{phase}}")], custom=STACKED),
        panel("Slow phases", "95th percentile of the seconds of each phase.", "s",
              [("histogram_quantile(0.95, sum by (phase, le) (rate(mehl_soup_iteration_duration_seconds_bucket{}[$__rate_interval])))", "{{phase}}")]),
    ]),
    ("Memory", [
        panel("Host memory", "Memory of each worker process: resident (with memory-mapped files), anonymous (without them), the peak of its task, and the limit.", "bytes",
              [("mehl_soup_host_memory_bytes{}", "{{instance}} {{kind}}")], width=12, from_zero=True),
        panel("Anonymous memory / limit", "Anonymous memory as a share of the worker's limit. The kernel cannot free it. At 1 the worker is killed.", "percentunit",
              [('sum by (instance) (mehl_soup_host_memory_bytes{+kind="anonymous"}) / sum by (instance) (mehl_soup_host_memory_bytes{+kind="limit"})', "{{instance}}")],
              width=12, from_zero=True),
        panel("Device memory", "Memory of each worker's device, by kind. Empty for CPU workers and if the device does not report it.", "bytes",
              [("mehl_soup_device_memory_bytes{}", "{{instance}} {{kind}}")], width=24, height=6, from_zero=True),
    ]),
    ("Reads and checkpoints", [
        panel("Model-batch loads", "Seconds to read a model batch and compute its directions: median and 95th percentile.", "s",
              [(f"histogram_quantile(0.5, sum by (le) (rate({LOADS}_bucket{{}}[$__rate_interval])))", "median"),
               (f"histogram_quantile(0.95, sum by (le) (rate({LOADS}_bucket{{}}[$__rate_interval])))", "95 %")], width=6),
        panel("Ingredients read", "Bytes of ingredients read per second, from disk or the page cache, by worker.", "Bps",
              [("sum by (instance) (rate(mehl_soup_ingredient_read_bytes_total{}[$__rate_interval]))", "{{instance}}")], width=6),
        panel("Checkpoint latency", "Seconds to write a checkpoint to Redis: median and 99th percentile.", "s",
              [(f"histogram_quantile(0.5, sum by (le) (rate({WRITES}_bucket{{}}[$__rate_interval])))", "median"),
               (f"histogram_quantile(0.99, sum by (le) (rate({WRITES}_bucket{{}}[$__rate_interval])))", "99 %")], width=6),
        panel("Checkpoint size", "Size of each worker's last checkpoint.", "bytes", [("mehl_soup_checkpoint_bytes{}", "{{instance}}")], width=6),
        panel("Failed checkpoint writes", "Checkpoints that could not be written to Redis. They stay in memory and are retried.", "short",
              [("sum by (instance) (increase(mehl_soup_checkpoint_failures_total{}[$__rate_interval]))", "{{instance}}")], width=12, height=6, from_zero=True),
        panel("Servers", "Whether each worker is connected to Redis and RabbitMQ: 1 or 0.", "short",
              [("mehl_soup_redis_connected{}", "{{instance}} Redis"), ("mehl_soup_broker_connected{}", "{{instance}} RabbitMQ")], width=12, height=6, from_zero=True),
    ]),
    ("GPUs (dcgm-exporter)", [
        panel("GPU use", "Share of time in which a kernel was running. Empty without dcgm-exporter.", "percent",
              [(f"DCGM_FI_DEV_GPU_UTIL{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
        panel("GPU memory", "GPU memory in use by all processes. Empty without dcgm-exporter.", "decmbytes",
              [(f"DCGM_FI_DEV_FB_USED{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
        panel("GPU power", "Power that each GPU draws. Empty without dcgm-exporter.", "watt",
              [(f"DCGM_FI_DEV_POWER_USAGE{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
        panel("GPU temperature", "Temperature of each GPU. Empty without dcgm-exporter.", "celsius",
              [(f"DCGM_FI_DEV_GPU_TEMP{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
    ]),
]


def variables():
    """Selectors at the top of a dashboard: data source and installation."""

    def chosen(name, label, query):
        return {
            "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            # Outside Kubernetes, series have no namespace. This matches them too.
            "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]},
        }

    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
        chosen("namespace", "Namespace", "label_values(mehl_soup_build_info, namespace)"),
        chosen("job", "Job", 'label_values(mehl_soup_build_info{namespace=~"$namespace"}, job)'),
    ]


def dashboard(uid, title, rows):
    """A dashboard of rows of panels, laid out from left to right."""
    panels, y = [], 0
    for heading, members in rows:
        panels.append({"type": "row", "title": heading, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        x, y, height = 0, y + 1, 0
        for member in members:
            size = member["gridPos"]
            if x + size["w"] > 24:
                x, y, height = 0, y + height, 0
            panels.append({**member, "gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    return {
        "uid": uid, "title": title, "tags": ["mehl-soup"], "schemaVersion": 39, "editable": True, "graphTooltip": 1,
        "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "mehl-soup", "tags": ["mehl-soup"], "asDropdown": False, "keepTime": True, "includeVars": True}],
        "templating": {"list": variables()},
        "panels": [{"id": i + 1, **one} for i, one in enumerate(panels)],
    }


def written():
    """Text of each dashboard, by the name of its file."""
    made = {
        "sweeps.json": dashboard("mehl-soup-sweeps", "mehl-soup: sweeps", SWEEPS),
        "workers.json": dashboard("mehl-soup-workers", "mehl-soup: workers", WORKERS),
    }
    return {name: json.dumps(one, indent=2, ensure_ascii=False) + "\n" for name, one in made.items()}


if __name__ == "__main__":
    for name, text in written().items():
        (FOLDER / name).write_text(text)
        print(FOLDER / name, file=sys.stderr)
