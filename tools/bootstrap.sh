#!/bin/sh
# Make this machine able to run the project: bootstrap.sh run|test
#
# First the programs of the system (installed by apt where we may, named where we may not), then .venv
# with the locked packages. It is run before everything else and takes no time when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

goal=$1
python=${PYTHON:-python3}
case $goal in
    run) lock=requirements.txt ;;
    test) lock=requirements-dev.txt ;;
    *) echo "usage: bootstrap.sh run|test" >&2; exit 2 ;;
esac

any_of() {
    for candidate; do
        if [ -e "$candidate" ] || command -v "$candidate" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# Prints the Debian packages that are missing. What the environment provides is not asked for.
missing() {
    # Debian's python3 comes without ensurepip, and would make an environment that has no pip.
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        echo python3 python3-venv
    # macOS keeps its certificates elsewhere.
    any_of /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem ||
        echo ca-certificates
    [ "$goal" = test ] || return 0
    [ -n "${DATABASE_URL:-}" ] || any_of initdb /usr/lib/postgresql/*/bin/initdb || echo postgresql
    [ -n "${REDIS_URL:-}" ] || any_of redis-server valkey-server || echo redis-server
    any_of "${CHROMIUM:-chromium}" google-chrome || echo chromium
    any_of msgfmt || echo gettext
    any_of pdftotext || echo poppler-utils
    # Without their own fonts pages measure differently, and Chinese is drawn as boxes.
    any_of /usr/share/fonts/*/liberation* /usr/share/fonts/liberation* /Library/Fonts || echo fonts-liberation
    any_of /usr/share/fonts/*/noto/NotoSansCJK* /usr/share/fonts/*noto*cjk* /Library/Fonts || echo fonts-noto-cjk
}

need=$(echo $(missing))
if [ -n "$need" ]; then
    install="apt-get install -y --no-install-recommends $need"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Missing, by their Debian names: $need" >&2
        echo "There is no apt-get here: please install them your system's way, then try again." >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        # Without a terminal nobody could type a password: then only a sudo that asks for none will do.
        if [ -t 0 ]; then as_root=sudo; else as_root="sudo -n"; fi
        if ! command -v sudo >/dev/null 2>&1 || ! $as_root true; then
            echo "Missing: $need" >&2
            echo "Only root can install them. As root, run this, then try again:" >&2
            echo "" >&2
            echo "  apt-get update && $install" >&2
            exit 1
        fi
    fi
    echo "Installing $need (a few minutes) ..."
    log=$(mktemp)
    # A failing update is no reason to stop: the lists that are here may do, and if not, installing says so.
    if ! { $as_root apt-get update -q || true
           $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q ${install#apt-get }
         } </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "" >&2
        echo "apt could not install what is missing: $need" >&2
        exit 1
    fi
    rm -f "$log"
    need=$(echo $(missing))
    if [ -n "$need" ]; then
        echo "Installed, but still not usable: $need" >&2
        case $need in *python3*)
            echo "Python 3.11 or newer is needed; $python is $("$python" -V 2>&1). Try: make $goal PYTHON=python3.12" >&2
        esac
        exit 1
    fi
fi

# The stamp is a copy of the lock file as it was installed: unlike a time, it survives a fresh checkout
# and notices a change of branch. The Python of an environment can go away with a system upgrade.
installed=.venv/installed-$goal.txt
if [ -e .venv ] && ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "The Python of .venv is gone or incomplete: making it anew."
    rm -rf .venv
fi
if ! cmp -s "$lock" "$installed"; then
    [ -e .venv ] || "$python" -m venv .venv
    echo "Installing the packages of $lock into .venv (about a minute) ..."
    .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r "$lock"
    cp "$lock" "$installed"
    [ "$goal" = run ] || cp requirements.txt .venv/installed-run.txt
fi
