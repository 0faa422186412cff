#!/usr/bin/env bash
# From a fresh Debian or Ubuntu to answers: builds, fetches models and real files (texts, photos, a video, speech, a PDF),
# starts a server, ingests, searches, and leaves the server running. Safe to run again: what is there is kept.
#
#   DEMO_TEXTS     how many dictionary entries to ingest (default 30000; `all` takes all 117,000)
#   STRATA_DATA    data directory (default strata-data)
#   STRATA_LISTEN  address (default 127.0.0.1:8800)
set -euo pipefail
cd "$(dirname "$0")/.."

data="${STRATA_DATA:-strata-data}"
listen="${STRATA_LISTEN:-127.0.0.1:8800}"
texts="${DEMO_TEXTS:-30000}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/strata/demo"
models=(all_minilm_l6_v2_int8 media_tools conse_minilm_l6_v2 speech pp_ocr_v6_small)
export STRATA_DATA="$data" STRATA_URL="http://$listen"
unset STRATA_API_KEY STRATA_NAMESPACE
mkdir -p "$cache" "$data"
# shellcheck source=scripts/demo-lib.sh
. scripts/demo-lib.sh

step "Checking tools"
need_command cargo "" "install Rust from https://rustup.rs"
need_command cc gcc
need_command make make
need_command python3 python3
need_command dpkg-deb dpkg
python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip

step "Building (release)"
cargo build --release --locked --package strata
strata="${CARGO_TARGET_DIR:-target}/release/strata"

step "Fetching the models"
"$strata" models pull "${models[@]}"

step "Fetching the corpus: WordNet"
corpus="$cache/glosses-$texts.jsonl"
[ -s "$corpus" ] || make_corpus "$corpus" "$texts"
echo "$(wc -l <"$corpus") texts in $corpus"

step "Fetching files: photos, a video, speech, a manual"
files="$cache/files"
STRATA_TEST_FILES="$cache/packages" PYTHON=python3 ./scripts/fetch-test-files.sh \
  scikit-image opencv-doc pocketsphinx-testdata pdf
choose_files "$cache/packages" "$files"

step "Starting the server"
start_server "$strata" "$data" "$listen"

step "Ingesting"
"$strata" ingest "$corpus" "$files"

step "Searching"
for query in \
  "a doctor who treats children" \
  "fear of being in a closed space" \
  "a bird that cannot fly" \
  "musical instrument played by blowing" \
  "to walk slowly without any purpose"
do
  printf '\n> %s\n' "$query"
  "$strata" search --limit 3 --collection texts "$query"
done
show() { printf '\n> %s, in %s\n' "$2" "$1"; "$strata" search --limit 2 --collection "$1" "$2"; }
show images "a cup of coffee"
show images "a rocket taking off"
show videos "people walking on a street"
show recordings "what should be done for the ladies"
show pages "read a table of data from a file"
printf '\n> %s, in everything\n' "astronaut"
"$strata" search --limit 4 "astronaut"

cat <<END

The server is running.
  address  $STRATA_URL   (documentation at $STRATA_URL/docs)
  key      $(cat "$data/admin.key")
  log      $data/server.log
  search   STRATA_DATA=$data STRATA_URL=$STRATA_URL $strata search "your own words"
  stop     kill $(cat "$data/server.pid")
END
