# Sourced by ./start and ./test. Puts what is missing in place and says so: Bun (by npm, into .tools/), node_modules (by
# Bun, from bun.lock) and redis-server (by the system's package manager; without root on Debian and Ubuntu, into .tools/).
# Changes nothing when nothing is missing. POSIX sh: it must run before anything else is there.
#
#   PATH                    is extended so that `bun` is found
#   MILLRACE_REDIS_SERVER   names a redis-server to use; set here when the one to use is not on PATH

bun_min=1.4.5
redis_min=7.0.0
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$root/.tools
cd "$root" || exit 1

say() { printf 'millrace: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { [ "$(id -u)" = 0 ]; }

# version_reached 7.0.15 7.0.0: is the first at least the second?
version_reached() { [ "$(version_number "$1")" -ge "$(version_number "$2")" ]; }
version_number() (
  IFS=.
  # shellcheck disable=SC2086
  set -- ${1%%[!0-9.]*}
  echo $((${1:-0} * 1000000 + ${2:-0} * 1000 + ${3:-0}))
)

# quietly LOG COMMAND...: keeps the output in .tools/LOG.log and shows its end when the command fails.
quietly() {
  log=$tools/$1.log; shift
  mkdir -p "$tools"
  if "$@" >>"$log" 2>&1; then return 0; fi
  tail -n 15 "$log" >&2
  return 1
}

# ── Bun ──

bun_is_fit() { have "$1" && version_reached "$("$1" --version 2>/dev/null)" "$bun_min"; }

need_bun() {
  if bun_is_fit bun; then return; fi
  local_bun=$tools/node_modules/.bin/bun
  if ! bun_is_fit "$local_bun"; then
    have npm || die "Bun $bun_min or newer is needed. Install Node.js with npm (then run this again), or Bun itself: https://bun.com/docs/installation"
    say "Installing Bun $bun_min by npm into .tools/ (about 100 MB, nothing outside this folder) ..."
    mkdir -p "$tools"
    [ -e "$tools/package.json" ] || printf '{ "private": true, "allowScripts": { "bun": true } }\n' >"$tools/package.json"
    quietly bun npm install --prefix "$tools" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts=false "bun@$bun_min" ||
      die "npm could not install bun@$bun_min; the log is .tools/bun.log"
    bun_is_fit "$local_bun" || die "bun@$bun_min was installed but does not run here; try: $local_bun --version"
  fi
  PATH=$tools/node_modules/.bin:$PATH
  export PATH
}

# ── node_modules ──

need_modules() {
  if [ -d node_modules ] && [ ! bun.lock -nt node_modules ]; then return; fi
  say "Installing the packages of bun.lock into node_modules/ ..."
  quietly packages bun install --frozen-lockfile || die "bun install failed; the log is .tools/packages.log"
  touch node_modules
}

# ── Redis ──

redis_version() { "$1" --version 2>/dev/null | sed -n 's/.* v=\([0-9][0-9.]*\).*/\1/p'; }
redis_is_fit() { have "$1" && version_reached "$(redis_version "$1")" "$redis_min"; }
redis_advice="Install redis-server 7.0 or newer, or name one with MILLRACE_REDIS_SERVER=/path/to/redis-server"

use_redis() { MILLRACE_REDIS_SERVER=$1; export MILLRACE_REDIS_SERVER; }

need_redis() {
  if [ -n "${MILLRACE_REDIS_SERVER:-}" ]; then
    redis_is_fit "$MILLRACE_REDIS_SERVER" || die "MILLRACE_REDIS_SERVER=$MILLRACE_REDIS_SERVER is not a redis-server of version 7.0 or newer"
    return
  fi
  find_redis && return
  if have redis-server; then say "redis-server $(redis_version redis-server) is older than 7.0."; fi
  install_redis
  find_redis || die "The redis-server that was installed is missing or older than 7.0. $redis_advice"
}

find_redis() {
  if redis_is_fit redis-server; then return; fi
  for candidate in "$tools/redis/redis-server" valkey-server; do
    if redis_is_fit "$candidate"; then use_redis "$(command -v "$candidate")"; return; fi
  done
  return 1
}

install_redis() {
  if have apt-get; then
    if as_root; then apt_install_redis; else apt_unpack_redis; fi
  elif have brew; then install_by brew brew install redis
  elif have dnf; then root_install_by dnf dnf install -y redis
  elif have apk; then root_install_by apk apk add redis
  elif have pacman; then root_install_by pacman pacman -Sy --noconfirm valkey
  elif have zypper; then root_install_by zypper zypper --non-interactive install redis
  else die "$redis_advice"
  fi
}

install_by() {
  log_name=$1; shift
  say "Installing redis-server: $* ..."
  quietly "$log_name" "$@" || die "That failed; the log is .tools/$log_name.log. $redis_advice"
}

root_install_by() {
  as_root || { shift; die "redis-server is missing; \`sudo $*\` installs it. $redis_advice"; }
  install_by "$@"
}

# Debian starts a service, on port 6379, as soon as it is installed. policy-rc.d is Debian's own way to say no; it is
# put back as it was.
apt_install_redis() (
  say "Installing redis-server by apt-get (as root; its service is not started) ..."
  policy=/usr/sbin/policy-rc.d
  restore() { rm -f "$policy"; if [ -e "$policy.before-millrace" ]; then mv "$policy.before-millrace" "$policy"; fi; }
  trap restore EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [ -e "$policy" ]; then mv "$policy" "$policy.before-millrace"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  DEBIAN_FRONTEND=noninteractive
  export DEBIAN_FRONTEND
  apt_get() { quietly apt apt-get -q -y --no-install-recommends "$@"; }
  apt_get install redis-server 2>/dev/null || { apt_get update && apt_get install redis-server; } ||
    die "apt-get could not install redis-server; the log is .tools/apt.log. $redis_advice"
  if have systemctl; then systemctl disable --quiet redis-server >/dev/null 2>&1 || true; fi
)

# Without root: apt resolves and fetches into .tools/, and the packages are unpacked there, not installed. Only those that
# this machine lacks are fetched, so the wrapper adds one library folder to the search path.
apt_unpack_redis() (
  say "Unpacking Debian's redis-server into .tools/redis (no root needed, nothing is installed outside this folder) ..."
  work=$tools/apt
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$tools/redis"
  apt_get() {
    apt-get -q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::Log="$work" \
      -o Debug::NoLocking=1 -o APT::Sandbox::User= --no-install-recommends "$@"
  }
  cd "$work/packages" || exit 1
  quietly apt apt_get update || die "apt-get update failed; the log is .tools/apt.log. $redis_advice"
  wanted=$(apt_get --simulate install redis-server redis-tools 2>>"$tools/apt.log" | sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -E '^(redis|lib|lua)')
  [ -n "$wanted" ] || die "apt-get knows no redis-server; the log is .tools/apt.log. $redis_advice"
  # shellcheck disable=SC2086
  quietly apt apt_get download $wanted || die "apt-get could not fetch redis-server; the log is .tools/apt.log. $redis_advice"
  for package in ./*.deb; do
    dpkg-deb -x "$package" "$tools/redis" || die "could not unpack $package"
  done
  cat >"$tools/redis/redis-server" <<'WRAPPER'
#!/bin/sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for folder in "$here"/usr/lib/*-linux-* "$here"/lib/*-linux-*; do
  if [ -d "$folder" ]; then LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; fi
done
export LD_LIBRARY_PATH
exec "$here/usr/bin/redis-server" "$@"
WRAPPER
  chmod +x "$tools/redis/redis-server"
  rm -rf "$work"
)
