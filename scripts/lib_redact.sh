# shellcheck shell=sh disable=SC2154,SC2016
# Blanks secrets out of text that leaves this machine, as updater/redaction.py does; when in doubt the rest of a line. Sourced after
# lib.sh and lib_checks.sh.
#
# Two ways together: what stands under the name of a secret goes, and that value wherever else it appears; and what has the form of
# a secret goes even if nobody told that it is one. One awk program does both: with COLLECT=1 it prints what it would blank.

redactor='
BEGIN {
    collect = ENVIRON["COLLECT"] == "1"; root = ENVIRON["REDACT_ROOT"]; known = !collect; n = 0; width = 4000; indent = -1
    for (i = 1; i < 256; i++) ord[sprintf("%c", i)] = i
    secret = "token|secret|passw|passphrase|phrase|pwd|api_?key|private|credential|auth|cookie|session|dsn|salt|signature|webhook" \
        "|mnemonic|seed|access_?key|(^|[_.-])(key|pass|pin|pw)s?$|^urls$"
}

known && $0 == "\001" { known = 0; sort(); next }
known { if (!($0 in seen)) { seen[$0] = 1; value[++n] = $0 } next }

/^# >>> / { reset(); toml = $3 == "toml"; if (!collect) print; next }   # another file begins: nothing goes on from the last one

{
    line = $0
    if (collect) { values(line); next }
    if (length(line) > 65536) line = cut(substr(line, 1, 65536))
    for (i = 1; i <= n; i++) line = without(line, value[i], "***")
    if (length(line) > width) line = cut(substr(line, 1, width)) " ... (cut)"
    if (root != "") line = without(line, root, "\002")
    line = values(headers(words(urls(forms(line)))))
    if (root != "") line = without(line, "\002", root)
    print line
}

function reset() { pem = 0; body = 0; multi = ""; depth = 0; quoted = ""; indent = -1; dumps = 0; inside = 0 }
function blank(text) { if (collect) emit(text); return text ~ /^[ \t]*$/ ? text : "***" }

function without(line, what, instead,   out, at) {
    out = ""
    while ((at = index(line, what))) { out = out substr(line, 1, at - 1) instead; line = substr(line, at + length(what)) }
    return out line
}

function cut(line) { sub(/[A-Za-z0-9+\/=_.-]+$/, "", line); return line }   # no half of a word, which nothing would know

function sort(   i, j, it) {   # the longest first
    for (i = 2; i <= n; i++) {
        it = value[i]
        for (j = i - 1; j > 0 && length(value[j]) < length(it); j--) value[j + 1] = value[j]
        value[j + 1] = it
    }
}

# ---- with COLLECT: every form in which a value may appear elsewhere

