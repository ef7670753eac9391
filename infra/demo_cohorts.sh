#!/usr/bin/env bash
# Three phantom cohorts: healthy people to train on, healthy people of other scanners, and a clinical cohort.
# Usage: demo_cohorts.sh FOLDER SEED
set -euo pipefail
folder=$1
seed=$2
make_cohort() {
  [ -e "$folder/$1/participants.tsv" ] || padflow phantom "$folder/$1" "${@:2}"
}
make_cohort train --subjects 120 --sites 4 --seed "${seed}1" --patients 0
make_cohort external --subjects 40 --sites 2 --seed "${seed}2" --patients 0
make_cohort clinical --subjects 64 --sites 2 --seed "${seed}3" --patients 0.6 --sessions 2
