#!/bin/bash
# A throw-away Slurm on one machine: root, no systemd, loopback only, everything under one folder.
#   slurm_up.sh FOLDER [NODES=2] [CPUS_PER_NODE=2] [GPUS_PER_NODE=2]
# then export SLURM_CONF=FOLDER/slurm.conf; sinfo; sbatch …; stop it with slurm_down.sh FOLDER.
# FOLDER has no blanks or quotes (slurm.conf cannot hold them) and a short path. The nodes n1, n2, … live in pid, mount and
# host-name namespaces of their own (slurm_node.sh); their GPUs are links to /dev/null, enough for --gres and
# CUDA_VISIBLE_DEVICES. More lines of slurm.conf: SLURM_TEST_EXTRA; more arguments of slurmd: SLURM_TEST_SLURMD.
# Needs: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client   (Debian 12: Slurm 22.05; with them comes
# munge, which is not used: this build has auth/none). Exit status 77: not possible here, with the reason.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "$1"); nodes=${2:-2}; cpus=${3:-2}; gpus=${4:-2}
not_here() { echo "no Slurm here: $1" >&2; exit 77; }
[ "$(id -u)" = 0 ] || not_here "it needs root"
for program in slurmctld slurmd sbatch unshare nsenter python3; do command -v $program >/dev/null || not_here "no $program"; done
unshare --pid --fork --mount --mount-proc --uts true 2>/dev/null || not_here "no namespaces"
case $dir in *[[:space:]\'\"]*) echo "$dir: blanks and quotes do not go into slurm.conf" >&2; exit 2 ;; esac
if [ -e "$dir/pids" ]; then echo "$dir: a Slurm was started there; slurm_down.sh $dir first" >&2; exit 2; fi
mkdir -p "$dir"/{state,log,dev}
host=$(hostname -s)

# Free ports: the kernel hands out distinct ones while all are held open at once.
read -r ctl_port ports < <(python3 - "$nodes" <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]) + 1)]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
)
ports=($ports)

cat >"$dir/slurm.conf" <<CONF
ClusterName=t
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctl_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# Without it a requeued job waits for two minutes.
AuthInfo=cred_expire=5
# With auth/none whoever reaches a daemon runs jobs as root: loopback only.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
# No cgroups: memory is watched by polling, a job over it is killed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
# A lost node is noticed soon, a job is killed soon, and the scheduler looks every second.
SlurmdTimeout=5
SlurmctldTimeout=10
KillWait=2
CompleteWait=0
MinJobAge=300
MaxArraySize=${SLURM_TEST_ARRAY:-20001}
MaxJobCount=30000
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=1000,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=500
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
CONF
[ -z "${SLURM_TEST_EXTRA:-}" ] || printf '%s\n' "$SLURM_TEST_EXTRA" >>"$dir/slurm.conf"
: >"$dir/gres.conf"
for ((i = 1; i <= nodes; i++)); do
  gres=""
  if ((gpus > 0)); then
    gres=" Gres=gpu:$gpus"
    for ((g = 0; g < gpus; g++)); do ln -sf /dev/null "$dir/dev/n$i-gpu$g"; done
    echo "NodeName=n$i Name=gpu File=$dir/dev/n$i-gpu[0-$((gpus - 1))]" >>"$dir/gres.conf"
  fi
  # RealMemory is what is granted, not what is there: the nodes of one machine may add up to more than it has.
  echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[i-1]} CPUs=$cpus RealMemory=4000$gres State=UNKNOWN" \
    >>"$dir/slurm.conf"
done
cat >>"$dir/slurm.conf" <<CONF
PartitionName=main Nodes=ALL Default=YES MaxTime=01:00:00 DefaultTime=00:10:00 PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=urgent Nodes=ALL MaxTime=01:00:00 PriorityTier=10 PreemptMode=OFF State=UP
CONF
# Loopback only needs the nodes' names resolved; slurm_node.sh binds this file over /etc/hosts inside each node.
cp /etc/hosts "$dir/hosts"
for ((i = 1; i <= nodes; i++)); do echo "127.0.0.1 n$i" >>"$dir/hosts"; done

export SLURM_CONF="$dir/slurm.conf"
slurmctld -D -f "$SLURM_CONF" >"$dir/log/slurmctld.out" 2>&1 </dev/null &
echo $! >"$dir/pids"
for ((i = 1; i <= nodes; i++)); do "$here/slurm_node.sh" "$dir" up "n$i"; done
for ((t = 0; t < 300; t++)); do
  [ "$(sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l)" = "$nodes" ] && exit 0
  sleep 0.1
done
echo "Slurm did not come up within 30 s; see $dir/log" >&2
"$here/slurm_down.sh" "$dir"
exit 1