function emit(text,   inner, i, piece) {
    gsub(/^[ \t]+|[ \t]+$/, "", text)
    tell(text)
    inner = text
    i = text ~ /^["\047]/ ? closing(text, substr(text, 1, 1)) : 0
    if (i) inner = substr(text, 1, i)   # a # between quotes begins no comment
    else { sub(/[ \t]+[#;].*$/, "", inner); sub(/[,;]+$/, "", inner) }
    tell(inner)
    if (inner ~ /^- /) { inner = substr(inner, 3); emit(inner) }
    if (inner ~ /^".*"$/ || inner ~ /^\047.*\047$/) {
        inner = substr(inner, 2, length(inner) - 2)
        tell(inner)
        if (index(inner, "\\")) { gsub(/\\"/, "\"", inner); gsub(/\\\\/, "\\", inner); tell(inner) }
    }
    if (match(inner, /:\/\//)) {
        piece = substr(inner, RSTART + 3)
        while (match(piece, /[^\/?&=@:#,"\047 \t]+/)) {
            if (RLENGTH >= 12) tell(substr(piece, RSTART, RLENGTH))
            piece = substr(piece, RSTART + RLENGTH)
        }
    }
    if (text ~ /^[[{]/) {   # what a list holds, one by one
        piece = text
        while (match(piece, /"[^"]*"|\047[^\047]*\047/)) { i = substr(piece, RSTART + 1, RLENGTH - 2); piece = substr(piece, RSTART + RLENGTH); tell(i) }
    }
}

function tell(text,   other) {
    if (length(text) < 4 || tolower(text) ~ /^(true|false|null|none|yes)$/ || text !~ /[^*]/) return
    print text
    other = text
    if (gsub(/\\/, "\\\\", other) + gsub(/"/, "\\\"", other)) print other
    other = encoded(text)
    if (other != text) { print other; gsub(/%20/, "+", other); print other }
}

function encoded(text,   out, i, c) {
    if (text !~ /[^A-Za-z0-9_.~-]/ || length(text) > 400) return text
    out = ""
    for (i = 1; i <= length(text); i++) { c = substr(text, i, 1); out = out (c ~ /[A-Za-z0-9_.~-]/ ? c : sprintf("%%%02X", ord[c])) }
    return out
}

# ---- what has the form of a secret

function forms(line) {
    if (line ~ /-----BEGIN [A-Z ]*PRIVATE KEY-----/) {
        pem = line !~ /-----END [A-Z ]*PRIVATE KEY-----/
        sub(/-----BEGIN [A-Z ]*PRIVATE KEY-----.*/, "***", line)
    } else if (pem) {
        if (line ~ /-----END /) pem = 0
        return "***"
    }
    if (body && line ~ /^[A-Za-z0-9+\/=]+[ \t]*$/) return "***"   # the short last line of a key whose begin was cut off
    body = line ~ /^[A-Za-z0-9+\/=]+[ \t]*$/ && length(line) >= 40
    gsub(/gh[pousr]_[A-Za-z0-9]+|github_pat_[A-Za-z0-9_]+|glpat-[A-Za-z0-9_-]+|xox[abprs]-[A-Za-z0-9-]+/, "***", line)
    gsub(/[spr]k[-_](live|test|proj|ant)[-_][A-Za-z0-9_-]+|AKIA[0-9A-Z]+|AIza[0-9A-Za-z_-]+|eyJ[A-Za-z0-9_.-]+/, "***", line)
    gsub(/[0-9][0-9][0-9][0-9][0-9][0-9][0-9]+:[A-Za-z0-9_-][A-Za-z0-9_-][A-Za-z0-9_-][A-Za-z0-9_-][A-Za-z0-9_-][A-Za-z0-9_-][A-Za-z0-9_-][A-Za-z0-9_-]+/, "***", line)
    return line
}

function urls(line,   out, it, scheme, at, i) {
    out = ""
    while (match(line, /[A-Za-z][A-Za-z0-9+.-]*:\/\/[^ \t"\047<>]*/)) {
        it = substr(line, RSTART, RLENGTH); out = out substr(line, 1, RSTART - 1); line = substr(line, RSTART + RLENGTH)
        i = index(it, "://"); scheme = substr(it, 1, i + 2); it = substr(it, i + 3)
        at = 0
        for (i = 1; i <= length(it); i++) if (substr(it, i, 1) == "@") at = i
        if (at) it = "***" substr(it, at)
        if (tolower(scheme) !~ /^(https?|wss?|s?ftp|file|git|ssh|tcp|udp|sqlite|postgres(ql)?|mysql|mariadb|redis|amqp):/) it = "***"
        else if (tolower(it) ~ /hook|\/bot[0-9]/) sub(/\/.*/, "/***", it)
        out = out scheme it
    }
    return out line
}

function words(line,   out, it) {   # long ones of hex or base64; a path is none
    out = ""
    while (match(line, /[A-Za-z0-9+\/=_-]+/)) {
        it = substr(line, RSTART, RLENGTH); out = out substr(line, 1, RSTART - 1); line = substr(line, RSTART + RLENGTH)
        out = out (is_long_secret(it) ? "***" : it)
    }
    return out line
}

function is_long_secret(it,   i, kind, last, turns, piece) {
    if (length(it) < 32) return 0
    if (it !~ /\//) { if (it ~ /[0-9]/) return 1 }
    else {
        piece = it
        while (match(piece, /[^\/]+/)) {
            if (RLENGTH >= 32 && substr(piece, RSTART, RLENGTH) ~ /[0-9]/) return 1
            piece = substr(piece, RSTART + RLENGTH)
        }
    }
    last = ""; turns = 0
    for (i = 1; i <= length(it); i++) {   # chance turns more often between small, capital and digit than words do
        kind = substr(it, i, 1); kind = kind ~ /[a-z]/ ? "a" : kind ~ /[A-Z]/ ? "A" : kind ~ /[0-9]/ ? "0" : last
        if (kind != last && last != "") turns++
        last = kind
    }
    return turns * 3 > length(it)
}

function headers(line,   out, it) {
    out = ""
    while (match(tolower(line), /(bearer|basic)[ \t]+[a-z0-9._~+\/=-]+/)) {
        it = substr(line, RSTART, RLENGTH); out = out substr(line, 1, RSTART - 1); line = substr(line, RSTART + RLENGTH)
        if (length(it) >= 14) sub(/[ \t].*/, " ***", it)
        out = out it
    }
    line = out line; out = ""
    if (match(line, /(^|[[ \t"\047,])(-u|--user)["\047]?[ \t,=]+["\047]?[^ \t"\047:]+:/)) return substr(line, 1, RSTART + RLENGTH - 1) "***"
    while (match(line, /--[A-Za-z][A-Za-z0-9_-]*["\047]?[ \t,]+["\047]?/)) {
        it = substr(line, RSTART + 2, RLENGTH - 2); out = out substr(line, 1, RSTART + RLENGTH - 1); line = substr(line, RSTART + RLENGTH)
        sub(/[^A-Za-z0-9_-].*/, "", it)
        if (is_secret(it) && line !~ /^-/) return out "***"
    }
    return out line
}

# ---- what stands under the name of a secret, in TOML, YAML, JSON, INI, .env and logs

function is_secret(name) { return tolower(name) ~ secret }
function lead(line) { match(line, /^[ \t]*/); return RLENGTH }

function balance(text,   open, shut) { open = gsub(/[[{(]/, "", text); shut = gsub(/[]})]/, "", text); return open > shut ? open - shut : 0 }

function closing(text, mark,   i, c) {   # where the quoted text ends that begins at the first character; 0 if not on this line
    for (i = 2; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "\\" && mark == "\"") i++
        else if (c == mark) return i
    }
    return 0
}

function environment(line,   at) {   # of a configuration: values of env are none of the report; those of dumps are all secret
    at = 0
    if (line ~ /^[ \t]*\[/) { dumps = line ~ /dumps/; inside = line ~ /env[ \t"\047]*\]/; return 0 }
    if (inside) at = index(line, "=")
    else if (match(line, /(^|[ \t.{,"\047])env["\047]?[ \t]*[.=][ \t]*/) && line !~ /^[ \t]*#/) at = RSTART + RLENGTH - 1
    if (at && collect && dumps) emit("[" substr(line, at + 1))
    return collect ? 0 : at
}

function goes_on(text, mark) { multi = mark; left = 200; return blank(text) }

function values(line,   whole, out, token, name, mark, at, after) {
    whole = line; out = ""
    if ((multi != "" || depth || quoted != "") && --left < 0) reset()
    if (multi != "") { if (index(line, multi)) multi = ""; return blank(line) }
    if (quoted != "") { if (index(line, quoted)) quoted = ""; return blank(line) }
    if (depth) {
        name = line; at = gsub(/[]})]/, "", name); depth += balance(line) - (at && !balance(line) ? at : 0)
        if (depth < 0) depth = 0
        return line ~ /^[ \t]*[]}),]*[ \t]*$/ ? line : blank(line)
    }
    if (indent >= 0 && line !~ /^[ \t]*$/) {
        if (lead(line) > indent || (lead(line) == indent && line ~ /^[ \t]*- /)) return blank(line)
        indent = -1
    }
    if (toml && (at = environment(line))) {
        after = substr(line, at + 1)
        if (after ~ /^[ \t]*("""|\047\047\047)/) { multi = substr(after, match(after, /["\047]/), 3); left = 200; if (index(substr(after, RSTART + 3), multi)) multi = "" }
        else { depth = balance(after); left = 200 }
        line = substr(line, 1, at)
        sub(/[ \t]*$/, "", line)
        return line " ***"
    }
    while (match(line, /[A-Za-z0-9_][A-Za-z0-9_.-]*[]"\047\\)]*[ \t]*[:=]+>?[ \t]*/)) {
        token = substr(line, RSTART, RLENGTH); out = out substr(line, 1, RSTART + RLENGTH - 1); line = substr(line, RSTART + RLENGTH)
        name = token; sub(/[^A-Za-z0-9_.-].*/, "", name)
        if (!is_secret(name)) continue
        if (line == "" || line ~ /^[|>][-+0-9]*[ \t]*(#.*)?$/) { indent = lead(whole); return out line }
        if (line ~ /^(true|false|null|None|True|False|""|\047\047|[[][]]|[{][}])[ \t]*([],})]|$)/) continue
        mark = substr(line, 1, 3)
        if (mark == "\"\"\"" || mark == "\047\047\047") return out (index(substr(line, 4), mark) ? blank(line) : goes_on(line, mark))
        mark = substr(line, 1, 1)
        if (mark ~ /[[{(]/) { depth = balance(line); left = 200; return out blank(line) }
        if (mark == "\"" || mark == "\047") {
            at = closing(line, mark)
            if (!at) { quoted = mark; left = 200; return out blank(line) }
            after = substr(line, at + 1)
            if (after !~ /^[ \t]*([],})]|$)/) return out blank(line)   # what goes on behind a quote is in doubt
            out = out mark blank(substr(line, 1, at)) mark
            line = after
        } else if (token ~ /["\047]/ && match(line, /^[-+0-9.eE]+[],}]/)) {   # a number in JSON
            at = RLENGTH
            out = out blank(substr(line, 1, at - 1))
            line = substr(line, at)
        } else return out blank(line)
    }
    return out line
}
'

# settings_files: what may hold settings of the application
settings_files() {
    find "$root/shared/config/" -type f 2>/dev/null
    for file in "$root"/shared/config/* "$root"/shared/* "$root"/shared/.[!.]*; do if [ -f "$file" ]; then say "$file"; fi; done   # links as well
    find "$root/shared/" \( -name backups -o -name logs -o -name '.updater-*' \) -prune -o -type f \( -name '*.env' -o -name '.env*' \) -print 2>/dev/null
}

# known_secrets: the values, here and in the settings, whose names say that they are secret, one on each line
known_secrets() {
    {
        say '# >>> environment'
        env | grep -Ev '^(PWD|OLDPWD|XAUTHORITY|SSH_AUTH_SOCK|DESKTOP_SESSION|GDMSESSION|SESSION_MANAGER|DBUS_SESSION_BUS_ADDRESS|XDG_SESSION_[A-Z]*|GIT_AUTHOR_[A-Z]*)='
        if [ -f "$own/token" ]; then say '# >>> token'; printf 'token = %s\n' "$(head -n 1 "$own/token" 2>/dev/null)"; fi
        for file in "$root/updater.toml" "$own"/configurations/*.toml; do
            if [ -f "$file" ]; then say '# >>> toml'; head -c 262144 "$file" 2>/dev/null; say; fi
        done
        for file in "$own"/launchers/*/*; do
            if [ -f "$file" ]; then say '# >>> launcher'; sed -n '/^export /p; /^# env: /s/^# env: \([^ ]*\) /\1=/p; s/^# updater.toml, as it was when this was written: //p' "$file" 2>/dev/null; fi
        done
        settings_files | sort -u | head -n 500 | while IFS= read -r file; do
            say '# >>> settings'
            head -c 262144 "$file" 2>/dev/null
            say
        done
    } | tr -d '\000-\010\013-\037\177' | COLLECT=1 REDACT_ROOT='' awk "$redactor" | sort -u | head -n 3000
}

# redact: standard input without secrets. A line "# >>> WHAT" begins a file; WHAT is "toml ..." for a configuration of updater
redact() {
    {
        known_secrets
        printf '\001\n'
        tr -d '\000-\010\013-\037\177'
    } | COLLECT=0 REDACT_ROOT=$root awk "$redactor"
}
