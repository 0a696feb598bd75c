# Sourced by scripts/* and .ci/run: brings a fresh machine to where the project runs, and a prepared one there in a
# second. Says what it installs; never touches what it finds.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
venv="$root/.venv"
bin="$venv/bin"

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else return 1
  fi
}

# Installs Debian packages; the list of packages is refreshed once per run, and only if something is missing.
apt_install() {
  command -v apt-get >/dev/null || return 1
  say "installing Debian packages: $*"
  if [ -z "${apt_refreshed:-}" ]; then
    as_root apt-get -qq update </dev/null >/dev/null || return 1
    apt_refreshed=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" </dev/null >/dev/null
}

# A Python that is new enough and can make a venv. Each candidate is run: a name in PATH may be an empty shim.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

ensure_python() {
  python="$(find_python)" && return
  apt_install python3 python3-venv || true
  python="$(find_python)" || die "needs Python 3.11 or newer with venv (Debian: python3 python3-venv)"
}

has_compiler() {
  command -v "${CC:-cc}" >/dev/null &&
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

# Best effort: without a C compiler the gateway uses the numpy twin of its chunker.
ensure_compiler() {
  has_compiler && return
  apt_install gcc libc6-dev python3-dev || true
  has_compiler || say "no C compiler with Python headers: the slower numpy chunker will be used"
}

# The tests of the house ask git which files are the project's.
ensure_git() {
  command -v git >/dev/null && return
  apt_install git || true
  command -v git >/dev/null || die "needs git (Debian: git)"
}

find_postgresql() {
  local initdb
  for initdb in $(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -rV) "$(command -v initdb || true)"; do
    if [ -x "$initdb" ] && [ -x "${initdb%initdb}postgres" ] && [ -x "${initdb%initdb}pgbench" ]; then return 0; fi
  done
  return 1
}

# Debian's package would create and start a cluster of its own. Where no PostgreSQL was, it is told not to.
ensure_postgresql() {
  find_postgresql && return
  local no_cluster=/etc/postgresql-common/createcluster.d/backup-gateway.conf
  if ! [ -e /etc/postgresql-common/createcluster.conf ]; then
    as_root mkdir -p "${no_cluster%/*}" || true
    echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null || true
  else
    no_cluster=
  fi
  apt_install postgresql postgresql-contrib || true
  if [ -n "$no_cluster" ]; then as_root rm -f "$no_cluster" || true; fi
  find_postgresql || say "PostgreSQL could not be installed"
}

find_samba() { PATH="$PATH:/usr/sbin" command -v smbd >/dev/null && command -v smbpasswd >/dev/null; }

# Debian's package would start a file server on port 445 and enable it for every boot. Where no Samba was, neither is
# wanted: policy-rc.d forbids the start, and what was enabled is disabled.
ensure_samba() {
  find_samba && return
  local policy=/usr/sbin/policy-rc.d
  if ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null || true
    as_root chmod 755 "$policy" || true
  else
    policy=
  fi
  apt_install samba || true
  if [ -n "$policy" ]; then as_root rm -f "$policy" || true; fi
  if find_samba; then
    if command -v systemctl >/dev/null; then as_root systemctl disable smbd nmbd >/dev/null 2>&1 || true; fi
  else
    say "Samba could not be installed"
  fi
}

# Built kernels that lie in the clone: part of the stamp, so that a cleaned clone builds them again.
built() { find gateway -name '*.so' | LC_ALL=C sort | tr '\n' ' '; }

digest() { sha256sum -- "$@" | sha256sum | cut -d' ' -f1; }

# mkfs for the file systems that can clone and for the one that cannot, and the tools to mount an image of one.
ensure_file_systems() {
  if command -v mkfs.xfs && command -v mkfs.btrfs && command -v mkfs.ext4 && command -v mount; then return; fi >/dev/null
  apt_install xfsprogs btrfs-progs e2fsprogs mount || say "xfsprogs, btrfs-progs, e2fsprogs could not be installed"
}

# The programs whose archives the tests of structure read: what they write is the proof, not what Python writes.
ensure_archivers() {
  local name
  for name in bzip2 cpio gzip lz4 tar xz zip zstd; do
    command -v "$name" >/dev/null && continue
    apt_install bzip2 cpio gzip lz4 tar xz-utils zip zstd || say "programs that make archives could not be installed"
    return
  done
}

# .venv from the pins, then the gateway itself, editable. Two stamps: new pins make a new venv, a new C kernel
# or pyproject only a new installation into it.
ensure_venv() {
  # One at a time in a clone; the lock is the open file, so nothing is left behind.
  exec 9<"$root/pyproject.toml"
  flock 9
  local pins build kernels
  mapfile -t kernels < <(find gateway -name "*.[ch]" | LC_ALL=C sort)
  pins="$root $(digest requirements/{build,runtime,test}.txt)"
  if ! [ "$(cat "$venv/pins" 2>/dev/null)" = "$pins" ] || ! "$bin/python" -c '' 2>/dev/null; then
    ensure_python
    say "making .venv with $("$python" --version) from requirements/*.txt"
    "$python" -m venv --clear "$venv"
    # --no-deps: the pins are the whole closure; --only-binary: nothing of others is built or run here.
    "$bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
      --only-binary :all: -r requirements/build.txt -r requirements/runtime.txt -r requirements/test.txt
    "$bin/python" -m pip check --disable-pip-version-check >/dev/null || die "the pins contradict each other"
    printf '%s\n' "$pins" >"$venv/pins"
  fi
  build="$(digest pyproject.toml setup.py requirements/runtime.in "${kernels[@]}")"
  if ! [ "$(cat "$venv/build" 2>/dev/null)" = "$build $(built)" ]; then
    ensure_python
    ensure_compiler
    say "installing the gateway into .venv"
    rm -rf build
    "$bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation \
      --no-index --editable .
    printf '%s\n' "$build $(built)" >"$venv/build"
  fi
  # Where Python may not write bytecode by itself, every start of a command would compile the gateway anew.
  "$bin/python" -m compileall -q gateway
  exec 9<&-
}

# Options of pytest: tests in one process more than there are processors, since many of them wait for a process or
# a disk (docs/adr/0009). GATEWAY_TEST_WORKERS says another number; 0 runs them one after the other in one process.
spread() { printf '%s\n' --numprocesses "${GATEWAY_TEST_WORKERS:-$(($(nproc) + 1))}" --dist worksteal; }

# Folders of tests/ that hold tests already.
suites() {
  local name
  for name in "$@"; do
    if compgen -G "tests/$name/**/test_*.py" >/dev/null || compgen -G "tests/$name/test_*.py" >/dev/null; then
      printf '%s\n' "tests/$name"
    fi
  done
}
