# Starting and stopping virtmgr's processes on a machine without their systemd units; source it.

DATA=/var/lib/virtmgr
AGENT_DATA=/var/lib/virtmgr-agent
AGENT_RUN=/run/virtmgr-agent
PIDS=/run/virtmgr-up
LOGS=/var/log/virtmgr
mkdir -p "$PIDS" "$LOGS"
chmod 750 "$LOGS"

# A pid file holds "PID START": the kernel's start time tells a process from a later one. One that
# has ended and waits to be reaped does not run.
started_at() { # PID
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    read -r -a fields <<<"${stat##*) }"
    [ "${fields[0]}" = Z ] || echo "${fields[19]}"
}

running() { # NAME
    [ -f "$PIDS/$1" ] || return 1
    local pid start
    read -r pid start <"$PIDS/$1"
    [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ]
}

start() { # NAME COMMAND…
    local name=$1
    shift
    setsid "$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
    note "$name" $!
}

note() { # NAME PID
    echo "$2 $(started_at "$2")" >"$PIDS/$1"
}

stop() { # NAME
    if running "$1"; then
        local pid
        read -r pid _ <"$PIDS/$1"
        kill "$pid"
        for _ in $(seq 200); do
            running "$1" || break
            sleep 0.1
        done
        if running "$1"; then kill -9 "$pid"; fi
    fi
    rm -f "$PIDS/$1"
}

wait_for() { # WHAT SECONDS COMMAND…
    local what=$1 seconds=$2
    shift 2
    local deadline=$((SECONDS + seconds))
    while [ $SECONDS -lt $deadline ]; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "$what is not ready after $seconds s" "see the logs in $LOGS"
}

# Ready, and its agent has spoken since the host's last (real or simulated) boot: what is known of
# the workloads is then true.
host_is_ready() {
    local host
    host=$("$VENV/bin/virtmgr" host show local -o json) &&
        grep -q '"state": *"ready"' <<<"$host" &&
        grep -q "\"boot_id\": *\"[0-9a-f-]*-$(cat "$AGENT_RUN/boot-id")\"" <<<"$host"
}

all_run() { # the three of the example
    [ "$("$VENV/bin/virtmgr" list --label demo=three-kinds -o wide | grep -cE '^(app1|sys1|vm1) .* running ')" = 3 ]
}

libvirt_answers() { virsh -q -c qemu:///system uri; }

# What udev does elsewhere: a /dev/kvm that QEMU's user cannot open makes libvirt try QEMU anew at
# each call, which takes seconds.
open_kvm() {
    if [ -c /dev/kvm ] && getent group kvm >/dev/null; then
        chgrp kvm /dev/kvm
        chmod 660 /dev/kvm
    fi
}

start_libvirt() {
    # libvirtd does without virtlogd until it starts a guest
    if [ -f "$PIDS/virtlogd" ] && ! running virtlogd; then start virtlogd virtlogd; fi
    libvirt_answers >/dev/null 2>&1 && return
    if [ -d /run/systemd/system ]; then
        systemctl start libvirtd
    else
        say "starting libvirtd"
        open_kvm
        mkdir -p /run/lock /run/libvirt
        running virtlogd || start virtlogd virtlogd
        start libvirtd libvirtd
    fi
    wait_for libvirtd 20 libvirt_answers
}
