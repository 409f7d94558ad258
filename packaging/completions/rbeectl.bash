# bash completion for rbeectl(1)                             -*- shell-script -*-

# Written by hand: what click generates runs the whole program at each press of Tab.
_rbeectl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} verb='' word i
    local verbs='add-hive remove-hive list-hives list-devices status catalog shutdown doctor'
    COMPREPLY=()

    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} != -* ]]; then
            verb=${COMP_WORDS[i]}
            break
        fi
    done

    if [[ -z $verb ]]; then
        word="$verbs --debug --no-color --version --help"
    elif [[ $cur == -* ]]; then
        word='--json --help'
        [[ $verb == add-hive ]] && word+=' --port'
        [[ $verb == doctor ]] && word+=' --fix'
        [[ $verb == catalog ]] && word+=' --force --empty'
    else
        [[ ${COMP_WORDS[COMP_CWORD - 1]} == --port ]] && return
        case $verb in
            add-hive) word=localhost ;;
            catalog)
                if [[ ${COMP_WORDS[COMP_CWORD - 1]} == catalog ]]; then
                    word='backup check restore'
                else
                    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                    return
                fi
                ;;
            # Reading never wakes the queen: while she sleeps there are no names.
            remove-hive | list-devices)
                word=$(rbeectl list-hives --json 2>/dev/null |
                    grep -o '"id": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4)
                ;;
            *) return ;;
        esac
    fi

    mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
} &&
    complete -F _rbeectl rbeectl
