#!/bin/bash
# Two Ray nodes, n1 and n2, on one machine, loopback only; all gone when this ends.
#   PATH=VENV/bin:$PATH ray_two_nodes.sh FOLDER          (VENV: ddbench's environment with its extra `ray`; root)
#   ray_two_nodes.sh FOLDER second                       starts n2 again, from inside (nsenter -t $(cat FOLDER/main.pid))
# The network namespace has nothing but lo: Ray else binds and announces the machine's outer address. Each node is a pid
# namespace of its own: kill -9 $(cat FOLDER/n2.pid) loses the second with all its processes.
# RAY_TEST_BLIND=FOLDER2: the second node sees that folder empty (a results folder that is not shared).
# FOLDER/ready appears when both nodes are there. Each offers 4 CPUs and 2 GPUs that do not exist.
# Exit status 77: not possible here, with the reason.
set -uo pipefail
dir=$(realpath -m "$1")
not_here() { echo "no two Ray nodes here: $1" >&2; exit 77; }
node() { # NAME BLIND COMMAND…
  exec unshare --pid --fork --kill-child=KILL --uts --mount --mount-proc bash -c '
    hostname "$1"; [ -z "$2" ] || mount -t tmpfs none "$2" || exit; shift 2; exec "$@"' _ "$@"
}
second() {
  node n2 "${RAY_TEST_BLIND:-}" ray start --block --address=127.0.0.1:6379 --node-ip-address=127.0.0.2 \
    --num-cpus=4 --num-gpus=2 --object-store-memory=80000000 >"$dir/n2.log" 2>&1 </dev/null
}
if [ "${2:-}" = second ]; then second; fi
if [ "${2:-}" = inside ]; then
  ip link set lo up
  node n1 "" ray start --head --block --node-ip-address=127.0.0.1 --port=6379 --num-cpus=4 --num-gpus=2 \
    --include-dashboard=false --object-store-memory=80000000 --temp-dir="$dir/t" --disable-usage-stats \
    >"$dir/n1.log" 2>&1 </dev/null &
  echo $! >"$dir/n1.pid"
  for _ in $(seq 600); do ss -ltn | grep -q '127.0.0.1:6379 ' && break; sleep 0.1; done
  sleep 2
  second &
  echo $! >"$dir/n2.pid"
  for _ in $(seq 1200); do # `--block` says so once the node has joined
    grep -qs block "$dir/n2.log" && break
    kill -0 "$(cat "$dir/n2.pid")" || break
    sleep 0.1
  done
  touch "$dir/ready"
  exec sleep infinity
fi
mkdir -p "$dir"
[ "$(id -u)" = 0 ] || not_here 'it needs root'
for program in ray ip ss unshare nsenter; do command -v $program >/dev/null || not_here "no $program"; done
unshare --net --pid --fork --kill-child=KILL --mount --mount-proc --uts true 2>/dev/null || not_here 'no namespaces'
# Tokens are on by default and would be written to the home folder; usage is reported by default.
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled OMP_NUM_THREADS=1
exec unshare --net --fork --pid --kill-child=KILL --mount --mount-proc "$0" "$dir" inside
