#!/usr/bin/env bash
# Provides the servers that the tests start: Redis, RabbitMQ and Prometheus. Safe to repeat; ends at once if nothing
# is missing. As root on Debian and its derivatives it installs missing packages, without starting any service.
# Elsewhere it prints what to install.
#
#   MEHL_SOUP_TEST_REDIS_URL   use this Redis instead, for the tests that do not damage a server
#   MEHL_SOUP_TEST_AMQP_URL    the same, for RabbitMQ
#
# If both are set, nothing is checked. The tests that stop, starve or wipe a server fail if it is missing, and say so.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# Debian's scripts that can run as any user. The one on the path cannot.
readonly RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server

has_redis() { command -v redis-server >/dev/null; }
# The port mapper is part of Erlang. openssl makes the tests' certificates.
has_rabbitmq() { [[ -x $RABBITMQ ]] && command -v epmd >/dev/null && command -v openssl >/dev/null; }
# Changes the clock of a process.
has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; }

# Prometheus scrapes the programs; its promtool checks rules and dashboards.
has_prometheus() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

# Prints the missing packages, one per line.
missing_packages() {
    if ! has_redis; then echo redis-server; fi
    if ! has_rabbitmq; then printf '%s\n' rabbitmq-server openssl; fi
    if ! has_faketime; then echo libfaketime; fi
    if ! has_prometheus; then echo prometheus; fi
}

# Installs packages under a policy that keeps their services from starting. An existing policy is kept.
install() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        # shellcheck disable=SC2064 # the name as it is now
        trap "rm -f '$policy'" EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --no-install-recommends "$@" >&2 || {
        # The lists may be old, or not there at all.
        apt-get update >&2 && apt-get install --yes --no-install-recommends "$@" >&2
    } || status=$?
    return $status
}

if [[ -n ${MEHL_SOUP_TEST_REDIS_URL:-} && -n ${MEHL_SOUP_TEST_AMQP_URL:-} ]]; then
    say "the tests use the Redis and the RabbitMQ of the environment variables"
    exit
fi

mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)); then
    if ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (names of Debian packages). Install Redis 6 or newer, RabbitMQ 3.10 or newer with" \
            "$RABBITMQ (its script folder), and Prometheus 2.40 or newer with promtool, or set MEHL_SOUP_TEST_REDIS_URL and MEHL_SOUP_TEST_AMQP_URL"
    fi
    ((EUID == 0)) || die "missing: ${missing[*]}. As root: apt-get install ${missing[*]};" \
        "or set MEHL_SOUP_TEST_REDIS_URL and MEHL_SOUP_TEST_AMQP_URL"
    say "installing ${missing[*]}"
    install "${missing[@]}" || die "apt-get could not install ${missing[*]} (its own message is above)"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "installed, but still not found: ${missing[*]}"
fi
say "servers for the tests are ready ($(redis-server --version | grep -o 'v=[0-9.]*'), $RABBITMQ)"
