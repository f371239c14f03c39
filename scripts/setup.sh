#!/usr/bin/env bash
# Sets this checkout up: `scripts/setup.sh runtime` for what Proctor needs to run, `scripts/setup.sh dev` for its tests too.
# Does only what is still to be done; what it says goes to stderr.
set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
stamp="$venv/.set-up-for"
extent="${1:-}"
terminal=0
if [[ -t 2 ]]; then terminal=1; fi
scratch="$(mktemp -d)"
log="$scratch/log"

trap 'rm -rf -- "$scratch"' EXIT
# pip, uv and apt end with a code of their own after Ctrl-C, which would look like a failure of theirs.
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '==> %s\n' "$*" >&2; }

# fail WHAT FIX: says what happened and what to do, with the end of what the last command printed.
fail() {
    printf '\nerror: %s\n' "$1" >&2
    if [[ -s "$log" ]]; then
        printf -- '--- the end of what it printed ---\n' >&2
        tail -n 30 -- "$log" >&2
        printf -- '---------------------------------\n' >&2
    fi
    printf 'To fix it: %s\n' "$2" >&2
    exit 1
}

# What succeeded is of no use when something later fails.
quietly() {
    "$@" >"$log" 2>&1 </dev/null || return
    : >"$log"
}

# --- what comes from the distribution ---

new_enough='import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))'

# Runs each: a name alone may be a shim of a version manager, and Debian keeps ensurepip in python3-venv.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
        if "$name" -c "$new_enough" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# major_version NAME…: of the first program that runs; Ubuntu's chromium-browser without its snap does not.
major_version() {
    local name
    for name in "$@"; do
        if [[ "$("$name" --version 2>/dev/null)" =~ ([0-9]+)\.[0-9]+\.[0-9]+ ]]; then
            printf '%s\n' "${BASH_REMATCH[1]}"
            return
        fi
    done
    return 1
}

# A driver drives only the browser of its own major version.
has_browser() {
    local driver name
    driver="$(major_version chromedriver)" || return 1
    for name in chromium google-chrome google-chrome-stable chromium-browser; do
        if [[ "$(major_version "$name")" == "$driver" ]]; then return; fi
    done
    return 1
}

has_python() { venv_fits || find_python >/dev/null; }

what_is_missing() {
    has_python || echo python
    command -v git >/dev/null || echo git
    command -v bwrap >/dev/null || echo bubblewrap
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    has_browser || echo browser
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif ((terminal)); then
        sudo "$@" # asks for the password on the terminal, whatever stdin and stderr are here
    else
        sudo -n "$@"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

# The version that apt would install; nothing for a package that it does not have.
candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p' | grep -vxF '(none)' || true; }

python_packages() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if [[ "$(candidate "$name")" =~ ^3\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 11)); then
            printf '%s\n' "$name" "$name-venv"
            return
        fi
    done
    fail "this system's packages have no Python 3.11 or later." \
        "install Python 3.11, 3.12 or 3.13 with its venv module so that it is found as python3.12 (for example), then run this again."
}

browser_packages() {
    local chrome
    if [[ -n "$(candidate chromium)" && -n "$(candidate chromium-driver)" ]]; then
        printf '%s\n' chromium chromium-driver
    elif [[ -S /run/snapd.socket && -n "$(candidate chromium-chromedriver)" ]]; then
        # Ubuntu's packages of these names are empty and fetch the snap, which needs a running snapd.
        printf '%s\n' chromium-browser chromium-chromedriver
    elif chrome="$(major_version google-chrome google-chrome-stable)"; then
        fail "Google Chrome $chrome is here, but no chromedriver of version $chrome, and this system's packages have none." \
            "put the chromedriver for Chrome $chrome into /usr/local/bin, then run this again."
    else
        fail "no Chromium can be installed: this system's packages have it only as a snap, and snapd does not run here." \
            "install Google Chrome and put the chromedriver of the same version into /usr/local/bin, then run this again."
    fi
}

packages_for() {
    case "$1" in
    python) python_packages ;;
    browser) browser_packages ;;
    *) printf '%s\n' "$1" ;;
    esac
}

install_system_packages() {
    local missing=("$@") packages thing
    if ! command -v apt-get >/dev/null; then
        fail "missing here: ${missing[*]}; and there is no apt-get to install them with." \
            "install them by hand (python: 3.11 or later with venv; browser: Chromium with its chromedriver), then run this again."
    fi
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        fail "missing here: ${missing[*]}; installing them needs root, and there is no sudo." \
            "run scripts/setup.sh once as root, or install sudo and let this user use it; then run this again."
    fi
    say "Reading the lists of packages (missing here: ${missing[*]})"
    # One dead third-party source must not be the end: what is missing after this is told by the installation.
    quietly apt update || say "Some lists could not be read; going on with those that are here"
    packages=()
    for thing in "${missing[@]}"; do
        # A substitution of its own, so that a failure in it ends this too.
        thing="$(packages_for "$thing")"
        mapfile -t -O "${#packages[@]}" packages <<<"$thing"
    done
    say "Installing ${packages[*]}"
    quietly apt install --no-install-recommends "${packages[@]}" ||
        fail "apt-get could not install ${packages[*]}." \
            "see above; a dpkg that was interrupted wants \`dpkg --configure -a\`, missing rights want root or sudo. Then run this again."
}

