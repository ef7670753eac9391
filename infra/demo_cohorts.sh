#!/usr/bin/env bash
# Four phantom cohorts: healthy people to train on, healthy people of other scanners, people with MS and controls
# seen once, and some seen twice.
# Usage: demo_cohorts.sh FOLDER SEED
set -euo pipefail
folder=$1
seed=$2
make_cohort() {
  [ -e "$folder/$1/participants.tsv" ] || padflow phantom "$folder/$1" "${@:2}"
}
# Patients' brains look older than they are, so the training cohort reaches beyond the patients' ages.
make_cohort train --subjects 130 --sites 8 --seed "${seed}1" --patients 0 --ages 18 92
make_cohort external --subjects 36 --sites 2 --seed "${seed}2" --patients 0
make_cohort clinic --subjects 90 --sites 2 --seed "${seed}3" --patients 0.6 --ages 20 65
make_cohort followup --subjects 20 --sites 2 --seed "${seed}4" --patients 0.6 --ages 20 65 --sessions 2
