# What follows is the same for every job: starts one graphvine worker with what was set above.
# For any POSIX shell, on a node with nothing but that; tar and gzip where the job brings an environment.

gv_fail() { printf 'graphvine: job on %s: %s\n' "$(uname -n)" "$2" >&2; exit "$1"; }
gv_need() { command -v "$1" >/dev/null 2>&1 || gv_fail 70 "there is no $1 on PATH ($PATH)"; }
gv_arrived() { [ -r "$1" ] || gv_fail "$3" "$2 did not arrive: $1"; }
# Batch systems signal rm, too, when they end a job.
gv_clean() {
    [ -z "$gv_waits" ] || kill "$gv_waits" 2>/dev/null
    [ -z "$gv_made" ] || { trap '' TERM INT HUP; cd / && rm -rf "$gv_scratch"; }
}

# Some batch systems set no PATH and no HOME at all.
# One stream of output, in order: some batch systems bring standard error back and forget the rest.
exec >&2
# Others bring those along of where the job was submitted, with directories that are not here.
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
command -v uname >/dev/null 2>&1 || PATH=$PATH:/usr/local/bin:/usr/bin:/bin
export PATH
gv_began=$(date +%s)
gv_made= gv_waits=

# What jobs left that were killed without a word: of the same user, on this node, and their process is gone.
gv_sweep() {
    for gv_place in "$gv_ours".*; do
        gv_left=${gv_place#"$gv_ours".}
        [ -O "$gv_place" ] && ! kill -0 "${gv_left%%.*}" && rm -rf "$gv_place"
    done >/dev/null 2>&1
}

gv_make_scratch() {
    for gv_place in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        gv_ours=$gv_place/graphvine-job-$(uname -n)
        gv_scratch=$(mktemp -d "$gv_ours.$$.XXXXXXXX" 2>/dev/null) && return
    done
    gv_fail 72 "no scratch directory can be made below ${TMPDIR:+$TMPDIR, }/tmp or /var/tmp"
}

# A scratch directory of the job's own. Where it is made here it is removed at the end, and so this shell stays
# and hands signals on; else the worker takes the shell's place.
gv_find_scratch() {
    if [ -z "$gv_scratch" ]; then
        gv_make_scratch
        gv_sweep &
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
    # A signal may come before there is anybody to hand it to; and a child that has not yet put away this shell's
    # traps takes it, and forgets it. So there is a note of it, which the child looks for when it has.
    gv_child= gv_told= gv_note=$gv_scratch/graphvine-told
    trap 'gv_told=1; : >"$gv_note"; [ -z "$gv_child" ] || kill -TERM "$gv_child" 2>/dev/null' TERM INT HUP USR2
    # Grid Engine's warnings, USR2 before it kills and USR1 before it stops a job, go to all of its processes.
    trap '' USR1
    (
        trap - TERM INT HUP EXIT
        trap '' USR2
        [ ! -e "$gv_note" ] || exit 143
        exec "$@"
    ) &
    gv_child=$!
    exec 8>&-
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

# -- what the node keeps ---------------------------------------------------------------------------------------

# The node's cache, in gv_cache, and for the worker in GRAPHVINE_CACHE_DIR: trusted if it is this user's, and nobody
# else can write to it. Where jobs of several people run as one user there is none but the job's own. What is
# there already, home and all, is left as it is for jobs that bring nothing.
gv_find_cache() {
    gv_cache=
    if [ -z "$gv_keeps" ]; then
        GRAPHVINE_CACHE_DIR=$gv_scratch/graphvine-cache
    elif [ -n "${GRAPHVINE_CACHE_DIR:-}" ]; then
        gv_use_cache "$GRAPHVINE_CACHE_DIR"
    elif [ -n "$gv_name" ] && [ "$(id -un 2>/dev/null)" = "$gv_user" ] && gv_use_cache "/tmp/graphvine-$(id -u)"; then
        GRAPHVINE_CACHE_DIR=$gv_cache
        GRAPHVINE_CACHE_MB=${GRAPHVINE_CACHE_MB:-10000}
        export GRAPHVINE_CACHE_MB
    fi
    [ -z "${GRAPHVINE_CACHE_DIR:-}" ] || export GRAPHVINE_CACHE_DIR
}

gv_use_cache() {
    (umask 077 && mkdir -p "$1") 2>/dev/null
    [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -w "$1" ] || return 1
    case $(ls -ld "$1" 2>/dev/null) in d????-??-*) ;; *) return 1 ;; esac
    # Where /tmp is memory, what lies there is memory of the job.
    [ "$(stat -f -c %T "$1" 2>/dev/null)" != tmpfs ] || [ -n "${GRAPHVINE_CACHE_DIR:-}" ] || return 1
    gv_cache=$1
}

