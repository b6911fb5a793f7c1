#!/usr/bin/env bash
# Sees to it that the tests have the servers that they start for themselves: Redis, RabbitMQ and Prometheus. Safe to repeat; when
# there is nothing to do it ends at once. On Debian and its kin, and as root, it installs what is missing, without
# starting any service; elsewhere it says what to install.
#
#   MEHL_SOUP_TEST_REDIS_URL   a Redis to be used instead, for the tests that do a server no harm
#   MEHL_SOUP_TEST_AMQP_URL    the same for RabbitMQ
#
# With both set nothing is looked for: the tests that stop, starve or wipe a server then fail where it is missing, and
# say so.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# Debian's scripts that do not insist on a user of their own, as the one on the path does.
readonly RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server

has_redis() { command -v redis-server >/dev/null; }
# Its port mapper is a program of Erlang's; the tests' certificates are made by openssl.
has_rabbitmq() { [[ -x $RABBITMQ ]] && command -v epmd >/dev/null && command -v openssl >/dev/null; }
# Gives a process another time of day.
has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; }

# Prometheus reads what the programs tell; its promtool reads rules and dashboards.
has_prometheus() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

# Prints the packages that are missing, one a line.
missing_packages() {
    if ! has_redis; then echo redis-server; fi
    if ! has_rabbitmq; then printf '%s\n' rabbitmq-server openssl; fi
    if ! has_faketime; then echo libfaketime; fi
    if ! has_prometheus; then echo prometheus; fi
}

# Installs packages while a policy forbids their services to start. One that is there already stays as it is.
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
    say "the tests use the Redis and the RabbitMQ that the environment names"
    exit
fi

mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)); then
    if ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (Debian's names). Install Redis 6 or newer, RabbitMQ 3.10 or newer with" \
            "$RABBITMQ (its folder of scripts), and Prometheus 2.40 or newer with promtool, or set MEHL_SOUP_TEST_REDIS_URL and MEHL_SOUP_TEST_AMQP_URL"
    fi
    ((EUID == 0)) || die "missing: ${missing[*]}. As root: apt-get install ${missing[*]};" \
        "or set MEHL_SOUP_TEST_REDIS_URL and MEHL_SOUP_TEST_AMQP_URL"
    say "installing ${missing[*]}"
    install "${missing[@]}" || die "apt-get could not install ${missing[*]} (its own message is above)"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "installed, and yet not found: ${missing[*]}"
fi
say "servers for the tests are ready ($(redis-server --version | grep -o 'v=[0-9.]*'), $RABBITMQ)"
