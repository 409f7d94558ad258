# bash completion for rbeectl(1)                             -*- shell-script -*-
# Written by packaging/completions.py; change that.

_rbeectl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' sub='' i
    local words='add-hive remove-hive list-hives list-devices show label cordon uncordon model serve unserve list-workers place list-engines ask gateway key tcp token join wake sleep shutdown status top monitor logs metrics audit version doctor catalog help'
    local options='--version --json -q --quiet --no-legend --no-pager --full --timeout --no-color --debug --help' valued='--timeout' argument=verb given=0
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
        model) words='add list remove show' ;;
        gateway) words='disable enable status' ;;
        key) words='create list revoke' ;;
        tcp) words='disable enable status' ;;
        token) words='create list revoke' ;;
        catalog) words='backup check restore' ;;
        ?*) sub='' ;;
    esac
    [[ -n $sub ]] && verb+=" $sub"
    case $verb in
        'add-hive') options='--port --user --queen --install --json -q --quiet --wait --no-wait --timeout --help' valued='--port --user --queen --install --timeout' argument=host ;;
        'remove-hive') options='--force --json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=hive ;;
        'list-hives') options='-l --selector --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-l --selector --timeout' argument=none ;;
        'list-devices') options='-m --memory -l --selector --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-l --selector --timeout' argument=hive ;;
        'show') options='-p --property --value --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-p --property --timeout' argument=hive_model_or_worker ;;
        'label') options='--json -q --quiet --timeout --help' valued='--timeout' argument=hive ;;
        'cordon') options='--json -q --quiet --timeout --help' valued='--timeout' argument=hive ;;
        'uncordon') options='--json -q --quiet --timeout --help' valued='--timeout' argument=hive ;;
        'model add') options='--sha256 --memory --context --json -q --quiet --wait --no-wait --timeout --help' valued='--sha256 --memory --context --timeout' argument=source ;;
        'model list') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'model remove') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=model ;;
        'model show') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=model ;;
        'serve') options='--context --idle --pin --no-pin --engine --json -q --quiet --timeout --help' valued='--context --idle --engine --timeout' argument=model ;;
        'unserve') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=model ;;
        'list-workers') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=model ;;
        'place') options='--dry-run --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=model ;;
        'list-engines') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'ask') options='--system --max-tokens --json -q --quiet --timeout --help' valued='--system --max-tokens --timeout' argument=model ;;
        'gateway disable') options='--json -q --quiet --timeout --help' valued='--timeout' argument=none ;;
        'gateway enable') options='--listen --tls-cert --tls-key --no-tls --json -q --quiet --timeout --help' valued='--listen --tls-cert --tls-key --timeout' argument=none ;;
        'gateway status') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'key create') options='--models --ttl --json -q --quiet --timeout --help' valued='--models --ttl --timeout' argument=none ;;
        'key list') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'key revoke') options='--json -q --quiet --timeout --help' valued='--timeout' argument=key ;;
        'tcp disable') options='--json -q --quiet --timeout --help' valued='--timeout' argument=none ;;
        'tcp enable') options='--listen --json -q --quiet --timeout --help' valued='--listen --timeout' argument=none ;;
        'tcp status') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'token create') options='--ttl --uses --hive --json -q --quiet --timeout --help' valued='--ttl --uses --hive --timeout' argument=none ;;
        'token list') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'token revoke') options='--json -q --quiet --timeout --help' valued='--timeout' argument=none ;;
        'join') options='--token --name --json -q --quiet --timeout --help' valued='--token --name --timeout' argument=none ;;
        'wake') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=none ;;
        'sleep') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=none ;;
        'shutdown') options='--json -q --quiet --wait --no-wait --timeout --help' valued='--timeout' argument=none ;;
        'status') options='-n --lines --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-n --lines --timeout' argument=hive_model_or_worker ;;
        'top') options='-d --delay -n --iterations -m --memory --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-d --delay -n --iterations --timeout' argument=none ;;
        'monitor') options='-n --lines --since --json -q --quiet --help' valued='-n --lines --since' argument=hive ;;
        'logs') options='-f --follow -n --lines -x --catalog --job --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-n --lines --job --timeout' argument=hive_model_or_worker ;;
        'metrics') options='--textfile --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--textfile --timeout' argument=none ;;
        'audit') options='-n --lines --json -q --quiet --no-legend --no-pager --full --timeout --help' valued='-n --lines --timeout' argument=hive ;;
        'version') options='--json -q --quiet --no-legend --no-pager --full --timeout --help' valued='--timeout' argument=none ;;
        'doctor') options='--fix --json -q --quiet --help' valued='' argument=none ;;
        'catalog backup') options='--force --json -q --quiet --help' valued='' argument=file ;;
        'catalog check') options='--json -q --quiet --help' valued='' argument=file ;;
        'catalog restore') options='--empty --json -q --quiet --help' valued='' argument=file ;;
        'help') options='--json -q --quiet --help' valued='' argument=verb ;;
    esac

    if [[ " --install --textfile --tls-cert --tls-key " == *" $previous "* ]]; then
        argument=file
    elif [[ " $valued " == *" $previous "* ]]; then
        return
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    if [[ " hive model key worker hive_model_or_worker " == *" $argument "* ]]; then
        # After the name come other arguments, such as labels.
        for ((i = 1; i < COMP_CWORD; i++)); do
            [[ ${COMP_WORDS[i]} == -* || " $valued " == *" ${COMP_WORDS[i - 1]} "* ]] || ((++given))
        done
        set -- $verb
        ((given > $#)) && return
    fi
    case $argument in
        host) words=localhost ;;
        # Reading never wakes the queen: while it sleeps there are no names.
        hive) words=$(rbeectl list-hives --json 2>/dev/null | grep -o '"id": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4) ;;
        model) words=$(rbeectl model list --json 2>/dev/null | grep -o '"name": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4) ;;
        key) words=$(rbeectl key list --json 2>/dev/null | grep -o '"name": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4) ;;
        worker) words=$(rbeectl list-workers --json 2>/dev/null | grep -o '"id": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4) ;;
        hive_model_or_worker) words=$(rbeectl list-hives --json 2>/dev/null | grep -o '"id": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4; rbeectl model list --json 2>/dev/null | grep -o '"name": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4; rbeectl list-workers --json 2>/dev/null | grep -o '"id": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4) ;;
        file | source)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        none) return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
} &&
    complete -F _rbeectl rbeectl
