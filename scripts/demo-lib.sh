# Steps of demo.sh.

step() { printf '\n== %s\n' "$1"; }

fail() { echo "error: $*" >&2; exit 1; }

# apt_install PACKAGE…: with root rights or sudo, else says what to run.
apt_install() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "missing: $*. Run as root: apt-get install $*"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get install --yes --no-install-recommends "$@" \
    || { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install --yes --no-install-recommends "$@"; }
}

# need_command NAME PACKAGE [HINT]: NAME must be there; else PACKAGE is installed, or HINT shown where there is none.
need_command() {
  command -v "$1" >/dev/null 2>&1 && return
  [ -n "$2" ] || fail "\`$1\` is missing: $3"
  apt_install "$2"
}

# make_corpus FILE COUNT: dictionary entries of Debian's WordNet package, one JSON object a line. The package is
# unpacked beside the cache, not installed, so this needs no root.
make_corpus() {
  local work="$cache/wordnet"
  mkdir -p "$work"
  if ! ls "$work"/wordnet-base_*.deb >/dev/null 2>&1; then
    (cd "$work" && apt-get download wordnet-base) || {
      # A fresh system has no package lists yet.
      if [ "$(id -u)" = 0 ]; then apt-get update; else sudo apt-get update; fi
      (cd "$work" && apt-get download wordnet-base)
    } || fail "cannot download the package wordnet-base"
  fi
  dpkg-deb -x "$work"/wordnet-base_*.deb "$work/root"
  python3 scripts/glosses.py "$work/root/usr/share/wordnet" "$2" >"$1.part"
  mv "$1.part" "$1"
}

# choose_files PACKAGES FOLDER: some of the files of the packages, as a person would have them in a folder.
choose_files() {
  mkdir -p "$2/photos" "$2/films" "$2/speech" "$2/papers"
  cp -u "$1"/scikit-image/{astronaut,camera,chelsea,clock_motion,coffee,coins,horse,moon}.png \
    "$1"/scikit-image/{rocket,hubble_deep_field}.jpg "$1"/opencv-doc/{fruits,butterfly,messi5,home}.jpg "$2/photos"
  cp -u "$1"/opencv-doc/{vtest,Megamind}.avi "$2/films"
  cp -u "$1"/pocketsphinx-testdata/librivox/*.wav "$2/speech"
  cp -u "$1"/pdf/R-intro.pdf "$2/papers"
}

# is_healthy URL: whether a server answers there.
is_healthy() {
  python3 - "$1" <<'PY' >/dev/null 2>&1
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/v1/health", timeout=2).read()
PY
}

# start_server BINARY DATA ADDRESS: starts the server unless the one of an earlier run still answers.
start_server() {
  local pid_file="$2/server.pid" log="$2/server.log"
  if [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null && is_healthy "http://$3"; then
    echo "already running at http://$3"
    return
  fi
  nohup "$1" serve --data "$2" --listen "$3" >"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
  for _ in $(seq 300); do
    is_healthy "http://$3" && kill -0 "$(cat "$pid_file")" 2>/dev/null && { echo "listening on http://$3"; return; }
    kill -0 "$(cat "$pid_file")" 2>/dev/null || { cat "$log" >&2; fail "the server did not start"; }
    sleep 0.2
  done
  cat "$log" >&2
  fail "the server did not answer within a minute"
}
