# What `prepare`, `image` and `capture` share: where the cache is and what lies in it.
# shellcheck shell=bash disable=SC2034 # used by those that source it
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
exec </dev/null

cache="${GUESTMETER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/guestmeter}/vm"
vm_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# Name in the cache, version prefix, suite it comes from. One line more is one kernel more.
kernels=(
    "5.10 bullseye-security"
    "6.1 bookworm-security"
    "6.12 bookworm-backports"
    "7.3 trixie-backports"
)

# Everything a guest loads; what a kernel has built in is skipped.
modules=(virtio_pci virtio_console virtio_blk ext4 crc32c_generic crc32c_intel virtio_mem virtio_balloon
    vsock vmw_vsock_virtio_transport vsock_loopback vsock_diag ptp_vmclock)

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Runs one part and prints how long it took.
part() {
    local name=$1 start=$SECONDS
    shift
    "$@" || fail "$name failed"
    printf '%-28s %4d s\n' "$name" $((SECONDS - start)) >&2
}

# Downloads hiccup; the same command again is the cure.
retry() {
    local attempt
    for attempt in 1 2 3; do
        "$@" && return 0
        ((attempt < 3)) || return 1
        echo "retried: $*" >&2
        sleep $((attempt * 3))
    done
}
