# shellcheck shell=sh disable=SC2034,SC2154,SC2009,SC2030,SC2031
# The processes of a root: which live, how they are stopped and started, and whether they are well. Sourced by lib.sh.

# ---------------------------------------------------------------- processes

table() {   # every living process: pid, state, parent, session (elsewhere than on Linux its group)
    if [ -r /proc/self/stat ]; then
        cat /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9][0-9]*\) (.*) \([A-Za-z]\) \([0-9]*\) [0-9-]* \([0-9-]*\) .*/\1 \2 \3 \4/p'
    else
        ps -axo pid=,state=,ppid=,pgid=
    fi
}

environment_of() {   # the environment of a process, one variable on each line
    if [ -r /proc/self/environ ]; then
        { tr '\000' '\n' <"/proc/$1/environ"; } 2>/dev/null   # it may be gone, and the shell would say so
    else
        ps -Eww -o command= -p "$1" 2>/dev/null | sed 's/ \([A-Z_][A-Z_]*=\)/\
\1/g'
    fi
}

with_mark() {   # pids of processes that have a variable of this name
    if [ -r /proc/self/environ ]; then
        if printf 'a\000b' | grep -qF b 2>/dev/null; then
            grep -lsF "$1=" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'
        elif has strings; then   # busybox's grep sees nothing behind a NUL
            strings -f /proc/[0-9]*/environ 2>/dev/null | sed -n "s|^/proc/\\([0-9]*\\)/environ: $1=.*|\\1|p"
        else
            for one in /proc/[0-9]*; do
                one=${one#/proc/}
                if environment_of "$one" | grep -q "^$1="; then say "$one"; fi
            done
        fi
    else
        ps -axEww -o pid=,command= 2>/dev/null | grep -F " $1=" | sed 's/^ *\([0-9]*\) .*/\1/'
    fi
}

same_directory() { [ -d "$1" ] && [ "$(cd -- "$1" && pwd -P)" = "$root" ]; }

spare() {   # sets $spared: this script, what started it, and deployments, whosever they are
    spared="$$ $(with_mark UPDATER_WORKER | tr '\n' ' ')"
    leaders=
    for file in "$own"/run/*.pid; do leaders="$leaders $(field "$file" pid)"; done
    above=$$ rows=$(table)
    while [ -n "$above" ] && [ "$above" -gt 1 ]; do
        above=$(printf '%s\n' "$rows" | sed -n "s/^ *$above  *[^ ]*  *\([0-9]*\) .*/\1/p" | head -n 1)
        case " $leaders " in *" $above "*) break ;; esac
        spared="$spared $above"
    done
}

# marked: the processes of this root by what their launcher left in their environment: "pid process release"
marked() {
    for pid in $(with_mark UPDATER_PROCESS); do
        case " $spared " in *" $pid "*) continue ;; esac
        variables=$(environment_of "$pid") || continue
        case "
$variables" in *"
UPDATER_WORKER="*) continue ;; esac
        process=$(printf '%s\n' "$variables" | sed -n 's/^UPDATER_PROCESS=//p' | head -n 1)
        release=$(printf '%s\n' "$variables" | sed -n 's/^UPDATER_RELEASE=//p' | head -n 1)
        named=$(printf '%s\n' "$variables" | sed -n 's/^UPDATER_ROOT=//p' | head -n 1)
        is_name "$process" && is_name "$release" && lives "$(identity "$pid")" || continue
        # Where it runs tells best, since that moves with a root and is not copied with it; then the path that was its root's.
        runs_in=$(readlink "/proc/$pid/cwd" 2>/dev/null) || runs_in=
        case ${runs_in% (deleted)}/ in
            "$root/releases/$release/"*) ;;
            */releases/"$release"/*)
                other=${runs_in%%/releases/"$release"*}
                [ ! -f "$other/updater.toml" ] && same_directory "$named" || continue
                ;;
            *) same_directory "$named" || continue ;;
        esac
        say "$pid $process $release"
    done
}

# living: every process of this root, leaders first by their pid files: "pid process release"
living() {
    [ -n "${spared-}" ] || spare
    for file in "$own"/run/*.pid; do
        [ -f "$file" ] || continue
        one=$(recorded "$file") || continue
        process=${file##*/} process=${process%.pid}
        say "${one%%:*} $process $(field "$file" release)"
    done
    marked
}

