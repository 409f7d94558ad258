# bash completion for rbeectl(1)                             -*- shell-script -*-
# Written by packaging/completions.py; change that.

_rbeectl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' sub='' i
    local words='add-hive remove-hive list-hives list-devices show wake sleep shutdown status top monitor logs metrics version doctor catalog'
    local options='--version --json -q --quiet --no-legend --no-pager -l --full --timeout --no-color --debug --help' valued='--timeout' argument=verb
    COMPREPLY=()

    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* || " $valued " == *" ${COMP_WORDS[i - 1]} "* ]] && continue
        if [[ -z $verb ]]; then
            verb=${COMP_WORDS[i]}
        elif [[ -z $sub ]]; then
            sub=${COMP_WORDS[i]}
        fi
    done
    case $verb in
        catalog) words='backup check restore' ;;
        ?*) sub='' ;;
    esac
    [[ -n $sub ]] && verb+=" $sub"
    case $verb in
        'add-hive') options='--port --json -q --quiet --wait --no-wait --timeout --help' valued='--port --timeout' argument=host ;;
        'remove-hive') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=hive ;;
        'list-hives') options='--json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='--timeout' argument=none ;;
        'list-devices') options='--json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='--timeout' argument=hive ;;
        'show') options='-p --property --value --json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='-p --property --timeout' argument=hive ;;
        'wake') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=none ;;
        'sleep') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=none ;;
        'shutdown') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=none ;;
        'status') options='-n --lines --json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='-n --lines --timeout' argument=hive ;;
        'top') options='-d --delay -n --iterations --json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='-d --delay -n --iterations --timeout' argument=none ;;
        'monitor') options='-n --lines --since --json -q --quiet --help' valued='-n --lines --since' argument=hive ;;
        'logs') options='-f --follow -n --lines -x --catalog --job --json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='-n --lines --job --timeout' argument=hive ;;
        'metrics') options='--textfile --json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='--textfile --timeout' argument=none ;;
        'version') options='--json -q --quiet --no-legend --no-pager -l --full --timeout --help' valued='--timeout' argument=none ;;
        'doctor') options='--fix --json -q --quiet --help' valued='' argument=none ;;
        'catalog backup') options='--force --json -q --quiet --help' valued='' argument=file ;;
        'catalog check') options='--json -q --quiet --help' valued='' argument=file ;;
        'catalog restore') options='--empty --json -q --quiet --help' valued='' argument=file ;;
    esac

    if [[ " --textfile " == *" $previous "* ]]; then
        argument=file
    elif [[ " $valued " == *" $previous "* ]]; then
        return
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    case $argument in
        host) words=localhost ;;
        # Reading never wakes the queen: while she sleeps there are no names.
        hive) words=$(rbeectl list-hives --json 2>/dev/null | grep -o '"id": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4) ;;
        file)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        none) return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
} &&
    complete -F _rbeectl rbeectl
