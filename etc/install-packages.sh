#!/bin/sh
# Install what is missing of the named groups of etc/packages: install-packages.sh build run test fuzz lint
# Quiet when all is there. As root it uses apt-get, else sudo; with neither it prints the line to run, exit 1.
set -eu

list=$(dirname "$0")/packages
[ $# -gt 0 ] || { echo "usage: $0 GROUP..." >&2; exit 2; }

wanted=$(for group in "$@"; do
	found=$(awk -v group="$group:" '$1 !~ /^#/ && $2 == "#" && $3 == group { print $1 }' "$list")
	[ -n "$found" ] || { echo "$0: no group \"$group\" in $list" >&2; exit 2; }
	echo "$found"
done)

if ! command -v dpkg-query >/dev/null 2>&1; then
	echo "not a Debian system: these packages, or what your system calls them, are assumed to be there:" $wanted >&2
	exit 0
fi
# One line "ii name" for each package that is fully installed.
have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null | awk '$1 == "ii" { print $2 }') || true
missing=
for package in $wanted; do
	printf '%s\n' "$have" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -eq 0 ]; then
	as_root=
elif command -v sudo >/dev/null 2>&1; then
	as_root=sudo
else
	printf 'These packages are missing and there is no sudo. As root, run:\n\n  %s\n\n' "$line" >&2
	exit 1
fi
echo "installing missing packages:$missing"
$as_root apt-get update -q
$as_root env DEBIAN_FRONTEND=noninteractive $line
