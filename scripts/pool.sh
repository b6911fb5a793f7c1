#!/usr/bin/env bash
# Starts a pool on this machine (RabbitMQ, Redis, a scheduler, two workers) on free ports, and submits the demo's sweep.
# All files are in target/pool. On a terminal the pool runs until Ctrl-C; otherwise it stops after the sweep.
#
#   POOL_WORKERS   number of workers (2)
#   POOL_DEMO      folder of the demo with the zoo and sweep.toml (target/demo)
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

readonly WORKERS=${POOL_WORKERS:-2}
readonly RELEASE=${CARGO_TARGET_DIR:-target}/release
DEMO=$(realpath "${POOL_DEMO:-target/demo}")
readonly DEMO
readonly RABBITMQ=/usr/lib/rabbitmq/bin
FOLDER=$(realpath -m target/pool)
readonly FOLDER

pids=()

# Workers first, so that they give their tasks back; the servers last.
finish() {
    local status=$? pid
    trap - EXIT INT TERM
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        pid=${pids[i]}
        kill -TERM -- "-$pid" 2>/dev/null || continue
        timeout 20 tail --pid="$pid" -f /dev/null || kill -KILL -- "-$pid" 2>/dev/null || true
    done
    exit $status
}

# start NAME COMMAND...: in a process group of its own, with its output in the pool's folder.
start() {
    local name=$1
    shift
    setsid "$@" >"$FOLDER/$name.log" 2>&1 </dev/null &
    pids+=($!)
}

# await WHAT COMMAND...: until the command succeeds, for a minute at most.
await() {
    local what=$1 i
    shift
    for ((i = 0; i < 600; i++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    die "$what did not start within a minute; its output is in $FOLDER"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

speaks_amqp() {
    exec 8<>"/dev/tcp/127.0.0.1/$1" && printf 'AMQP\0\0\x09\x01' >&8 && timeout 2 head -c 1 <&8 | grep -q .
}

start_redis() {
    mkdir -p "$FOLDER/redis"
    start redis redis-server --port "$1" --bind 127.0.0.1 --dir "$FOLDER/redis" --appendonly yes --save '' --maxmemory-policy noeviction
    await Redis redis-cli -p "$1" ping
}

start_rabbitmq() {
    local folder=$FOLDER/rabbitmq mapper
    mapper=$(free_port)
    mkdir -p "$folder"/{data,log}
    printf 'disk_free_limit.absolute = 50MB\n' >"$folder/rabbitmq.conf"
    export HOME=$folder ERL_EPMD_PORT=$mapper ERL_EPMD_ADDRESS=127.0.0.1
    start epmd epmd -address 127.0.0.1 -port "$mapper"
    start rabbitmq env RABBITMQ_NODENAME="pool@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$1" \
        RABBITMQ_DIST_PORT="$(free_port)" RABBITMQ_MNESIA_BASE="$folder/data" RABBITMQ_LOG_BASE="$folder/log" \
        RABBITMQ_PID_FILE="$folder/pid" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins" \
        RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf" RABBITMQ_CONF_ENV_FILE="$folder/none" "$RABBITMQ/rabbitmq-server"
    await RabbitMQ speaks_amqp "$1"
}

[[ -f $DEMO/sweep.toml ]] || "$RELEASE/mehl-soup" demo --out "$DEMO" >/dev/null

# The home folder is RabbitMQ's below: its cookie lies there.
home=$HOME
mkdir -p "$FOLDER"
exec 9>"$FOLDER/.lock"
flock --nonblock 9 || die "another pool is running in $FOLDER"
trap finish EXIT
trap 'exit 130' INT TERM
redis=$(free_port) amqp=$(free_port) http=$(free_port)
start_redis "$redis"
start_rabbitmq "$amqp"
export HOME=$home
export MEHL_SOUP__REDIS__URL=redis://127.0.0.1:$redis/ MEHL_SOUP__AMQP__URL=amqp://127.0.0.1:$amqp/
export MEHL_SOUP_SERVER=http://127.0.0.1:$http

start scheduler "$RELEASE/mehl-soup" serve --listen "127.0.0.1:$http"
ready() { python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' "$MEHL_SOUP_SERVER/readyz"; }
await "the scheduler" ready
for ((i = 1; i <= WORKERS; i++)); do
    start "worker-$i" "$RELEASE/mehl-soup-worker" serve --set "worker.input_roots=$DEMO" --set worker.threads=1 --set worker.listen=
done
say "scheduler, $WORKERS workers, Redis and RabbitMQ are running; their output is in $FOLDER"

sweep=$("$RELEASE/mehl-soup" submit "$DEMO/sweep.toml")
say "sweep $sweep; to use other terminals: export MEHL_SOUP_SERVER=$MEHL_SOUP_SERVER"
"$RELEASE/mehl-soup" status "$sweep" --watch >&2 || true
"$RELEASE/mehl-soup" results "$sweep"
rm -rf "$FOLDER/best"
"$RELEASE/mehl-soup" materialize "$sweep" --out "$FOLDER/best"
if [[ -t 0 && -t 1 ]]; then
    say "the pool runs until Ctrl-C; try: MEHL_SOUP_SERVER=$MEHL_SOUP_SERVER $RELEASE/mehl-soup status"
    sleep infinity
fi
