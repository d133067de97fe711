# What follows is the same for every job: starts one graphvine worker with what was set above.
# For any POSIX shell, on a node with nothing but that; tar and gzip where the job brings an environment.

gv_fail() { printf 'graphvine: job on %s: %s\n' "$(uname -n)" "$2" >&2; exit "$1"; }
gv_need() { command -v "$1" >/dev/null 2>&1 || gv_fail 70 "there is no $1 on PATH ($PATH)"; }
gv_arrived() { [ -r "$1" ] || gv_fail "$3" "$2 did not arrive: $1"; }
# Batch systems signal rm, too, when they end a job.
gv_clean() { [ -z "$gv_made" ] || { trap '' TERM INT HUP; cd / && rm -rf "$gv_scratch"; }; }

# Some batch systems set no PATH and no HOME at all.
# One stream of output, in order: some batch systems bring standard error back and forget the rest.
exec >&2
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
gv_began=$(date +%s)
gv_made=

# What jobs left that were killed without a word: of the same user, on this node, and their process is gone.
gv_sweep() {
    for gv_place in "$gv_ours".*; do
        gv_left=${gv_place#"$gv_ours".}
        [ -O "$gv_place" ] && ! kill -0 "${gv_left%%.*}" && rm -rf "$gv_place"
    done >/dev/null 2>&1
}

# A scratch directory of the job's own. Where it is made here it is removed at the end, and so this shell stays
# and hands signals on; else the worker takes the shell's place.
gv_find_scratch() {
    if [ -z "$gv_scratch" ]; then
        gv_ours=${TMPDIR:-/tmp}/graphvine-job-$(uname -n)
        gv_sweep &
        gv_scratch=$(mktemp -d "$gv_ours.$$.XXXXXXXX") ||
            gv_fail 72 "no scratch directory can be made below ${TMPDIR:-/tmp}"
        gv_made=1
        trap gv_clean EXIT
        trap 'exit 143' TERM INT HUP
    fi
    [ -d "$gv_scratch" ] && [ -w "$gv_scratch" ] || gv_fail 72 "no scratch directory: $gv_scratch"
    cd "$gv_scratch" || gv_fail 72 "no scratch directory: $gv_scratch"
    TMPDIR=$gv_scratch
    HOME=${HOME:-$gv_scratch}
    export TMPDIR HOME
}

# Where the batch system brings nothing but this script. printf is the shell's own: no process shows the text.
gv_write_connection() {
    gv_connection_file=$gv_scratch/graphvine-connection.json
    (umask 077 && printf '%s\n' "$gv_connection_text" >"$gv_connection_file") ||
        gv_fail 72 "can't write to $gv_scratch"
}

gv_run() {
    [ -n "$gv_made" ] || exec "$@"
    # A signal may come before there is anybody to hand it to.
    gv_child= gv_told=
    trap 'gv_told=1; [ -z "$gv_child" ] || kill -TERM "$gv_child" 2>/dev/null' TERM INT HUP
    "$@" &
    gv_child=$!
    [ -z "$gv_told" ] || kill -TERM "$gv_child" 2>/dev/null
    # A signal ends the first wait; its process is not waited for until it is gone.
    while :; do
        wait "$gv_child"
        gv_code=$?
        [ "$gv_code" -gt 128 ] || break
        kill -0 "$gv_child" 2>/dev/null && continue
        # Either a signal ended it, or one came here, and it has ended since: then its own code is still there.
        wait "$gv_child" 2>/dev/null
        gv_late=$?
        [ "$gv_late" = 127 ] || gv_code=$gv_late
        break
    done
    exit "$gv_code"
}

# The whole script once more, in the image.
gv_enter_container() {
    PATH=$PATH:/cvmfs/oasis.opensciencegrid.org/mis/apptainer/bin
    gv_runner=$(command -v apptainer || command -v singularity) ||
        gv_fail 70 "neither apptainer nor singularity is on PATH ($PATH), to run $gv_image with"
    cp "$gv_script" "$gv_scratch/graphvine-job.sh" || gv_fail 72 "can't write to $gv_scratch"
    set -- --bind "$gv_scratch" --pwd "$gv_scratch"
    for gv_file in "$gv_connection_file" "$gv_archive" "$gv_proxy" "$gv_token"; do
        case $gv_file in
        "" | "$gv_scratch"/*) ;;
        *) set -- "$@" --bind "$(dirname "$gv_file")" ;;
        esac
    done
    [ ! -d /cvmfs ] || set -- "$@" --bind /cvmfs
    [ "$gv_gpus" = 0 ] || set -- --nv "$@"
    [ "$gv_gpus" = 0 ] || [ ! -e /dev/kfd ] || set -- --rocm "$@"
    gv_run "$gv_runner" exec "$@" "$gv_image" /bin/sh "$gv_scratch/graphvine-job.sh" inside "$gv_scratch"
}

# The environment that the job brings, in gv_prefix.
gv_unpack() {
    gv_arrived "$gv_archive" "the environment" 71
    gv_need tar
    gv_need gzip
    gv_prefix=$gv_scratch/graphvine-environment
    mkdir "$gv_prefix" && tar -xzof "$gv_archive" -C "$gv_prefix" ||
        gv_fail 71 "the environment can't be unpacked in $gv_scratch ($(df -Pk "$gv_scratch" | tail -n 1))"
    [ -z "$gv_archive_is_a_copy" ] || rm -f "$gv_archive"
    for gv_place in "$gv_prefix" "$gv_prefix"/*; do
        [ ! -e "$gv_place/bin/python" ] || break
    done
    gv_prefix=$gv_place
    gv_python=$gv_prefix/bin/python
    # What leads a Python astray, or to packages of another one.
    unset PYTHONHOME PYTHONPATH PYTHONSTARTUP
    PYTHONNOUSERSITE=1
    PATH=$gv_prefix/bin:$PATH
    export PYTHONNOUSERSITE PATH
    gv_try_python
    gv_activate
}

gv_try_python() {
    command -v "$gv_python" >/dev/null || gv_fail 73 "there is no interpreter $gv_python"
    "$gv_python" -S -c "" || gv_fail 73 "$gv_python does not start here"
}

# conda's scripts are bash's; what they set is taken over.
gv_activate() {
    if [ -f "$gv_prefix/bin/conda-unpack" ]; then
        "$gv_python" "$gv_prefix/bin/conda-unpack" || gv_fail 71 "conda-unpack failed in $gv_prefix"
    fi
    if [ ! -d "$gv_prefix/conda-meta" ]; then
        VIRTUAL_ENV=$gv_prefix
        export VIRTUAL_ENV
        return
    fi
    CONDA_PREFIX=$gv_prefix
    export CONDA_PREFIX
    for gv_file in "$gv_prefix"/etc/conda/activate.d/*.sh; do
        [ -f "$gv_file" ] && command -v bash >/dev/null || continue
        gv_set=$(bash -c '. "$1" >/dev/null; set -o posix; export -p' bash "$gv_file" </dev/null) && eval "$gv_set"
    done
}

# A job that has no GPU sees none, also where nobody keeps it from those that the node has. HTCondor's way to say
# so is a number that no GPU has; others set no variable.
gv_hide_gpus() {
    gv_said=${CUDA_VISIBLE_DEVICES-}${ROCR_VISIBLE_DEVICES-}${HIP_VISIBLE_DEVICES-}${ZE_AFFINITY_MASK-}
    case $gv_gpus:${_CONDOR_AssignedGPUs:-}:$gv_said in
    *:10000:* | 0:*:) CUDA_VISIBLE_DEVICES= && export CUDA_VISIBLE_DEVICES ;;
    esac
}

gv_credentials() {
    [ -z "$gv_proxy" ] || { X509_USER_PROXY=$gv_proxy && export X509_USER_PROXY; }
    [ -z "$gv_token" ] || { BEARER_TOKEN_FILE=$gv_token && export BEARER_TOKEN_FILE; }
    # HTCondor keeps tokens fresh there, where the submission names a service.
    if [ -z "${BEARER_TOKEN_FILE:-}" ] && [ -n "${_CONDOR_CREDS:-}" ]; then
        for gv_file in "$_CONDOR_CREDS"/*.use; do
            [ ! -r "$gv_file" ] || { BEARER_TOKEN_FILE=$gv_file && export BEARER_TOKEN_FILE; }
        done
    fi
}

gv_start() {
    set +eu # the user's own lines may have set them
    [ -n "$gv_archive" ] || gv_try_python
    [ -z "$gv_job" ] || set -- --job "$gv_job" "$@"
    [ -z "$gv_memory_mb" ] || set -- --memory "$gv_memory_mb" "$@"
    [ -z "$gv_disk_mb" ] || set -- --disk "$gv_disk_mb" "$@"
    # What is left of it: bringing and unpacking took time, too.
    [ -z "$gv_wall_time_s" ] ||
        set -- --wall-time $((gv_wall_time_s - $(date +%s) + gv_began)) "$@"
    gv_run "$gv_python" -m graphvine.worker --connection-file "$gv_connection_file" --workdir "$gv_scratch" "$@"
}

gv_script=$0
if [ "${1:-}" = inside ]; then
    gv_scratch=$2
    gv_image=
    shift 2
fi
gv_find_scratch
[ -z "$gv_connection_text" ] || gv_write_connection
[ -z "$gv_image" ] || gv_enter_container
gv_arrived "$gv_connection_file" "the connection file" 74
[ -z "$gv_archive" ] || gv_unpack
gv_hide_gpus
gv_credentials