# One copy of the environment for all jobs of this user on this node, by the rules at the top of envs/cache.py.
# Descriptor 8 is the lock of who makes an entry, 9 of who uses it: the worker inherits that one. 7 is that of who
# makes the front of an entry: the others wait for no more. Whose worker has to unpack the rest inherits 8, too.
gv_share() {
    [ -n "$gv_cache" ] && command -v flock >/dev/null || return 1
    gv_entry=$gv_cache/$gv_name
    if gv_enter && gv_hold; then
        exec 7>&-
        [ -n "$gv_makes" ] || exec 8>&-
        # Others need not wait for that.
        ! "$gv_prefix/bin/python" -S -c "" || return 0
    fi
    gv_partial= gv_makes=
    exec 7>&- 8>&- 9>&-
    printf 'graphvine: the environment is unpacked for this job alone: %s will not do\n' "$gv_entry"
    return 1
}

gv_enter() {
    # Of what is whole already all may convince themselves at the same time.
    if [ -e "$gv_entry.json" ] && gv_lock 8 "$gv_entry.lock" -s && gv_is_whole; then return; fi
    if [ -n "$gv_front" ]; then
        gv_lock 7 "$gv_entry.front.lock" || return 1
        if ! gv_lock 8 "$gv_entry.lock" -n; then
            [ ! -e "$gv_entry/.graphvine-begun" ] || { gv_partial=1 && return; }
            exec 7>&-
            gv_lock 8 "$gv_entry.lock" || return 1
        fi
    else
        gv_lock 8 "$gv_entry.lock" || return 1
    fi
    gv_is_whole || gv_make
}

# gv_lock DESCRIPTOR FILE [-s | -n]: a lock file that was removed meanwhile is none. Who makes an entry may have been
# stopped: nobody waits for ever.
gv_lock() {
    for gv_try in 1 2 3 4 5 6 7 8 9; do
        touch "$2" && eval "exec $1>>\"\$2\"" || return 1
        flock ${3:-} -w 900 "$1" &
        gv_waits=$!
        wait "$gv_waits" || return 1
        gv_waits=
        [ ! "$2" -ef "/proc/self/fd/$1" ] || return 0
    done
    return 1
}

# Since the node was started; and not so long ago that what tidies up /tmp may have been there.
gv_is_whole() {
    [ -d "$gv_entry" ] && [ -n "$(find "$gv_entry.json" -mtime -7 2>/dev/null)" ] &&
        grep -q "$(cat /proc/sys/kernel/random/boot_id)" "$gv_entry.json"
}

gv_hold() {
    touch "$gv_entry.use" && exec 9>>"$gv_entry.use" && flock -s -n 9 && gv_find_prefix "$gv_entry"
}

# Unpacked beside its place; the environment's own Python then makes it fit for that, and marks it as whole.
gv_make() {
    # What is not whole any more may be in use.
    touch "$gv_entry.use" && exec 9>>"$gv_entry.use" && flock -n 9 || return 1
    gv_clear
    if gv_has_room && (umask 077 && mkdir "$gv_entry.making"); then
        if gv_untar_front "$gv_entry.making"; then
            : >"$gv_entry.making/.graphvine-begun" && mv "$gv_entry.making" "$gv_entry" && gv_makes=8 && return
        elif tar -xzof "$gv_archive" -C "$gv_entry.making" && mv "$gv_entry.making" "$gv_entry" &&
            gv_find_prefix "$gv_entry" &&
            "$gv_prefix/bin/python" -I -m graphvine.envs.adopt "$gv_name" "$gv_cache"; then
            return
        fi
    fi
    gv_clear
    return 1
}

