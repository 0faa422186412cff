#!/bin/sh
# Compiles for fuzzing: counters of what is reached go into this project's crates, not into the libraries, which take long to
# compile and are not what is asked about.
rustc=$1
shift
case " $* " in
  *" --crate-name strata_engine "* | *" --crate-name strata_model "*)
    exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
    ;;
esac
exec "$rustc" "$@"
