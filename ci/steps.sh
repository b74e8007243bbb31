#!/usr/bin/env bash
# The steps of action.yml and ci/gitlab.yml, one word each. Settings come as HARNESS_* variables; what a step finds out is
# appended to $GITHUB_OUTPUT as name=value (a file of the same form serves GitLab).
set -euo pipefail

venv=${HARNESS_VENV:-${RUNNER_TEMP:-$PWD}/harness-venv}
if [ -d "$venv/bin" ]; then PATH="$venv/bin:$PATH"; fi

give() { printf '%s=%s\n' "$1" "$2" | tee -a "${GITHUB_OUTPUT:-/dev/null}"; }

# What a path holds, links followed (find tells of those that lead back and leaves them out); of anything else the name
# alone (a hub id: pin a revision in it if it may move).
content() {
  if [ -d "$1" ]; then
    (cd "$1" && { find -L . -type f ! -path './.git/*' ! -path '*/__pycache__/*' -print0 || true; } | LC_ALL=C sort -z | xargs -0r sha256sum)
  elif [ -f "$1" ]; then
    sha256sum <"$1"
  else
    printf 'name %s\n' "$1"
  fi
}

# The content of a model's folder, which must hold something.
weights() {
  local held
  held=$(content "$1") && [ -n "$held" ] || { echo "$1 holds no file, or one that can't be read" >&2; exit 2; }
  printf '%s\n' "$held"
}

# The words of settings or of a YAML file: what stands between spaces, commas, equals signs, colons, quotes and brackets.
words() { tr -s '[:space:],=:"[]{}'"'" '\n'; }

# Names the candidate by everything its records depend on: the model's files, the settings and the files they name, the
# program itself and what is installed to run it. Needs nothing installed.
key() {
  local - hash word inner
  set -f
  hash=$({
    for word in harness attacks tasks requirements pyproject.toml Makefile; do content "$HARNESS_SOURCE/$word"; done
    weights "$HARNESS_MODEL"
    [ -z "${HARNESS_ADAPTER:-}" ] || weights "$HARNESS_ADAPTER"
    printf '%s\n' "${HARNESS_PROFILE:-}" "${HARNESS_RUN_ARGS:-}" "${HARNESS_EXTRA:-}"
    for word in $(words <<<"${HARNESS_RUN_ARGS:-}"); do
      content "$word"
      case "$word" in *.yaml | *.yml) for inner in $([ ! -f "$word" ] || words <"$word"); do content "$inner"; done ;; esac
    done
  } | sha256sum | cut -c1-16)
  give key "harness-$hash"
  give folder "runs/gate-$hash"
}

finished() { [ -f "$HARNESS_FOLDER/run.json" ] && grep -q '"status": "complete"' "$HARNESS_FOLDER/run.json"; }

# The pinned set of the Makefile; where the candidate's run is at hand already, only what the gate itself needs.
install() {
  case "$(finished && echo none || echo "${HARNESS_EXTRA:-none}")" in
    cpu) make -C "$HARNESS_SOURCE" VENV="$venv" CI=true "$venv/.cpu" ;;
    gpu) make -C "$HARNESS_SOURCE" VENV="$venv" CI=true "$venv/.gpu" ;;
    none)
      python -m venv "$venv"
      "$venv/bin/python" -m pip install --quiet "$HARNESS_SOURCE"
      ;;
    *) echo "extra must be cpu, gpu or empty, not $HARNESS_EXTRA" >&2; exit 2 ;;
  esac
}

run() {
  if finished; then
    echo "this candidate was run before: nothing to do"
    return
  fi
  local more=()
  read -rd '' -a more <<<"${HARNESS_RUN_ARGS:-}" || true # all lines; its end is no error
  [ -z "${HARNESS_ADAPTER:-}" ] || more+=(--adapter "$HARNESS_ADAPTER" --skip-base)
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

# The verdict on the pull request: the comment of an earlier push, known by its first line, is replaced, and nobody
# else's. That it can't be written fails nothing.
comment() {
  local mark='<!-- harness gate -->' at='repos/{owner}/{repo}/issues' body earlier
  if [ -z "${HARNESS_PULL_REQUEST:-}" ] || [ ! -f "$HARNESS_FOLDER/gate.md" ]; then
    echo "no pull request, or no verdict: nothing to comment"
    return
  fi
  body=$(printf '%s\n' "$mark" && cat "$HARNESS_FOLDER/gate.md")
  earlier=$(gh api --paginate "$at/$HARNESS_PULL_REQUEST/comments" \
    --jq ".[] | select(.body | startswith(\"$mark\")) | .id" 2>/dev/null | tail -n 1) || earlier=
  if [ -n "$earlier" ] && gh api --silent --method PATCH "$at/comments/$earlier" -F body=@- <<<"$body" 2>/dev/null; then
    return
  fi
  gh pr comment "$HARNESS_PULL_REQUEST" --body-file - <<<"$body" ||
    echo "::warning::the verdict could not be written on the pull request (pull-requests: write is needed)"
}

decide() {
  if [ "$HARNESS_EXIT_CODE" = 3 ] && [ "${HARNESS_ALLOW_INCONCLUSIVE:-false}" = true ]; then
    echo "inconclusive, and allowed to be"
    exit 0
  fi
  exit "${HARNESS_EXIT_CODE:-2}"
}

case ${1:-} in
  key | install | run | gate | comment | decide) "$1" ;;
  *) echo "usage: steps.sh key|install|run|gate|comment|decide" >&2; exit 2 ;;
esac
