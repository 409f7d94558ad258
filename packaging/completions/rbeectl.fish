# fish completion for rbeectl(1)

# Written by hand: what click generates runs the whole program at each press of Tab.
set -l verbs add-hive remove-hive list-hives list-devices status catalog shutdown doctor

# Reading never wakes the queen: while she sleeps there are no names.
function __rbeectl_hives
    rbeectl list-hives --json 2>/dev/null | string match -agr '"id": *"([A-Za-z0-9._-]*)"'
end

complete -c rbeectl -f

complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a add-hive -d 'Add a machine to the catalog and wake its hive'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a remove-hive -d 'Stop a hive and forget it'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a list-hives -d 'List the hives of the catalog'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a list-devices -d 'List the processors and GPUs of hives'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a status -d 'Show the states of the queen and of her hives'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a catalog -d 'Back up, check or restore the hive catalog'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a shutdown -d 'Turn off the queen and all hives'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -a doctor -d 'Find what keeps rbee from working here, and mend it'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -l debug -d 'Show the traceback of an error'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -l no-color -d 'Use no colour'
complete -c rbeectl -n "not __fish_seen_subcommand_from $verbs" -l version -d 'Print the version'
complete -c rbeectl -l help -d 'Print a summary'

complete -c rbeectl -n "__fish_seen_subcommand_from $verbs" -l json -d 'Print JSON'
complete -c rbeectl -n '__fish_seen_subcommand_from add-hive' -a localhost -d 'This machine'
complete -c rbeectl -n '__fish_seen_subcommand_from add-hive' -x -l port -d 'The port that is kept in the catalog'
complete -c rbeectl -n '__fish_seen_subcommand_from doctor' -l fix -d 'Run the commands that mend it'
complete -c rbeectl -n '__fish_seen_subcommand_from remove-hive list-devices' -a '(__rbeectl_hives)' -d Hive

set -l catalog_verbs backup check restore
complete -c rbeectl -n "__fish_seen_subcommand_from catalog; and not __fish_seen_subcommand_from $catalog_verbs" -a "$catalog_verbs"
complete -c rbeectl -n "__fish_seen_subcommand_from catalog; and __fish_seen_subcommand_from $catalog_verbs" -F
complete -c rbeectl -n "__fish_seen_subcommand_from backup" -l force -d 'Replace a file that is there'
complete -c rbeectl -n "__fish_seen_subcommand_from restore" -l empty -d 'Restore nothing: the queen begins anew'