set_up_system() {
    local missing
    mapfile -t missing < <(what_is_missing)
    ((${#missing[@]})) || return 0
    install_system_packages "${missing[@]}"
    mapfile -t missing < <(what_is_missing)
    ((${#missing[@]} == 0)) ||
        fail "the packages are installed, but this still does not work: ${missing[*]}." \
            "try by hand: \`python3 -c '$new_enough'\`, \`chromium --version\` and \`chromedriver --version\` (the same major version)."
}

# --- what comes from the lock files ---

# An environment that was moved or copied has scripts that start another folder's Python.
venv_fits() {
    grep -qsF -- "$venv" "$venv/bin/activate" && "$venv/bin/python" -c "import pip; $new_enough" 2>/dev/null
}

# Changes when anything changes that the environment is made from.
fingerprint() {
    {
        printf '%s\n' "$root"
        "$venv/bin/python" -VV
        cat -- "$root"/requirements.lock "$root"/requirements-dev.lock "$root"/pyproject.toml "$root"/scripts/{build.lock,setup.sh}
    } | sha256sum | cut -d ' ' -f 1
}

# What was set up for the tests is set up for running, too.
is_set_up() {
    local made_for made_from
    venv_fits && [[ -x "$venv/bin/proctor" && -r "$stamp" ]] || return 1
    read -r made_for made_from <"$stamp" || return 1
    [[ "$made_from" == "$(fingerprint)" && ("$made_for" == "$extent" || "$made_for" == dev) ]]
}

make_venv() {
    local python
    venv_fits && return
    python="$(find_python)"
    say "Making a virtual environment in .venv ($("$python" -V))"
    quietly "$python" -m venv --clear "$venv" ||
        fail "$python could not make a virtual environment in $venv." \
            "see above; on Debian and Ubuntu the package python3-venv (or, say, python3.12-venv) belongs to each Python."
}

online="see above; most often the package index could not be reached: look at the network and at a proxy's settings, then run this again."

install_uv() {
    local wanted="$venv/uv.lock"
    # The same version and hashes as in the lock, so that it is installed like everything else, once.
    awk '/^[^ #]/ { mine = /^uv==/ } mine' "$root/requirements.lock" >"$wanted"
    if [[ "$("$venv/bin/uv" --version 2>/dev/null)" == "uv $(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$wanted")"* ]]; then return; fi
    say "Installing uv"
    quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes -r "$wanted" ||
        fail "pip could not install uv." "$online"
}

uv_install() { quietly "$venv/bin/uv" pip install --python "$venv/bin/python" "$@"; }

prepare_uv() {
    # Trust whom the system trusts: a company's proxy is often known only there.
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
    # uv does not read pip's settings, and a company's index is often known only there.
    if [[ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]]; then
        local index="${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}"
        if [[ -n "$index" ]]; then export UV_DEFAULT_INDEX="$index"; fi
    fi
    # Without a home uv has no place for its cache, and would end there.
    if [[ ! -w "${HOME:-}" && -z "${UV_CACHE_DIR:-}${XDG_CACHE_HOME:-}" ]]; then export UV_NO_CACHE=1; fi
}

install_locked() {
    local lock="requirements.lock"
    if [[ "$extent" == dev ]]; then lock="requirements-dev.lock"; fi
    say "Installing what $lock names"
    uv_install --only-binary :all: --require-hashes -r "$root/$lock" || fail "uv could not install $lock." "$online"
    say "Installing Proctor"
    uv_install --build-constraints "$root/scripts/build.lock" --no-deps -e "$root" || fail "uv could not install Proctor." "$online"
}

set_up_venv() {
    # Python's venv leaves its temporary files behind after Ctrl-C. Not for apt: its own user could not write there.
    export TMPDIR="$scratch"
    make_venv
    rm -f -- "$stamp"
    install_uv
    prepare_uv
    install_locked
    printf '%s %s\n' "$extent" "$(fingerprint)" >"$stamp"
}

main() {
    if [[ "$extent" != runtime && "$extent" != dev ]]; then
        fail "scripts/setup.sh sets up for \`runtime\` or \`dev\`, not for \`$extent\`." "say one of the two."
    fi
    unset PYTHONHOME PYTHONPATH
    PATH="$PATH:/usr/sbin:/sbin:/snap/bin"
    exec 9<"$root"
    if ! flock -n 9; then
        say "Waiting for another set-up of this checkout to end"
        flock 9
    fi
    set_up_system
    is_set_up || set_up_venv
    say "Set up"
}

main