# family PID...: these, their sessions and everything below them, without what is spared and what is below that only
family() {
    table | awk -v tops="$*" -v never="$spared" '
        BEGIN { n = split(tops, top, " "); for (i = 1; i <= n; i++) { taken[top[i]] = 1; leader[top[i]] = 1 }
                n = split(never, no, " "); for (i = 1; i <= n; i++) spared[no[i]] = 1 }
        $2 !~ /^[ZX]/ { parent[$1] = $3; session[$1] = $4 }
        END {
            do {
                more = 0
                for (pid in parent)
                    if (!(pid in taken) && !(pid in spared) && ((parent[pid] in taken) || (session[pid] in leader))) {
                        taken[pid] = 1; more = 1
                    }
            } while (more)
            for (pid in taken) if ((pid in parent) && !(pid in spared)) print pid
        }'
}

# gather [RELEASE]: sets $members, the identities of everything that belongs to the root (and runs from that release), and
# $leads, those of the leaders
gather() {
    members='' leads='' tops=''
    for pid in $(living | while read -r pid process release; do
        if [ -z "${1-}" ] || [ "$release" = "$1" ]; then say "$pid"; fi
    done | sort -u); do
        case " $spared " in *" $pid "*) ;; *) tops="$tops $pid" ;; esac
    done
    [ -n "$tops" ] || return 0
    # shellcheck disable=SC2086
    for pid in $(family $tops); do
        one=$(identity "$pid") && members="$members $one"
    done
    for file in "$own"/run/*.pid; do
        one=$(recorded "$file") || continue
        case " $members " in *" $one "*) leads="$leads $one" ;; esac
    done
}

# launcher_says RELEASE PROCESS KEY: the words behind a comment of a launcher
launcher_says() { sed -n "s/^# $3: //p" "$own/launchers/$1/$2" 2>/dev/null; }

note_stopping() {   # noted before and after the polite signal, as updater does: nobody asks twice
    { sed '/^stopping=/d' "$1"; say "stopping=$2"; } >"$1.$$" 2>/dev/null && mv -f "$1.$$" "$1" 2>/dev/null || rm -f "$1.$$"
}

# stop_processes [RELEASE]: politely, then firmly, everything; fails if something is still there, or is another user's
stop_processes() {
    of_release=${1-}
    spare
    gather "${1-}"
    [ -n "$members" ] || { forget_dead; return 0; }
    for one in $leads; do
        kill -0 "${one%%:*}" 2>/dev/null || { problem "pid ${one%%:*} belongs to another user, and you may not end it"; return 1; }
    done
    patience=1
    for file in "$own"/run/*.pid; do
        one=$(recorded "$file") || continue
        case " $leads " in *" $one "*) ;; *) continue ;; esac
        process=${file##*/} process=${process%.pid}
        # shellcheck disable=SC2046
        set -- $(launcher_says "$(field "$file" release)" "$process" stop)
        case ${2-} in '' | *[!0-9.]*) seconds=20 ;; *) seconds=${2%%.*} ;; esac
        [ "${seconds:-1}" -le "$patience" ] || patience=$seconds
        if [ "$(field "$file" stopping)" != sent ]; then
            note_stopping "$file" asked
            lives "$one" && kill -s "${1:-TERM}" "${one%%:*}" 2>/dev/null
            note_stopping "$file" sent
        fi
    done
    deadline=$(($(clock) + patience + 1))
    # shellcheck disable=SC2086
    while any_lives $leads && [ "$(clock)" -lt "$deadline" ]; do nap; done
    for one in $members; do   # what a leader left behind is asked in its turn
        case " $leads " in *" $one "*) continue ;; esac
        lives "$one" && kill -TERM "${one%%:*}" 2>/dev/null
    done
    # shellcheck disable=SC2086
    while any_lives $members && [ "$(clock)" -lt "$deadline" ]; do nap; done
    kill_members "$of_release"
}

kill_members() {   # kill_members [RELEASE]: what is killed may just have started another
    tries=0
    while :; do
        left=
        for one in $members; do
            if lives "$one" && kill -0 "${one%%:*}" 2>/dev/null; then left="$left $one"; fi
        done
        gather "${1-}"
        for one in $members; do
            case " $left " in *" $one "*) ;; *) left="$left $one" ;; esac
        done
        members=$left
        [ -n "$left" ] || { forget_dead; return 0; }
        [ $tries -lt 50 ] || { problem "still there after SIGKILL: pid$(for one in $left; do printf ' %s' "${one%%:*}"; done)"; return 1; }
        for one in $left; do lives "$one" && kill -9 "${one%%:*}" 2>/dev/null; done
        tries=$((tries + 1))
        nap
    done
}

