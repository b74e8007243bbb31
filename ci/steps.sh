#!/usr/bin/env bash
# The steps of action.yml and ci/gitlab.yml, one word each. Settings come as HARNESS_* variables; what a step finds out is
# appended to $GITHUB_OUTPUT as name=value (a file of the same form serves GitLab).
set -euo pipefail

give() { printf '%s=%s\n' "$1" "$2" | tee -a "${GITHUB_OUTPUT:-/dev/null}"; }

# Hash of a model: the content of a folder, else the name alone (pin a revision in it if it may move).
content() {
  if [ -d "$1" ]; then
    (cd "$1" && find . -type f ! -path './.git/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  else
    printf 'name %s\n' "$1"
  fi
}

install() { python -m pip install --quiet "$HARNESS_SOURCE${HARNESS_EXTRA:+[$HARNESS_EXTRA]}"; }

key() {
  local hash
  hash=$({
    harness --version
    content "$HARNESS_MODEL"
    [ -z "${HARNESS_ADAPTER:-}" ] || content "$HARNESS_ADAPTER"
    printf '%s\n' "${HARNESS_PROFILE:-}" "${HARNESS_RUN_ARGS:-}"
  } | sha256sum | cut -c1-16)
  give key "harness-$hash"
  give folder "runs/gate-$hash"
}

run() {
  if [ -f "$HARNESS_FOLDER/run.json" ] && grep -q '"status": "complete"' "$HARNESS_FOLDER/run.json"; then
    echo "this candidate was run before: nothing to do"
    return
  fi
  local more=()
  read -ra more <<<"${HARNESS_RUN_ARGS:-}"
  [ -z "${HARNESS_ADAPTER:-}" ] || more+=(--adapter "$HARNESS_ADAPTER")
  [ -z "${HARNESS_PROFILE:-}" ] || more+=(--profile "$HARNESS_PROFILE")
  harness run --model "$HARNESS_MODEL" --out "$HARNESS_FOLDER" --quiet ${more[@]+"${more[@]}"}
}

gate() {
  local more=() code=0 outcome
  [ -z "${HARNESS_POLICY:-}" ] || more+=(--policy "$HARNESS_POLICY")
  [ -z "${HARNESS_BASELINE_MODEL:-}" ] || more+=(--baseline-model "$HARNESS_BASELINE_MODEL")
  [ -z "${HARNESS_CANDIDATE_MODEL:-}" ] || more+=(--candidate-model "$HARNESS_CANDIDATE_MODEL")
  [ "${HARNESS_INTERSECT:-false}" != true ] || more+=(--intersect)
  rm -f "$HARNESS_FOLDER"/gate.* # a verdict from the cache or an earlier try must not stand for this one
  harness gate --baseline "$HARNESS_BASELINE" --candidate "$HARNESS_FOLDER" ${more[@]+"${more[@]}"} || code=$?
  case $code in 0) outcome=pass ;; 1) outcome=fail ;; 3) outcome=inconclusive ;; 4) outcome=incomplete ;; *) outcome=error ;; esac
  give exit-code "$code"
  give outcome "$outcome"
}

decide() {
  if [ "$HARNESS_EXIT_CODE" = 3 ] && [ "${HARNESS_ALLOW_INCONCLUSIVE:-false}" = true ]; then
    echo "inconclusive, and allowed to be"
    exit 0
  fi
  exit "${HARNESS_EXIT_CODE:-2}"
}

case ${1:-} in
  install | key | run | gate | decide) "$1" ;;
  *) echo "usage: steps.sh install|key|run|gate|decide" >&2; exit 2 ;;
esac
