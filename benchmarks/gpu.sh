#!/usr/bin/env bash
# One command on a bare GPU machine without a network: install what is missing, run the tests marked `gpu`, measure. Within 25 minutes.
#
#   benchmarks/gpu.sh [FOLDER OF WHEELS] [ARGUMENTS OF benchmarks.gpu ...]
#
# Python 3.11 to 3.13 with PyTorch for this GPU must be there. Of the packages that pyproject.toml lists, those that are missing are installed from the
# wheels (*.whl) and packed site folders (*.tar.xz, e.g. Ray without what a training does not use) in the folder, without touching Python's own
# packages. Results: gpu-results/gpu.json and the tables on the screen. TESTS=0 leaves the tests out.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${1:-wheels}; shift || true
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir -p gpu-results

for archive in "$wheels"/*.tar.xz; do [ -e "$archive" ] && tar -xf "$archive" -C "$site"; done
missing=()
for wheel in "$wheels"/*.whl; do
    [ -e "$wheel" ] || continue
    name=$(basename "$wheel" | cut -d- -f1)
    "$python" -c "import importlib.metadata as m; m.version('$name')" 2>/dev/null || missing+=("$wheel")
done
[ ${#missing[@]} -eq 0 ] || "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "${missing[@]}"
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA GPU"; print(torch.cuda.get_device_name(), torch.__version__)'
[ "${TESTS:-1}" = 0 ] || "$python" -m pytest -m gpu tests/test_gpu.py -p no:cacheprovider
"$python" -m benchmarks.gpu --json gpu-results/gpu.json "$@"