forget_dead() {   # pid files that name nothing that lives
    for file in "$own"/run/*.pid; do
        [ -f "$file" ] || continue
        recorded "$file" >/dev/null || rm -f "$file"
    done
}

# names_of RELEASE: its processes: those that have a launcher and that the configuration it last ran with names
names_of() {
    bound=$own/configurations/$1.toml listed=
    if [ -f "$bound" ]; then listed=$(sed -n '1s/^#.*"processes": \[\(.*\)\].*$/,\1,/p' "$bound"); fi   # whatever form TOML has for them
    for file in "$own/launchers/$1"/*; do
        name=${file##*/}
        [ -f "$file" ] && is_name "$name" || continue
        if [ -n "$listed" ]; then
            case $listed in *"\"$name\""*) say "$name" ;; esac
            continue
        fi
        if [ -f "$bound" ] && ! grep -q "^[[:space:]]*\[\{1,2\}processes\.[\"']\{0,1\}${name}[]\"'.]" "$bound"; then continue; fi
        say "$name"
    done
}

# detach COMMAND...: in a session of its own, where it hears every signal; what a plain `&` starts ignores SIGINT for ever
detach() {
    if has perl; then
        (
            outside
            exec perl -e 'use POSIX; $SIG{$_} = "DEFAULT" for qw(INT QUIT HUP TERM PIPE); POSIX::setsid(); exec { $ARGV[0] } @ARGV; exit 127' "$@" </dev/null >/dev/null 8>&- 9>&-
        ) &
    elif has setsid; then
        # without a `&`: the first leads a group, so the second forks, and its parent does not wait
        (outside; setsid setsid "$@" </dev/null >/dev/null 8>&- 9>&-)
    else
        (outside; exec nohup "$@" </dev/null >/dev/null 8>&- 9>&-) &
    fi
}

# start_process RELEASE NAME: through its launcher; fails, and says what it wrote, if it is not there afterwards
start_process() {
    launcher=$own/launchers/$1/$2 file=$own/run/$2.pid
    if one=$(recorded "$file") && [ "$(field "$file" release)" = "$1" ] && [ -z "$(field "$file" stopping)" ]; then return 0; fi
    rm -f "$file"
    detach /bin/sh "$launcher"
    deadline=$(($(clock) + 15))
    while [ "$(clock)" -lt "$deadline" ]; do
        came=0
        if [ -f "$file" ]; then came=1; fi   # asked first: it may come right after the next line
        if one=$(recorded "$file") && [ "$(field "$file" release)" = "$1" ]; then return 0; fi
        [ $came = 0 ] || break   # it was there, and is not any more
        nap
    done
    problem "$2 of $1 did not start"
    evidence "$2"
    return 1
}

evidence() {   # the last lines that a process wrote since its last start
    [ -f "$logs/$1.log" ] || return 0
    detail "last lines of shared/logs/$1.log:"
    awk '/^--- started / { n = 0; next } { line[++n] = $0 } END { for (i = n > 12 ? n - 11 : 1; i <= n; i++) print "    " line[i] }' "$logs/$1.log" | plainly >&2
}

# ---------------------------------------------------------------- health

# probe_http URL TIMEOUT [TEXT]: prints the status, and " without" behind it where TEXT is not in the answer; fails without a tool (2).
# As for updater a certificate proves nothing here, and no redirect is followed
probe_http() {
    has curl || has wget || return 2
    {
        if has curl; then   # by options on its standard input: an address may hold a password, which the list of processes would show
            printf 'url = "%s"\n' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')" |
                curl -q -sgk -m "$2" --noproxy '*' -w '\n%{http_code}' -K -
        else
            no_check=
            case $1 in https:*) no_check=--no-check-certificate ;; esac
            unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy
            # shellcheck disable=SC2086
            wget -q -T "$2" $no_check -O - "$1" 2>/dev/null
            case $? in 0) printf '\n200' ;; 12[67] | 13? | 14? | 15?) printf '\nnone' ;; *) printf '\n000' ;; esac   # one that crashes says nothing of the application
        fi
    } | tr -d '\000' | WANTED=${3-} awk '
        NR > 1 && length(body) < 2000 { body = body held "\n" }
        { held = $0 }
        END { print held (ENVIRON["WANTED"] == "" || index(substr(body, 1, 2000), ENVIRON["WANTED"]) ? "" : " without") }'
}

probe_tcp() {   # HOST PORT TIMEOUT
    if has nc; then
        told=$(nc -z -w "$3" "$1" "$2" </dev/null 2>&1) && return 0
        case $told in *sage:* | *ption*) ;; *) return 1 ;; esac   # some have no -z, and that says nothing of the application
    fi
    has perl || return 2
    perl -e 'use IO::Socket; exit(IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => $ARGV[2]) ? 0 : 1)' "$1" "$2" "$3"
}