# From that alone a worker starts; it unpacks the rest then.
gv_untar_front() {
    [ -n "$gv_front" ] && head -c "$gv_front" "$gv_archive" | tar -xzof - -C "$1" && [ -e "$1/bin/python" ] && gv_partial=1
}

gv_clear() { rm -rf "$gv_entry.json" "$gv_entry" "$gv_entry.making" "$gv_entry.removing"; }

# An environment is about five times as large as its archive, and it is not the only thing there.
gv_has_room() {
    gv_free_kb=$(df -Pk "$gv_cache" | sed -n '$s/.* \([0-9][0-9]*\)  *[0-9]*% .*/\1/p')
    gv_archive_kb=$(du -Lk "$gv_archive" | sed 's/[^0-9].*//')
    [ "${gv_free_kb:-0}" -gt $((gv_archive_kb * 10)) ]
}

# -- the environment that the job brings, in gv_prefix ---------------------------------------------------------

gv_unpack() {
    gv_arrived "$gv_archive" "the environment" 71
    gv_need tar
    gv_need gzip
    gv_is_shared= gv_partial= gv_makes=
    if [ -n "$gv_name" ] && gv_share; then gv_is_shared=1; else gv_unpack_here; fi
    [ -n "$gv_partial" ] || [ -z "$gv_archive_is_a_copy" ] || rm -f "$gv_archive"
    gv_python=$gv_prefix/bin/python
    # What leads a Python astray, or to packages of another one.
    unset PYTHONHOME PYTHONPATH PYTHONSTARTUP
    PYTHONNOUSERSITE=1
    PATH=$gv_prefix/bin:$PATH
    export PYTHONNOUSERSITE PATH
    [ -n "$gv_is_shared" ] || gv_try_python
    gv_activate
}

gv_unpack_here() {
    gv_own=$gv_scratch/graphvine-environment
    mkdir "$gv_own" && { gv_untar_front "$gv_own" || tar -xzof "$gv_archive" -C "$gv_own"; } ||
        gv_fail 71 "the environment can't be unpacked in $gv_scratch ($(df -Pk "$gv_scratch" | tail -n 1))"
    gv_find_prefix "$gv_own"
}

# At the top, or in the one directory that was packed with its name.
gv_find_prefix() {
    for gv_prefix in "$1" "$1"/*; do
        [ ! -e "$gv_prefix/bin/python" ] || break
    done
}

gv_try_python() {
    command -v "$gv_python" >/dev/null || gv_fail 73 "there is no interpreter $gv_python"
    "$gv_python" -S -c ""
    case $? in
    0) ;;
    126) gv_fail 73 "$gv_python may not be run from there (is it on a file system mounted noexec?)" ;;
    *) gv_fail 73 "$gv_python does not start here" ;;
    esac
}

# conda's scripts are bash's; what they set is taken over.
gv_activate() {
    if [ -z "$gv_is_shared" ] && [ -f "$gv_prefix/bin/conda-unpack" ]; then
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
    [ -z "$gv_token" ] || chmod 600 "$gv_token"
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
    # A little less, so that what is on its way at the end still arrives.
    gv_grace_s=$((${gv_grace_s:-0}))
    [ "$gv_grace_s" = 0 ] || set -- --grace $((gv_grace_s > 10 ? gv_grace_s - 5 : (gv_grace_s + 1) / 2)) "$@"
    # What is left of it: bringing and unpacking took time, too.
    if [ -n "$gv_wall_time_s" ]; then
        gv_left_s=$((gv_wall_time_s - $(date +%s) + gv_began))
        [ "$gv_left_s" -gt 0 ] ||
            gv_fail 75 "$((gv_wall_time_s - gv_left_s)) s went by before the worker could start, of $gv_wall_time_s s"
        # A clock that was set back meanwhile gives nobody more time.
        [ "$gv_left_s" -le "$gv_wall_time_s" ] || gv_left_s=$gv_wall_time_s
        set -- --wall-time "$gv_left_s" "$@"
    fi
    [ -z "$gv_partial" ] || set -- --rest "$gv_archive" "$gv_front" "$gv_prefix" "${gv_is_shared:+$gv_entry}" "$gv_makes" \
        "$gv_archive_is_a_copy" "$@"
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
gv_find_cache
[ -z "$gv_archive" ] || gv_unpack
gv_hide_gpus
gv_credentials
