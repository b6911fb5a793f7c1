"""The dashboards of Grafana, made of a list of panels each. Run as a program, it writes charts/mehl-soup/dashboards/*.json anew."""

import json
import sys

import helm

FOLDER = helm.CHART / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Every query of the programs' series is held to what is chosen above the dashboard.
OURS = 'namespace=~"$namespace", job=~"$job"'
# One series a worker, joined with the task that it is at.
AT = "on (namespace, job, instance) group_left (sweep)"


def expression(text):
    """A query in which `mehl_soup_x{a="b"}` and `mehl_soup_x{}` are held to the chosen installation."""
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
REACHED = [{"type": "value", "options": {"0": {"text": "away", "color": "red"}, "1": {"text": "reached", "color": "green"}}}]

SWEEPS = [
    ("Now", [
        stat("Running tasks", "Tasks that a worker holds under a lease.", "short", 'max(mehl_soup_tasks{+state="running"})'),
        stat("Tasks to come", "Tasks that are not begun, were interrupted, wait at a rung or are paused.", "short",
             'sum(max by (state) (mehl_soup_tasks{+state=~"pending|queued|waiting|paused"}))'),
        stat("Succeeded tasks", "Tasks that are done, of all sweeps that are kept.", "short", 'max(mehl_soup_tasks{+state="succeeded"})'),
        stat("Failed tasks", "Tasks that were given up with a cause; mehl-soup logs tells it.", "short", 'max(mehl_soup_tasks{+state="failed"})'),
        stat("Workers", "Workers that the scheduler has heard of within 20 s.", "short", "max(mehl_soup_workers{})"),
        stat("Servers", "Whether Redis and RabbitMQ are reached by the scheduler and every worker.", "short",
             "min(mehl_soup_redis_connected{}) * min(mehl_soup_broker_connected{})", mappings=REACHED),
    ]),
    ("Sweeps", [
        panel("Tasks by state", "Tasks of all sweeps. Two schedulers tell the same.", "short",
              [("max by (state) (mehl_soup_tasks{})", "{{state}}")], custom=STACKED),
        panel("Throughput", "Attempts that ended per second, by how: released ones go on elsewhere.", "ops",
              [("sum by (outcome) (rate(mehl_soup_attempts_total{}[$__rate_interval]))", "{{outcome}}")]),
        panel("Iterations and samples", "Optimizer steps and learn samples per second, of all workers together.", "ops",
              [("sum(rate(mehl_soup_iterations_total{}[$__rate_interval]))", "iterations"),
               ("sum(rate(mehl_soup_samples_total{}[$__rate_interval]))", "samples")]),
        panel("Best accuracy on select", "The best of the tasks that are computed now, by sweep, when they were last scored.", "percentunit",
              [(f"max by (sweep) (mehl_soup_select_accuracy{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}}")]),
        panel("Loss on select", "The least of the tasks that are computed now, by sweep, when they were last scored. Mean cross-entropy in nats.", "short",
              [(f"min by (sweep) (mehl_soup_select_loss{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}}")]),
        panel("Loss on learn", "Loss on the last batch of each task that is computed now: mean and range by sweep. Mean cross-entropy in nats.", "short",
              [(f"avg by (sweep) (mehl_soup_learn_loss{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}} mean"),
               (f"min by (sweep) (mehl_soup_learn_loss{{}} * {AT} mehl_soup_task_info{{}})", "{{sweep}} least")]),
        panel("Best within the shown time", "The best accuracy on select that a task had, by sweep. Tasks that end between two scrapes may be missing: mehl-soup results has all.",
              "percentunit", [(f"max by (sweep) (max_over_time((mehl_soup_select_accuracy{{}} * {AT} mehl_soup_task_info{{}})[$__range:]))", "{{sweep}}")],
              kind="table", hide=["Time"]),
    ]),
    ("Hand-out", [
        panel("Window of tickets", "Tickets that nobody has claimed yet: in the outbox, at the broker, and the most that may be on their way.", "short",
              [("max by (place) (mehl_soup_tickets{})", "{{place}}"), ("max(mehl_soup_window_tickets{})", "window")], from_zero=True),
        panel("Tickets", "Tickets that were published per second, and those that workers refused because their task was done or somebody else's.", "ops",
              [("sum(rate(mehl_soup_tickets_published_total{}[$__rate_interval]))", "published"),
               ("sum(rate(mehl_soup_tickets_refused_total{}[$__rate_interval]))", "refused")]),
        panel("Leases", "Tasks under a lease, and leases that ran out because their worker was not heard of.", "short",
              [('max(mehl_soup_tasks{+state="running"})', "held"),
               ("sum(increase(mehl_soup_leases_expired_total{}[$__rate_interval]))", "expired")], from_zero=True),
        panel("Failures", "What went wrong: attempts that failed, stalled, were fenced or lost the store, messages that came back undelivered, and records that the scheduler cannot read.", "short",
              [('sum by (outcome) (increase(mehl_soup_attempts_total{+outcome=~"failed|crashed|stalled|orphaned"}[$__rate_interval]))', "{{outcome}}"),
               ("sum(increase(mehl_soup_fenced_writes_total{}[$__rate_interval]))", "writes refused"),
               ("sum(increase(mehl_soup_dead_letters_total{}[$__rate_interval]))", "dead letters"),
               ("sum(increase(mehl_soup_malformed_letters_total{}[$__rate_interval]))", "no tickets"),
               ("max(mehl_soup_sweeps_set_aside{})", "records set aside")], from_zero=True),
        panel("Completions", "Completed tasks by whether Redis has confirmed that they are on its disk; unconfirmed ones may be computed again.", "short",
              [("sum by (confirmed) (increase(mehl_soup_completions_on_disk_total{}[$__rate_interval]))", "on disk: {{confirmed}}")], from_zero=True),
        panel("HTTP API", "Answers of the scheduler per second, by status code.", "reqps",
              [("sum by (code) (rate(mehl_soup_http_requests_total{}[$__rate_interval]))", "{{code}}")]),
    ]),
]

