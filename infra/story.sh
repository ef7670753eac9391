#!/usr/bin/env bash
# A model's life, by padflow alone: a champion of sites A and B, a challenger that knows the scans of sites C to H too,
# one that was trained on shuffled ages, and the way back. Usage: story.sh FOLDER
set -euo pipefail
export PADFLOW_HOME=$1 PADFLOW_DATA=$1/data
say() { printf '\n== %s\n' "$*"; }
make_cohort() {
    [ -e "$PADFLOW_DATA/$1/participants.tsv" ] || padflow phantom "$PADFLOW_DATA/$1" --patients 0 --stripped --spacing 5 "${@:2}"
}
model=brain-age-story
consume() { padflow predict models:/$model@champion "$PADFLOW_DATA"/external/sub-0001/anat/*_T1w.nii.gz; }

say "a champion of sites A and B"
make_cohort sites-ab --subjects 16 --sites 2 --seed 71 --ages 18 92
make_cohort external --subjects 60 --sites 2 --seed 72
padflow run story
consume

say "new scans of sites C to H"
make_cohort site-c --subjects 90 --sites 6 --seed 74 --ages 18 92
padflow run story --profile site-c
consume

say "a challenger of shuffled ages"
if [ ! -e "$PADFLOW_DATA/shuffled" ]; then
    cp -r "$PADFLOW_DATA/sites-ab" "$PADFLOW_DATA/shuffled"
    table=$PADFLOW_DATA/shuffled/participants.tsv
    ages() { tail -n +2 "$PADFLOW_DATA/sites-ab/participants.tsv" | cut -f2; }
    paste <(cut -f1 "$table") <(echo age; ages | shuf --random-source=<(yes)) <(cut -f3- "$table") > "$table.new"
    mv "$table.new" "$table"
fi
padflow run story --profile shuffled

say "back to the champion before"
padflow rollback $model --reason "a drill"
padflow decisions $model
consume