# is_fresh FILE SECONDS: was it written within so many seconds, and since the process $name was started?
is_fresh() {
    [ -n "$(find -L "$1" -prune -newer "$own/run/$name.pid" 2>/dev/null)" ] || return 1   # what the one before wrote does not count
    if wrote=$(stat -L -c %Y "$1" 2>/dev/null) || wrote=$(stat -L -f %m "$1" 2>/dev/null); then
        [ $(($(clock) - wrote)) -le $(($2 + 1)) ]
    else   # to the minute; -mmin is not in POSIX, but GNU, BSD and busybox have it
        [ -n "$(find -L "$1" -prune -mmin "-$((($2 + 59) / 60 + 1))" 2>/dev/null)" ]
    fi
}

# shown_url URL: for people and records, without what may be secret in it
shown_url() { printf '%s' "$1" | sed 's|://[^/?#]*@|://***@|; s|[?#].*|?***|'; }

# command_probe WORDS: as updater asks it: in the directory and with the environment of the process $name; call it in a subshell
command_probe() {
    outside
    eval "set -- $(launcher_says "${release##*/}" "$name" cwd)"
    cd -- "$release/${1:-.}" || exit 1
    PATH=$release/.venv/bin:$PATH UPDATER_ROOT=$root UPDATER_SHARED=$root/shared UPDATER_PROCESS=$name UPDATER_RELEASE=${release##*/}
    export PATH UPDATER_ROOT UPDATER_SHARED UPDATER_PROCESS UPDATER_RELEASE
    while IFS= read -r variable; do
        [ -n "$variable" ] || continue
        eval "set -- $variable"
        export "$1=$2"
    done <<VARIABLES
$(launcher_says "${release##*/}" "$name" env)
VARIABLES
    eval "set -- $words"
    shift 2
    limited "$seconds" "$@"
}

# A probe is one line of a launcher, "# probe: TYPE TIMEOUT WORDS", quoted for the shell.
# probe RELEASE LINE: 0 passes, 1 fails ($why says how), 2 cannot be asked from here
probe() {
    release=$root/releases/$1 words=$2
    eval "set -- $words" || return 2
    type=$1 seconds=${2%%.*}
    [ "${seconds:-0}" -ge 1 ] || seconds=1
    shift 2
    case $type in
        alive) return 0 ;;
        http)
            status=$(probe_http "$1" "$seconds" "${3-}") || return 2
            case $status in none*) return 2 ;; esac
            # "2xx" stands for every status that begins so
            # shellcheck disable=SC2254
            case $status in $(printf '%s' "${2:-2xx}" | tr x '?')) return 0 ;; esac
            case $status in 000* | '') status=nothing ;; *' without') status="$status what it must hold" ;; esac
            why="$(shown_url "$1") answers $status"
            return 1
            ;;
        tcp)
            probe_tcp "$1" "$2" "$seconds"
            case $? in 0) return 0 ;; 2) return 2 ;; esac
            why="nothing listens on $1 port $2"
            return 1
            ;;
        file)
            case $1 in /*) path=$1 ;; *) path=$root/$1 ;; esac
            if is_fresh "$path" "${2%%.*}"; then return 0; fi
            why="$path is not written"
            return 1
            ;;
        command)
            if (command_probe "$@") </dev/null >/dev/null 2>&1 8>&- 9>&-; then return 0; fi
            why="$* fails"
            return 1
            ;;
    esac
    return 2
}

# healthy_once RELEASE: every process, or those in $only, lives and every probe passes now; else $why says what does not
healthy_once() {
    unasked=
    for name in ${only:-$(names_of "$1")}; do
        file=$own/run/$name.pid
        if ! recorded "$file" >/dev/null || [ "$(field "$file" release)" != "$1" ]; then
            why="$name does not run" who=$name
            return 1
        fi
        probes=$(launcher_says "$1" "$name" probe)
        while read -r line; do
            [ -n "$line" ] || continue
            probe "$1" "$line"
            case $? in
                1) why="$name: $why" who=$name; return 1 ;;
                2) unasked="$unasked $name" ;;
            esac
        done <<PROBES
$probes
PROBES
    done
}

# wait_healthy RELEASE SECONDS: twice in a row within that time
wait_healthy() {
    deadline=$(($(clock) + $2)) passed=0 why=''
    while [ $passed -lt 2 ]; do
        if healthy_once "$1"; then passed=$((passed + 1)); else passed=0; fi
        [ $passed -lt 2 ] || break
        [ "$(clock)" -lt "$deadline" ] || return 1
        sleep 1
    done
    [ -z "$unasked" ] || warn "no tool here asks the probes of$unasked: only that they run is known"
}