LOADS = "mehl_soup_model_batch_load_seconds"
WRITES = "mehl_soup_checkpoint_write_seconds"
# dcgm-exporter's own namespace label is that of the exporter; the pod's is renamed where labels meet.
DCGM = '{exported_namespace=~"$namespace"}'

WORKERS = [
    ("Work", [
        panel("Tasks at work", "The task that each busy worker is at, with its sweep.", "short", [("mehl_soup_task_info{}", "")], kind="table", height=8,
              hide=["Time", "Value", "__name__", "job", "namespace", "container", "endpoint"]),
        panel("Time since progress", "Seconds since a busy worker has done an iteration, read a model batch or scored an ingredient.", "s",
              [("(time() - mehl_soup_last_progress_timestamp_seconds{}) and on (namespace, job, instance) mehl_soup_task_info{}", "{{instance}}")], from_zero=True),
        panel("Samples per second", "Learn samples that went through a backward pass, by worker.", "ops",
              [("sum by (instance) (rate(mehl_soup_samples_total{}[$__rate_interval]))", "{{instance}}")], from_zero=True),
        panel("Speed of the last iteration", "Learn samples of the last iteration over its seconds: without scoring and loading.", "ops",
              [("mehl_soup_iteration_samples_per_second{}", "{{instance}}")], from_zero=True),
        panel("Iteration by phase", "Mean seconds of an iteration, by phase, over all chosen workers. On CUDA mix, forward, backward and project by events in the device's queue, one iteration late.", "s",
              [("sum by (phase) (rate(mehl_soup_iteration_duration_seconds_sum{}[$__rate_interval])) / scalar(sum(rate(mehl_soup_iterations_total{}[$__rate_interval])))",
                "{{phase}}")], custom=STACKED),
        panel("Slow phases", "Seconds that 95 of 100 of each phase stay below.", "s",
              [("histogram_quantile(0.95, sum by (phase, le) (rate(mehl_soup_iteration_duration_seconds_bucket{}[$__rate_interval])))", "{{phase}}")]),
    ]),
    ("Memory", [
        panel("Host memory", "Memory of each worker's process: resident with maps of files, anonymous without them, the peak of its task, and what it may have.", "bytes",
              [("mehl_soup_host_memory_bytes{}", "{{instance}} {{kind}}")], width=12, from_zero=True),
        panel("Anonymous memory to limit", "Memory that the system cannot drop, as a part of what the worker may have: near 1 it is killed.", "percentunit",
              [('sum by (instance) (mehl_soup_host_memory_bytes{+kind="anonymous"}) / sum by (instance) (mehl_soup_host_memory_bytes{+kind="limit"})', "{{instance}}")],
              width=12, from_zero=True),
        panel("Device memory", "Memory of each worker's device by kind, where it is not the host's and the worker can tell.", "bytes",
              [("mehl_soup_device_memory_bytes{}", "{{instance}} {{kind}}")], width=24, height=6, from_zero=True),
    ]),
    ("Reading and keeping", [
        panel("Model-batch loads", "Seconds to read a model batch and make its directions: the median, and what 95 of 100 stay below.", "s",
              [(f"histogram_quantile(0.5, sum by (le) (rate({LOADS}_bucket{{}}[$__rate_interval])))", "median"),
               (f"histogram_quantile(0.95, sum by (le) (rate({LOADS}_bucket{{}}[$__rate_interval])))", "95 %")], width=6),
        panel("Ingredients read", "Bytes of ingredients per second, from disk or the system's cache, by worker.", "Bps",
              [("sum by (instance) (rate(mehl_soup_ingredient_read_bytes_total{}[$__rate_interval]))", "{{instance}}")], width=6),
        panel("Checkpoint latency", "Seconds to write a checkpoint to Redis: the median, and what 99 of 100 stay below.", "s",
              [(f"histogram_quantile(0.5, sum by (le) (rate({WRITES}_bucket{{}}[$__rate_interval])))", "median"),
               (f"histogram_quantile(0.99, sum by (le) (rate({WRITES}_bucket{{}}[$__rate_interval])))", "99 %")], width=6),
        panel("Checkpoints", "Size of each worker's last checkpoint.", "bytes", [("mehl_soup_checkpoint_bytes{}", "{{instance}}")], width=6),
        panel("Checkpoints that failed", "Checkpoints that Redis did not take; each stays in memory and is tried again.", "short",
              [("sum by (instance) (increase(mehl_soup_checkpoint_failures_total{}[$__rate_interval]))", "{{instance}}")], width=12, height=6, from_zero=True),
        panel("Servers", "Whether each worker reaches Redis and RabbitMQ: 1 or 0.", "short",
              [("mehl_soup_redis_connected{}", "{{instance}} Redis"), ("mehl_soup_broker_connected{}", "{{instance}} RabbitMQ")], width=12, height=6, from_zero=True),
    ]),
    ("GPUs (dcgm-exporter)", [
        panel("GPU use", "Share of the time in which a kernel ran. Empty without dcgm-exporter.", "percent",
              [(f"DCGM_FI_DEV_GPU_UTIL{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
        panel("GPU memory", "Frame buffer in use, of all processes. Empty without dcgm-exporter.", "decmbytes",
              [(f"DCGM_FI_DEV_FB_USED{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
        panel("GPU power", "Power that each GPU draws. Empty without dcgm-exporter.", "watt",
              [(f"DCGM_FI_DEV_POWER_USAGE{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
        panel("GPU temperature", "Temperature of each GPU. Empty without dcgm-exporter.", "celsius",
              [(f"DCGM_FI_DEV_GPU_TEMP{DCGM}", "{{Hostname}} GPU {{gpu}}")], width=6, from_zero=True),
    ]),
]


def variables():
    """Choices above a dashboard: where the data are, and of which installation."""

    def chosen(name, label, query):
        return {
            "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            # Outside of Kubernetes no series has a namespace: this matches those too.
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
