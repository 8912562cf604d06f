#!/usr/bin/env bash
# timm and torchvision beside .venv without touching it: torchvision's wheel does not import beside a CPU torch,
# and in .venv it would break transformers and diffusers too. .venv-timm sees the packages of .venv and adds its
# own. Run it, then .venv-timm/bin/python -m pytest tests/classifiers/test_timm.py
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x .venv-timm/bin/python ] || .venv/bin/python -m venv --without-pip .venv-timm
packages='import site; print(site.getsitepackages()[0])'
own=$(.venv-timm/bin/python -c "$packages")
base=$(.venv/bin/python -c "$packages")
echo "import site; site.addsitedir('$base')" > "$own/base.pth" # and what its own .pth files name: this package
[ -d "$own/timm" ] && [ -d "$own/torchvision" ] ||
  .venv/bin/python -m pip install --quiet --no-deps --target "$own" -c constraints.txt "timm>=1.0" torchvision
